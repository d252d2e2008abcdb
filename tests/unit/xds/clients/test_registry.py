"""xds.clients.registry: how far each client has followed, and what it refused."""

from pointsman_server.domain.routes import ChangeKind
from pointsman_server.ports.store import Clock
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.stream import Observer
from tests.support.changes import make_change
from tests.support.xds_connections import Connections

ROOT = "v1~prod~pay~acme"
LDS, RDS = ResourceType.LDS, ResourceType.RDS


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
