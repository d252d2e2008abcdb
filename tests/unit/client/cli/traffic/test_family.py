"""traffic.family: what there is of a family, and which shares reach nobody."""

from datetime import UTC, datetime

import pytest

from pointsman import Client
from pointsman.cli.traffic.family import FamilyState, family_of, inactive_warnings
from pointsman.keys import FamilyKey
from pointsman.results import Route
from tests.support.fake_route_service import FakeServer

TIME = datetime(2026, 1, 1, tzinfo=UTC)
KEY = FamilyKey("a", "b", "c")


def state(**active: bool) -> FamilyState:
    routes = {name: Route(KEY.version(name), "https://x", on, {}, 1, TIME, TIME) for name, on in active.items()}
    return FamilyState(KEY, None, routes)


def test_it_is_read_from_the_server(client: Client, server: FakeServer) -> None:
    server.add("a/b/c/v1", "https://x.internal")
    server.add("a/b/d/v1", "https://x.internal")
    before = family_of(client, KEY)
    assert (list(before.routes), before.weights, before.fallbacks, before.revision) == (["v1"], {"v1": 10_000}, (), 0)
    server.add("a/b/c/v2", "https://x.internal")
    server.divide("a/b/c", {"v1": 9000, "v2": 1000}, ("v1",))
    after = family_of(client, KEY)
    assert (after.weights, after.fallbacks, after.revision) == ({"v1": 9000, "v2": 1000}, ("v1",), 4)


def test_without_traffic_only_a_single_active_version_has_the_calls() -> None:
    assert state(v1=True, v2=False).weights == {"v1": 10_000}
    assert state(v1=True, v2=True).weights == {}
    assert state(v1=False).weights == {}


@pytest.mark.parametrize(
    ("weights", "activated", "warning"),
    [
        ({"v1": 10_000}, [], None),
        ({"v1": 10_000, "v2": 0}, [], None),
        ({"v1": 9000, "v2": 1000}, ["v2"], None),
        (
            {"v1": 9000, "v2": 1000},
            [],
            "v2 is not active: the others get those calls, until you run pointsman activate",
        ),
        ({"v2": 5000, "v3": 5000}, [], "v2, v3 are not active: no version with a weight is"),
    ],
)
def test_shares_of_what_is_not_active_are_warned_of(
    weights: dict[str, int], activated: list[str], warning: str | None
) -> None:
    found = inactive_warnings(state(v1=True, v2=False, v3=False), weights, activated)
    assert [each.startswith(f"warning: {warning}") for each in found] == ([True] if warning else [])
