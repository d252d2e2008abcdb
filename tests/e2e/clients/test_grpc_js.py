"""grpc-js, the client of Node.js, against a server process on each transport, in plaintext and by TLS."""

import signal

import pytest

from tests.support.certificates import Authority
from tests.support.grpc_js import GrpcJs
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
SERVICE = "pointsman.v1.RouteService"
HEALTH = "grpc.health.v1.Health"
TRANSPORTS = ("grpcio", "envoy")

pytestmark = pytest.mark.node


@pytest.fixture
def js(door) -> GrpcJs:
    return GrpcJs(door.target, door.authority)


def test_a_call_is_answered(js, key):
    created, _ = js.call(f"{SERVICE}/Create", {"key": key, "url": URL})
    resolved, ending = js.call(f"{SERVICE}/Resolve", {"key": key})

    assert resolved["route"]["url"] == created["route"]["url"] == URL
    assert (ending.code, ending.text, ending.error) == ("OK", "", None)


def test_an_error_has_its_text_and_its_details(js, key):
    ending = js.fail(f"{SERVICE}/Resolve", {"key": key}, metadata=[("x-request-id", "from-node")])

    assert ending.code == "NOT_FOUND"
    assert key["tenant"] in ending.text
    assert (ending.error["code"], ending.error["message"]) == (5, ending.text)
    info = ending.error["details"]["google.rpc.ErrorInfo"]
    assert (info["reason"], info["domain"]) == ("ROUTE_NOT_FOUND", "pointsman.v1")
    assert {"key": "key", "value": "/".join(key.values())} in info["metadata"]
    assert ending.trailers["x-request-id"] == "from-node"


def test_each_bad_field_is_named(js, key):
    ending = js.fail(f"{SERVICE}/Create", {"key": key | {"tenant": "a b", "env": "ä"}, "url": URL})

    assert ending.code == "INVALID_ARGUMENT"
    violations = ending.error["details"]["google.rpc.BadRequest"]["field_violations"]
    assert {violation["field"] for violation in violations} == {"key.tenant", "key.env"}


def test_a_deadline_ends_the_call_on_both_sides(js, door):
    with door.listing_blocked(), js.start(f"{SERVICE}/List", {}, seconds=2) as call:
        assert eventually(door.waiting)

        assert call.end().code == "DEADLINE_EXCEEDED"
        assert eventually(lambda: not door.waiting())


def test_a_call_can_be_cancelled(js, door):
    with door.listing_blocked(), js.start(f"{SERVICE}/List", {}) as call:
        assert eventually(door.waiting)
        call.cancel()

        assert call.end().code == "CANCELLED"
        assert eventually(lambda: not door.waiting())


def test_a_compressed_request_is_unpacked(js, key):
    keys = [key | {"version": f"v{number}"} for number in range(100)]
    resolved, ending = js.call(f"{SERVICE}/BatchResolve", {"keys": keys}, gzip=True)

    assert ending.code == "OK"
    assert [result["key"] for result in resolved["results"]] == keys


def test_a_compressed_request_that_is_too_large_once_unpacked_is_refused(js, key):
    ending = js.fail(f"{SERVICE}/Create", {"key": key, "url": URL, "reason": "x" * 20_000_000}, gzip=True)

    assert ending.code == "RESOURCE_EXHAUSTED"


def test_health_can_be_watched(js):
    with js.start(f"{HEALTH}/Watch", {"service": "readiness"}) as watch:
        assert watch.message() == {"status": "SERVING"}
        watch.cancel()
        assert watch.end().code == "CANCELLED"


def test_a_stream_ends_at_its_deadline(js):
    with js.start(f"{HEALTH}/Watch", {"service": "x"}, seconds=1) as watch:
        assert watch.message() == {"status": "SERVICE_UNKNOWN"}
        assert watch.end().code == "DEADLINE_EXCEEDED"


def test_reflection_answers_each_request_of_a_stream(js):
    method = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    with js.start(method, {"list_services": ""}, {"file_containing_symbol": "pointsman.v1.Teleport"}) as call:
        services = call.message()["list_services_response"]["service"]
        assert {"name": SERVICE} in services
        assert call.message()["error_response"]["error_code"] == 5
        assert call.end().code == "OK"


def test_a_client_that_does_not_trust_the_server_does_not_call_it(door, key):
    other = GrpcJs(door.target, None if door.authority else Authority())

    assert other.fail(f"{SERVICE}/Resolve", {"key": key}).code == "UNAVAILABLE"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_client_shows_its_certificate(doors, transport, authority, client_pair, key):
    door = doors.open(transport, authority, mutual=True)
    js = GrpcJs(door.target, authority, client_pair)

    js.call(f"{SERVICE}/Create", {"key": key, "url": URL})
    (change,) = js.call(f"{SERVICE}/ListChanges", {"tenant": key["tenant"]})[0]["changes"]

    assert change["actor"] == "dns:checkout.internal"
    assert GrpcJs(door.target, authority).fail(f"{SERVICE}/Resolve", {"key": key}).code == "UNAVAILABLE"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_watch_is_told_of_a_drain(doors, transport):
    door = doors.open(transport, None, POINTSMAN_LAME_DUCK_SECONDS="600")
    with GrpcJs(door.address).start(f"{HEALTH}/Watch", {"service": "readiness"}) as watch:
        assert watch.message() == {"status": "SERVING"}
        door.process.process.send_signal(signal.SIGTERM)

        assert watch.message() == {"status": "NOT_SERVING"}
    door.process.process.kill()
