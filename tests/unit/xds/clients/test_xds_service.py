"""xds.clients.xds_service: the list of clients, page by page, and names in words."""

import pytest

from pointsman.v1 import xds_service_pb2 as pb
from pointsman_server.domain.access_errors import Forbidden
from pointsman_server.domain.errors import InvalidField, StoreUnavailable
from pointsman_server.domain.routes import ChangeKind
from pointsman_server.ports.store import Clock
from pointsman_server.xds.clients import xds_service as module
from pointsman_server.xds.clients.xds_service import MOST_NAMES, XdsMethods
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.table import Table
from pointsman_server.xds.views import ClientKind, View
from tests.support.changes import make_change
from tests.support.xds_connections import OPENED, Connections, FakeCaller, Turns

OURS, THEIRS = "v1~prod~pay~acme", "v1~prod~pay~other"
OPERATOR, READER = FakeCaller("operator"), FakeCaller("reader", ["acme"])
RDS = ResourceType.RDS


class Scene:
    def __init__(self) -> None:
        self.world = Connections(make_change(1))
        self.methods = XdsMethods(self.world.clients, lambda: self.world.snapshot)

    async def listed(self, caller: FakeCaller = OPERATOR, **fields: object) -> pb.ListXdsClientsResponse:
        return await self.methods.list_clients(pb.ListXdsClientsRequest(**fields), caller)  # type: ignore[arg-type]

    async def explained(self, key: str, caller: FakeCaller = OPERATOR, kind: int = 0) -> pb.ExplainXdsResponse:
        return await self.methods.explain(pb.ExplainXdsRequest(key=key, kind=kind), caller)  # type: ignore[arg-type]


async def test_a_client_is_shown_with_everything_that_is_known_of_it() -> None:
    scene = Scene()
    connection = scene.world.connect("checkout-7\x1b", subject="key:checkout", agent="gRPC C-core\n1.85.3")
    await connection.ask(RDS, THEIRS, OURS)
    await connection.answer()
    answer = await scene.listed()
    (client,) = answer.clients
    assert answer.revision == 1
    assert (client.id, client.node_id, client.user_agent) == (
        f"{scene.world.clients.process}-1",
        "checkout-7 ",
        "gRPC C-core 1.85.3",
    )
    assert (client.kind, client.subject) == (pb.XDS_CLIENT_KIND_GRPC, "key:checkout")
    assert client.address == "ipv4:127.0.0.1:4242"
    assert (client.connect_time.seconds, client.connect_time.nanos) == (int(OPENED), 500_000_000)
    assert (list(client.names), client.name_count, client.acknowledged_revision) == ([OURS, THEIRS], 2, 1)


async def test_of_many_names_some_are_shown() -> None:
    scene = Scene()
    await scene.world.connect().ask(RDS, *(f"v{number}~prod~pay~acme" for number in range(MOST_NAMES + 5)))
    (client,) = (await scene.listed()).clients
    assert (len(client.names), client.name_count) == (MOST_NAMES, MOST_NAMES + 5)


async def test_pages_have_every_client_once_whoever_comes_and_goes() -> None:
    scene = Scene()
    connections = [scene.world.connect(str(number)) for number in range(5)]
    first = await scene.listed(page_size=2)
    connections[0].close()
    connections[2].close()
    scene.world.connect("new")
    second = await scene.listed(page_size=2, page_token=first.next_page_token)
    third = await scene.listed(page_size=2, page_token=second.next_page_token)
    assert [each.node_id for page in (first, second, third) for each in page.clients] == ["0", "1", "3", "4", "new"]
    assert not third.next_page_token


@pytest.mark.parametrize("token", ["x", "-1", "1", "{}-x", "{}-", "{}-²", "another-1"])
async def test_a_page_token_of_another_form_or_of_another_worker_is_refused(token: str) -> None:
    scene = Scene()
    with pytest.raises(InvalidField):
        await scene.listed(page_token=token.format(scene.world.clients.process))


async def test_an_answer_names_the_worker_and_says_how_many_there_are() -> None:
    scene = Scene()
    scene.methods = XdsMethods(scene.world.clients, lambda: scene.world.snapshot, workers=4)
    answer = await scene.listed()
    assert (answer.worker, answer.worker_count) == (scene.world.clients.process, 4)


