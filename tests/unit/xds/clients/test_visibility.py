"""xds.clients.visibility: what one caller sees of the clients of others."""

import pytest

from pointsman_server.domain.identity import Scope
from pointsman_server.xds.clients.visibility import Visibility, roots_of
from pointsman_server.xds.protocol.types import ResourceType
from tests.support.changes import make_change
from tests.support.xds_connections import Connections, FakeCaller

OURS, THEIRS = "v1~prod~pay~acme", "v1~prod~pay~other"


@pytest.mark.parametrize(
    ("caller", "seen"),
    [
        (FakeCaller("operator"), (OURS, THEIRS, "nonsense")),
        (FakeCaller("owner", ["acme"]), (OURS, THEIRS, "nonsense")),
        (FakeCaller("somebody", ["acme"]), (OURS,)),
        (FakeCaller("nobody", []), ()),
    ],
)
async def test_only_names_of_what_the_caller_may_read_are_seen(caller: FakeCaller, seen: tuple[str, ...]) -> None:
    connection = Connections(make_change(1)).connect(subject="owner")
    await connection.ask(ResourceType.RDS, OURS, THEIRS, "nonsense")
    assert roots_of(connection.connected) == (OURS, THEIRS, "nonsense")
    assert Visibility(caller).visible(connection.connected, roots_of(connection.connected)) == seen


def test_the_names_of_all_resources_are_hidden_as_their_roots_are() -> None:
    visibility = Visibility(FakeCaller("somebody", ["acme"]))
    assert visibility.may_see(f"{OURS}~~1")
    assert visibility.may_see(f"xdstp://pointsman/envoy.config.listener.v3.Listener/{OURS}")
    assert not visibility.may_see(f"{THEIRS}~~1")
    assert not visibility.may_see("nonsense")
    assert Visibility(FakeCaller("operator")).may_see("nonsense")


def test_the_names_of_one_env_are_not_those_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = FakeCaller("somebody")
    monkeypatch.setattr(caller, "may_read", lambda scope: scope == Scope("acme", "prod"))
    visibility = Visibility(caller)
    assert [visibility.may_see(name) for name in (OURS, "v1~test~pay~acme", OURS)] == [True, False, True]
