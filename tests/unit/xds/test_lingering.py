"""Endpoints of what closes stay at the client for a while: calls that it let through just before still choose them."""

from dataclasses import dataclass

import pytest

from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource
from pointsman_server.xds.resources.build import build
from pointsman_server.xds.session import Push
from pointsman_server.xds.targets import UNKNOWN, Slot, Target, Verdict
from pointsman_server.xds.views import View
from tests.support.xds_world import ALL, CDS, EDS, RDS, Client, World, sent

LIVE = Target(Verdict.LIVE, (Slot("v1", "http://127.0.0.1:1"),))


@dataclass
class Emptied(World):
    """What is not live has no endpoints, and what is named so another cluster."""

    closing: tuple[ResourceType, ...] = (EDS,)

    def resource(self, kind: ResourceType, name: str) -> Resource:
        root, found = self.root(name), super().resource(kind, name)
        return found if kind not in self.closing or root.live else found._replace(version=1, body=b"", closed=True)


def client(*closing: ResourceType) -> Client:
    made = Client(Emptied(closing=closing or (EDS,)))
    made.world.set("a", live=True)
    made.world.set("b", live=True)
    for kind in (RDS, CDS, EDS):
        made.settle(made.ask(kind, "a", "b"))
    return made


def bodies(push: Push) -> dict[str, bytes]:
    return {resource.name: resource.body for resource in push.resources}


def test_a_cluster_that_lingers_is_in_responses_as_it_was() -> None:
    closing = client(CDS, EDS)
    before = closing.world.resource(CDS, "a")
    closing.settle(closing.change("a", live=False))

    (response,) = [push for push in closing.settle(closing.change("b", cluster=2)) if push.kind is CDS]
    assert bodies(response)["a"] == before.body
    closing.session.release(closing.session.lingering())
    released = closing.settle()
    assert [push.kind for push in released] == [CDS, EDS]
    assert bodies(released[0])["a"] == b""


def test_a_cluster_that_is_asked_for_again_meanwhile_is_sent_as_it_is() -> None:
    closing = client(CDS)
    closing.settle(closing.change("a", live=False))
    closing.settle(closing.ask(CDS, "b"))

    (response,) = [push for push in closing.settle(closing.ask(CDS, "a", "b")) if push.kind is CDS]

    assert bodies(response)["a"] == b""


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


@pytest.mark.parametrize("acknowledged", [False, True])
def test_what_routes_still_lead_to_lingers_longer(acknowledged: bool) -> None:
    """The one RouteConfiguration of an Envoy waits for all clusters, and some may wait for a name to be resolved."""
    envoy = Client(Emptied(), warms=True)
    envoy.world.set("a")
    envoy.world.set("b")
    for kind, names in {CDS: (), EDS: ("a", "b"), RDS: (ALL,)}.items():
        envoy.settle(envoy.ask(kind, *names))
    slow = [*envoy.change("a", cluster=1, endpoints=1), *envoy.change("b", live=False)]
    began = envoy.session.lingering()
    if acknowledged:
        envoy.settle(slow)

    envoy.session.release(began)

    released = {name for push in envoy.settle() for name in (each.name for each in push.resources)}
    assert ("b" in released) is acknowledged
    assert (envoy.session.lingering() == {}) is acknowledged


def test_a_name_that_the_client_forgets_meanwhile_is_not_sent() -> None:
    closing = client()
    closing.settle(closing.change("a", live=False))
    closing.settle(closing.ask(EDS, "b", nonce=""))

    closing.session.release(closing.session.lingering())

    assert sent(closing.settle()) == []


def test_a_client_that_has_no_endpoints_yet_is_sent_none_at_once() -> None:
    starting = Client(Emptied())
    assert sent(starting.ask(EDS, "a")) == [(EDS, ["a"])]


def test_endpoints_are_emptied_by_what_is_not_live() -> None:
    for target, closed in ((LIVE, False), (UNKNOWN, True), (Target(Verdict.NOT_LIVE, LIVE.slots), True)):
        assert build(View(), EDS, "v1~prod~payments~team-a", target).closed is closed
