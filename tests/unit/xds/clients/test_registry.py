"""xds.clients.registry: how far each client has followed, and what it refused."""

import pytest

from pointsman_server.domain.routes import ChangeKind
from pointsman_server.ports.store import Clock
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.stream import Observer
from tests.support.changes import make_change
from tests.support.xds_connections import Connection, Connections

ROOT = "v1~prod~pay~acme"
URL = "http://pay.internal"
LDS, RDS, CDS, EDS = ResourceType


async def test_a_client_is_at_the_revision_that_it_has_acknowledged() -> None:
    world = Connections(make_change(1))
    connection = world.connect()
    assert connection.connected.acknowledged is None
    await connection.ask(RDS, ROOT)
    assert connection.connected.acknowledged is None
    await connection.answer()
    assert connection.connected.acknowledged == Clock("e1", 1)

    world.change(make_change(2, kind=ChangeKind.DELETED))
    assert connection.connected.acknowledged == Clock("e1", 1)
    await connection.follow()
    assert connection.connected.acknowledged == Clock("e1", 1)
    await connection.answer()
    assert connection.connected.acknowledged == Clock("e1", 2)


async def test_a_change_that_does_not_concern_it_is_acknowledged_at_once() -> None:
    world = Connections(make_change(1))
    connection = world.connect()
    await connection.ask(RDS, ROOT)
    await connection.answer()
    world.change(make_change(2, "ads"))
    assert connection.connected.acknowledged == Clock("e1", 2)


async def acknowledge(connection: Connection, kind: ResourceType, *names: str) -> Clock | None:
    await connection.ask(kind, *names)
    await connection.answer()
    return connection.connected.acknowledged


@pytest.mark.parametrize(("url", "endpoints"), [("http://127.0.0.1", True), (URL, False)])
async def test_a_client_that_begins_has_acknowledged_nothing_before_it_has_all_parts(url: str, endpoints: bool) -> None:
    world = Connections(make_change(1, url=url))
    connection = world.connect()
    at = Clock("e1", 1)
    assert await acknowledge(connection, LDS, ROOT) is None
    assert await acknowledge(connection, RDS, ROOT) is None
    assert await acknowledge(connection, CDS, ROOT) == (None if endpoints else at)
    assert await acknowledge(connection, EDS, ROOT) == at


async def test_of_a_family_a_client_acknowledges_the_members_of_clusters_too() -> None:
    world = Connections(make_change(1, url=URL))
    family = ROOT.partition("~")[2]
    connection = world.connect()
    assert await acknowledge(connection, LDS, family) is None
    assert await acknowledge(connection, RDS, family) is None
    assert await acknowledge(connection, CDS, family, f"{family}~~1") is None
    assert await acknowledge(connection, CDS, family, f"{family}~~1", f"{family}~~m0") is None
    names = (family, f"{family}~~1", f"{family}~~m0", f"{family}~~m1")
    assert await acknowledge(connection, CDS, *names) == Clock("e1", 1)


async def test_a_client_that_refuses_its_first_cluster_is_at_no_revision() -> None:
    world = Connections(make_change(1, url=URL))
    connection = world.connect()
    await acknowledge(connection, LDS, ROOT)
    await acknowledge(connection, RDS, ROOT)
    await connection.ask(CDS, ROOT)
    await connection.answer("no certificate provider")
    assert connection.connected.acknowledged is None


async def test_a_further_name_is_acknowledged_with_all_its_parts() -> None:
    world = Connections(make_change(1, url=URL))
    connection = world.connect()
    for kind in (LDS, RDS, CDS):
        await acknowledge(connection, kind, ROOT)
    assert connection.connected.acknowledged == Clock("e1", 1)

    other = ROOT.replace("pay", "ads")
    world.change(make_change(2, "ads", url=URL))
    for kind in (LDS, RDS):
        assert await acknowledge(connection, kind, ROOT, other) == Clock("e1", 1)
    assert await acknowledge(connection, CDS, ROOT, other) == Clock("e1", 2)


async def test_a_cluster_that_needs_endpoints_now_is_acknowledged_with_them() -> None:
    world = Connections(make_change(1, url=URL))
    connection = world.connect()
    for kind in (LDS, RDS, CDS):
        await acknowledge(connection, kind, ROOT)

    world.change(make_change(2, url="http://127.0.0.1"))
    await connection.follow()
    await connection.answer()
    assert connection.connected.acknowledged == Clock("e1", 1)
    assert await acknowledge(connection, EDS, ROOT) == Clock("e1", 2)


async def test_what_it_refuses_is_kept_until_it_is_sent_something_else() -> None:
    world = Connections(make_change(1))
    connection = world.connect()
    await connection.ask(RDS, ROOT)
    await connection.answer("too strange")
    assert {kind: refusal.text for kind, refusal in connection.connected.refusals.items()} == {RDS: "too strange"}
    assert connection.connected.acknowledged is None

    world.change(make_change(2, kind=ChangeKind.DELETED))
    await connection.follow()
    await connection.answer()
    assert connection.connected.refusals == {}
    assert connection.connected.acknowledged == Clock("e1", 2)


async def test_clients_are_in_the_order_in_which_they_came() -> None:
    world = Connections()
    first, second, third = world.connect("1"), world.connect("2"), world.connect("3")
    second.close()
    assert [each.stream for each in world.clients] == [first.stream, third.stream]
    assert [each.id for each in world.clients] == [1, 3]
    assert [world.clients.name_of(each) for each in world.clients] == [f"{world.clients.process}-{n}" for n in (1, 3)]
    assert Connections().clients.process != world.clients.process
    assert len(world.clients) == 2


async def test_others_are_told_of_a_client_as_long_as_it_is_here() -> None:
    world = Connections(make_change(1))
    told: list[str] = []

    class Recorder(Observer):
        def opened(self, stream: object) -> None:
            told.append(f"opened {len(world.clients)}")

        def closed(self, stream: object) -> None:
            told.append(f"closed {len(world.clients)}")

        def subscribed(self, stream: object, roots: object) -> None:
            told.append(f"subscribed {sorted(roots)}")  # type: ignore[call-overload]

        def pushed(self, stream: object, kind: ResourceType) -> None:
            told.append(f"pushed {kind.name}")

        def acknowledged(self, stream: object, kind: ResourceType, seconds: float) -> None:
            told.append(f"acknowledged {kind.name}")

        def refused(self, stream: object, kind: ResourceType, text: str) -> None:
            told.append(f"refused {kind.name} {text}")

    world.observers.append(Recorder())
    connection = world.connect()
    await connection.ask(RDS, ROOT)
    await connection.answer()
    await connection.ask(LDS, ROOT)
    await connection.answer("no")
    connection.close()
    assert told == [
        "opened 1",
        f"subscribed ['{ROOT}']",
        "pushed RDS",
        "acknowledged RDS",
        "pushed LDS",
        "refused LDS no",
        "closed 1",
    ]
