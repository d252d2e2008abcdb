"""Endpoints of what closes stay at the client for a while: calls that it let through just before still choose them."""

from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource
from pointsman_server.xds.resources.build import build
from pointsman_server.xds.targets import UNKNOWN, Slot, Target, Verdict
from pointsman_server.xds.views import View
from tests.support.xds_world import CDS, EDS, RDS, Client, World, sent

LIVE = Target(Verdict.LIVE, (Slot("v1", "http://127.0.0.1:1"),))


class Emptied(World):
    """What is not live has no endpoints."""

    def resource(self, kind: ResourceType, name: str) -> Resource:
        root, found = self.root(name), super().resource(kind, name)
        return found if kind is not EDS or root.live else found._replace(version=1, body=b"", empties=True)


def client() -> Client:
    made = Client(Emptied())
    made.world.set("a", live=True)
    for kind in (RDS, CDS, EDS):
        made.settle(made.ask(kind, "a"))
    return made


def test_what_closes_keeps_its_endpoints_until_it_is_released() -> None:
    closing = client()

    assert sent(closing.settle(closing.change("a", live=False))) == [(RDS, ["a"])]
    assert closing.session.settled
    closing.session.release(closing.session.lingering())
    assert sent(closing.settle()) == [(EDS, ["a"])]
    assert closing.session.lingering() == {}


def test_what_opens_again_meanwhile_keeps_its_endpoints() -> None:
    toggled = client()
    toggled.settle(toggled.change("a", live=False))
    began = toggled.session.lingering()

    toggled.settle(toggled.change("a", live=True))
    toggled.session.release(began)

    assert sent(toggled.settle()) == []


def test_what_closes_again_meanwhile_lingers_as_long_again() -> None:
    toggled = client()
    toggled.settle(toggled.change("a", live=False))
    began = toggled.session.lingering()
    toggled.settle(toggled.change("a", live=True))
    toggled.settle(toggled.change("a", live=False))

    toggled.session.release(began)
    assert sent(toggled.settle()) == []
    toggled.session.release(toggled.session.lingering())
    assert sent(toggled.settle()) == [(EDS, ["a"])]


def test_another_change_meanwhile_does_not_make_it_linger_longer() -> None:
    closing = client()
    closing.settle(closing.change("a", live=False))
    began = closing.session.lingering()
    closing.settle(closing.change("a", route=7))

    closing.session.release(began)

    assert sent(closing.settle()) == [(EDS, ["a"])]


def test_a_name_that_the_client_forgets_meanwhile_is_not_sent() -> None:
    closing = client()
    closing.settle(closing.change("a", live=False))
    closing.settle(closing.ask(EDS, nonce=""))

    closing.session.release(closing.session.lingering())

    assert sent(closing.settle()) == []


def test_a_client_that_has_no_endpoints_yet_is_sent_none_at_once() -> None:
    starting = Client(Emptied())
    assert sent(starting.ask(EDS, "a")) == [(EDS, ["a"])]


def test_endpoints_are_emptied_by_what_is_not_live() -> None:
    for target, empties in ((LIVE, False), (UNKNOWN, True), (Target(Verdict.NOT_LIVE, LIVE.slots), True)):
        assert build(View(), EDS, "v1~prod~payments~team-a", target).empties is empties
