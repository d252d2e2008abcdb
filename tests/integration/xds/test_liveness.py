"""What is live is reached, what is not is NOT_FOUND at once, and calls under way end well; in every kind of client."""

import grpc
import pytest

from pointsman.xds.names import AUTHORITY
from pointsman.xds.options import Program
from tests.support.xds_clients.clients import GRPC_KINDS, XdsClient
from tests.support.xds_clients.fleet import OK, Fleet, failed, go_on

pytestmark = [pytest.mark.go, pytest.mark.node]

NOT_FOUND = grpc.StatusCode.NOT_FOUND
# An answer that a client waits for in vain takes 15 s. Even a busy machine is faster.
FAST_SECONDS = 10.0


def test_a_route_is_reached_while_it_is_active(shared: Fleet, client: XdsClient, family: str) -> None:
    key = f"{family}/v1"
    shared.api.create(key, shared.urls["b1"])
    client.call("route", key)
    client.probe.wait("route", OK, "b1")
    for _ in range(3):
        shared.api.deactivate(key)
        client.probe.wait("route", NOT_FOUND, patience=FAST_SECONDS)
        shared.api.activate(key)
        client.probe.wait("route", OK, "b1", patience=FAST_SECONDS)
    shared.api.delete(key)
    client.probe.wait("route", NOT_FOUND, patience=FAST_SECONDS)
    shared.api.create(key, shared.urls["b1"])
    client.probe.wait("route", OK, "b1", patience=FAST_SECONDS)
    assert failed(client.probe.summary("route")).keys() == {"NOT_FOUND"}


def test_what_is_unknown_is_not_found_at_once_and_reached_when_it_is_made(
    shared: Fleet, client: XdsClient, family: str
) -> None:
    key = f"{family}/v1"
    client.call("unknown", key)
    answer = client.probe.wait("unknown", NOT_FOUND)
    assert (answer.at - answer.began) / 1e9 < FAST_SECONDS
    shared.api.create(key, shared.urls["b1"], active=False)
    go_on([client], "unknown", 3)
    client.call("family", family)
    client.probe.wait("family", NOT_FOUND)

    shared.api.activate(key)

    client.probe.wait("unknown", OK, "b1", patience=FAST_SECONDS)
    client.probe.wait("family", OK, "b1", patience=FAST_SECONDS)


def test_a_name_that_is_none_is_said_to_be_none(client: XdsClient, kind: Program) -> None:
    client.probe.target("none", client.door or "xds:///payments", authority="payments" if client.door else "")
    # An Envoy knows names only: what it does not know is not found.
    client.probe.wait("none", NOT_FOUND if kind is Program.ENVOY else grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("ending", ["deactivate", "delete"])
def test_calls_under_way_end_well(shared: Fleet, client: XdsClient, family: str, ending: str) -> None:
    key = f"{family}/v1"
    shared.api.create(key, shared.urls["b1"])
    client.call("route", key)
    client.probe.wait("route", OK, "b1")
    call = client.probe.hold("route")
    shared.backends.wait_until_held("b1")

    getattr(shared.api, ending)(key)

    client.probe.wait("route", NOT_FOUND)
    shared.backends.release("b1")
    answer = client.probe.ended(call)
    assert (answer.code, answer.backend) == (OK, "b1")


@pytest.mark.parametrize("kind", GRPC_KINDS)
def test_the_new_style_of_names_means_the_same(shared: Fleet, client: XdsClient, family: str) -> None:
    key = f"{family}/v1"
    client.call("new", key, authority=AUTHORITY)
    client.probe.wait("new", NOT_FOUND)
    shared.api.create(key, shared.urls["b1"])
    client.probe.wait("new", OK, "b1")
    shared.api.deactivate(key)
    client.probe.wait("new", NOT_FOUND)