async def test_large_answers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS_IN_A_TURN", 2)
    monkeypatch.setattr(module, "FAMILIES_IN_A_TURN", 2)
    scene, turns = Scene(), Turns()
    scene.methods = XdsMethods(scene.world.clients, lambda: scene.world.snapshot, turns)
    scene.world.change(*(make_change(2 + number, f"pay-{number}", ChangeKind.CREATED) for number in range(5)))
    for _ in range(6):
        scene.world.connect()
    assert len((await scene.listed()).clients) == 6
    assert turns.taken == 3
    await scene.explained(OURS, kind=pb.XDS_CLIENT_KIND_ENVOY)
    assert turns.taken == 6
    await scene.explained(OURS, kind=pb.XDS_CLIENT_KIND_GRPC)
    assert turns.taken == 6


async def test_a_prefix_selects_by_names_that_the_caller_may_read() -> None:
    scene = Scene()
    await scene.world.connect("ours").ask(RDS, OURS)
    await scene.world.connect("theirs").ask(RDS, THEIRS)
    assert [each.node_id for each in (await scene.listed(name_prefix=THEIRS)).clients] == ["theirs"]
    assert not (await scene.listed(READER, name_prefix=THEIRS)).clients
    assert [each.node_id for each in (await scene.listed(READER)).clients] == ["ours"]


async def test_a_refusal_is_hidden_from_those_who_may_not_read_all_that_it_may_name() -> None:
    scene = Scene()
    connection = scene.world.connect(subject="key:both")
    await connection.ask(RDS, OURS, THEIRS)
    await connection.answer(f"{THEIRS}: no")
    for caller, text in ((OPERATOR, f"{THEIRS}: no"), (FakeCaller("key:both", ["acme"]), f"{THEIRS}: no")):
        (client,) = (await scene.listed(caller)).clients
        assert [(each.resource_type, each.message) for each in client.refusals] == [("RDS", text)]
    (client,) = (await scene.listed(READER)).clients
    assert "hidden" in client.refusals[0].message
    assert client.names == [OURS]


@pytest.mark.parametrize("key", ["acme/pay/prod/v1", OURS])
async def test_a_route_is_explained_to_both_kinds(key: str) -> None:
    answer = await Scene().explained(key)
    assert (answer.name, answer.revision) == (OURS, 1)
    assert [each.kind for each in answer.explanations] == [pb.XDS_CLIENT_KIND_GRPC, pb.XDS_CLIENT_KIND_ENVOY]
    for explanation in answer.explanations:
        assert explanation.reason
        assert {resource["type"] for resource in explanation.resources} >= {"LDS", "RDS", "CDS"}


async def test_one_kind_may_be_asked_for() -> None:
    answer = await Scene().explained("acme/pay/prod", kind=pb.XDS_CLIENT_KIND_ENVOY)
    assert answer.name == "prod~pay~acme"
    assert [each.kind for each in answer.explanations] == [pb.XDS_CLIENT_KIND_ENVOY]


async def test_of_two_names_that_differ_in_case_envoy_is_told_which_is_served() -> None:
    scene = Scene()
    scene.world.change(make_change(2, "Pay", ChangeKind.CREATED))
    texts = [" ".join(each.limitations) for each in (await scene.explained("acme/Pay/prod/v1")).explanations]
    assert ["differs from v1~prod~pay~acme in case only" in text for text in texts] == [False, True]


async def test_a_name_that_the_caller_may_not_read_is_not_told_by_one_that_differs_in_case() -> None:
    scene = Scene()
    scene.world.change(make_change(2, tenant="ACME"))
    for caller, told in ((OPERATOR, True), (FakeCaller("reader", ["ACME"]), False)):
        explained = await scene.explained("ACME/pay/prod/v1", caller, pb.XDS_CLIENT_KIND_ENVOY)
        assert ("v1~prod~pay~acme" in str(explained)) is told


@pytest.mark.parametrize("key", ["", "acme/pay", "a~b~c~d~e", "acme/pay/prod/v1/"])
async def test_what_is_no_name_is_refused(key: str) -> None:
    with pytest.raises(InvalidField):
        await Scene().explained(key)


async def test_what_the_caller_may_not_read_is_not_explained() -> None:
    with pytest.raises(Forbidden):
        await Scene().explained(THEIRS, READER)


async def test_an_envoy_is_shown_with_the_names_that_it_is_given() -> None:
    scene = Scene()
    connection = scene.world.connect(view=View(ClientKind.ENVOY))
    await connection.ask(ResourceType.CDS, OURS)
    (client,) = (await scene.listed()).clients
    assert (client.kind, list(client.names)) == (pb.XDS_CLIENT_KIND_ENVOY, [OURS])


async def test_nothing_is_explained_before_there_is_a_table() -> None:
    scene = Scene()
    scene.world.snapshot = ResourceSnapshot(Table(Clock("", 0)))
    with pytest.raises(StoreUnavailable):
        await scene.explained(OURS)
