"""xds.clients.status: what each client has of each resource, for the standard tools."""

from typing import Any

import pytest

from pointsman_server.domain.errors import InvalidField
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.xds.clients import status as module
from pointsman_server.xds.clients.status import ClientStatusRequest, client_status
from pointsman_server.xds.clients.text import HIDDEN
from pointsman_server.xds.protocol import messages
from pointsman_server.xds.protocol.types import ResourceType
from tests.support.changes import make_change
from tests.support.xds_connections import Connections, FakeCaller, Turns

OURS, THEIRS = "v1~prod~pay~acme", "v1~prod~pay~other"
LDS, RDS = ResourceType.LDS, ResourceType.RDS
SYNCED, NOT_SENT, STALE, ERROR = 1, 2, 3, 4


async def configs(world: Connections, caller: FakeCaller | None = None, **fields: Any) -> list[Any]:
    caller = caller or FakeCaller("operator")
    answer = await client_status(ClientStatusRequest(**fields), world.clients, caller, FairShare())
    return list(answer.config)


def by_name(config: Any) -> dict[tuple[str, str], int]:
    found = config.generic_xds_configs
    return {(ResourceType(each.type_url).name, each.name): each.config_status for each in found}


async def test_each_resource_has_its_status() -> None:
    world = Connections(make_change(1))
    connection = world.connect()
    await connection.ask(LDS, OURS)
    await connection.answer()
    await connection.ask(RDS, OURS)
    (config,) = await configs(world)
    assert by_name(config) == {("LDS", OURS): SYNCED, ("RDS", OURS): STALE}
    await connection.answer("too strange")
    (config,) = await configs(world)
    (refused,) = [each for each in config.generic_xds_configs if each.type_url == RDS]
    assert (refused.config_status, refused.error_state.details) == (ERROR, "too strange")
    assert refused.error_state.HasField("last_update_attempt")
    assert messages.RouteConfiguration.FromString(refused.xds_config.value).name == OURS
    assert refused.version_info


async def test_contents_may_be_left_out() -> None:
    world = Connections(make_change(1))
    await world.connect().ask(LDS, OURS)
    (config,) = await configs(world, exclude_resource_contents=True)
    assert not config.generic_xds_configs[0].HasField("xds_config")


async def test_clients_and_resources_that_the_caller_may_not_read_are_left_out() -> None:
    world = Connections(make_change(1))
    await world.connect("theirs").ask(RDS, THEIRS)
    await world.connect("both").ask(RDS, OURS, THEIRS)
    (config,) = await configs(world, FakeCaller("reader", ["acme"]))
    assert config.node.id == "both"
    assert set(by_name(config)) == {("RDS", OURS)}
    assert len(await configs(world, FakeCaller("anonymous", []))) == 2


@pytest.mark.parametrize(
    ("matcher", "found"),
    [
        ({"exact": "checkout-1"}, ["checkout-1"]),
        ({"prefix": "checkout"}, ["checkout-1", "checkout-2"]),
        ({"suffix": "-2"}, ["checkout-2"]),
        ({"contains": "out"}, ["checkout-1", "checkout-2"]),
        ({"prefix": "CHECK", "ignore_case": True}, ["checkout-1", "checkout-2"]),
        ({"prefix": "CHECK"}, []),
    ],
)
async def test_clients_are_matched_by_their_node_id(matcher: dict[str, Any], found: list[str]) -> None:
    world = Connections()
    for node in ("checkout-1", "checkout-2", "billing"):
        world.connect(node)
    assert [each.node.id for each in await configs(world, node_matchers=[{"node_id": matcher}])] == found
    names = [world.clients.name_of(client) for client in world.clients]
    assert [each.client_scope for each in await configs(world)] == names


@pytest.mark.parametrize("matcher", [{}, {"node_id": {}}, {"node_id": {"safe_regex": {"regex": ".*"}}}])
async def test_other_matchers_are_refused(matcher: dict[str, Any]) -> None:
    text = r"^node_matchers\[1\]: must match node_id by exact, prefix, suffix or contains$"
    with pytest.raises(InvalidField, match=text):
        await configs(Connections(), node_matchers=[{"node_id": {"exact": "one"}}, matcher])


async def test_an_answer_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RESOURCES", 3)
    world = Connections()
    await world.connect("one").ask(RDS, "a", "b", "c")
    assert len(await configs(world)) == 1
    await world.connect("two").ask(RDS, "d")
    with pytest.raises(InvalidField, match=r"^node_matchers: match clients with more than 3 resources: match fewer"):
        await configs(world)
    assert len(await configs(world, node_matchers=[{"node_id": {"exact": "two"}}])) == 1


async def test_what_a_client_says_is_hidden_from_those_who_may_not_read_all_that_it_may_name() -> None:
    world = Connections(make_change(1))
    connection = world.connect()
    await connection.ask(RDS, OURS, THEIRS)
    await connection.answer(f"{THEIRS} is\x1b strange")
    for caller, text in ((FakeCaller("reader", ["acme"]), HIDDEN), (FakeCaller("operator"), f"{THEIRS} is  strange")):
        (config,) = await configs(world, caller)
        assert {each.error_state.details for each in config.generic_xds_configs} == {text}


async def test_a_large_answer_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MATCHED_IN_A_TURN", 2)
    monkeypatch.setattr(module, "ADDED_IN_A_TURN", 2)
    world, turns = Connections(), Turns()
    for _ in range(4):
        world.connect()
    await world.connect("many").ask(RDS, *"abcde")
    answer = await client_status(ClientStatusRequest(), world.clients, FakeCaller("operator"), turns)
    assert [len(config.generic_xds_configs) for config in answer.config] == [0, 0, 0, 0, 5]
    # Three for five clients, and three for five resources.
    assert turns.taken == 6
