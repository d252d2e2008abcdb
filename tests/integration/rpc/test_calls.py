"""Every call has a request id and a deadline, is counted, and shows nothing of a bug."""

import asyncio
import urllib.request

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.rpc import call
from tests.support.grpc_js import GrpcJs
from tests.support.refusals import refused
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"


def sample(server, name: str, **labels: str) -> float:
    return server.app.metrics.registry.get_sample_value(name, labels) or 0.0


def rpc(method: str, code: str) -> dict[str, str]:
    return {
        "grpc_type": "unary",
        "grpc_service": "pointsman.v1.RouteService",
        "grpc_method": method,
        "grpc_code": code,
    }


def test_an_error_carries_the_request_id_of_the_caller(grpc_stub, key):
    refusal = refused(grpc_stub.Resolve, pb.ResolveRequest(key=key), metadata=[("x-request-id", "from-me")])

    assert refusal.trailers["x-request-id"] == "from-me"


def test_an_error_carries_a_new_request_id_where_the_caller_sent_none(grpc_stub, key):
    refusal = refused(grpc_stub.Resolve, pb.ResolveRequest(key=key))

    assert 32 <= len(refusal.trailers["x-request-id"]) <= 36


def test_a_long_request_id_is_shortened(grpc_stub, key):
    refusal = refused(grpc_stub.Resolve, pb.ResolveRequest(key=key), metadata=[("x-request-id", "x" * 200)])

    assert refusal.trailers["x-request-id"] == "x" * 128


def test_a_bug_gets_a_fixed_text_and_nothing_of_its_cause(grpc_server, grpc_stub, key, monkeypatch):
    async def broken(*_args, **_kwargs):
        raise RuntimeError("canary: the cause")

    monkeypatch.setattr(grpc_server.app.store, "list_routes", broken)

    refusal = refused(grpc_stub.List, pb.ListRequest(tenant="x"))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "canary" not in str(refusal)
    assert refusal.metadata["x-request-id"] == refusal.trailers["x-request-id"]


@pytest.fixture
def stuck(grpc_server, monkeypatch):
    """A store whose listing never answers; tells how each call ended."""
    endings: list[str] = []

    async def never(*_args, **_kwargs):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            endings.append("cancelled")
            raise

    monkeypatch.setattr(grpc_server.app.store, "list_routes", never)
    return endings


def test_the_deadline_of_the_caller_ends_the_work(grpc_server, grpc_stub, stuck):
    refusal = refused(grpc_stub.List, pb.ListRequest(), timeout=0.2)

    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert eventually(lambda: stuck == ["cancelled"])


@pytest.fixture
def metadata_seen(monkeypatch) -> list[tuple[str, str | bytes]]:
    """The metadata of the calls that the server began."""
    seen: list[tuple[str, str | bytes]] = []

    class Seen(call.Call):
        def __init__(self, context: call.Context) -> None:
            super().__init__(context)
            seen.extend(tuple(pair) for pair in context.invocation_metadata() or ())

    monkeypatch.setattr(call, "Call", Seen)
    return seen


@pytest.mark.node
def test_metadata_of_grpc_js_arrives_as_it_was_sent(grpc_server, metadata_seen):
    sent = [
        ("x-one-bin", bytes(range(256))),
        ("x-two-bin", b"\xff\xfe,\n"),
        ("x-two-bin", b"\0"),
        ("x-text", "a, b"),
    ]
    GrpcJs(grpc_server.address).call("pointsman.v1.RouteService/List", {}, metadata=sent)

    names = {name for name, _ in sent}
    assert [pair for pair in metadata_seen if pair[0] in names] == sent


def test_metrics_count_calls_by_method_and_code(grpc_server, grpc_stub, key):
    ok = sample(grpc_server, "grpc_server_handled_total", **rpc("Resolve", "OK"))
    absent = sample(grpc_server, "grpc_server_handled_total", **rpc("Resolve", "NotFound"))
    refusals = sample(grpc_server, "grpc_server_handled_total", **rpc("Resolve", "InvalidArgument"))

    refused(grpc_stub.Resolve, pb.ResolveRequest(key=key))
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    grpc_stub.Resolve(pb.ResolveRequest(key=key))
    refused(grpc_stub.Resolve, pb.ResolveRequest())

    # A call is counted when it is over, which may be just after its caller has the answer.
    assert eventually(
        lambda: (
            sample(grpc_server, "grpc_server_handled_total", **rpc("Resolve", "OK")) == ok + 1
            and sample(grpc_server, "grpc_server_handled_total", **rpc("Resolve", "NotFound")) == absent + 1
            and sample(grpc_server, "grpc_server_handled_total", **rpc("Resolve", "InvalidArgument")) == refusals + 1
        )
    )


async def settled(server) -> None:
    """Have everything counted that calls before this one left to be counted now and then."""
    server.app.grpc_server.counters.flush()


def test_metrics_tell_cache_layers_writes_and_queries(grpc_server, grpc_stub, key):
    names = {
        "missed locally": ("pointsman_cache_lookups_total", {"layer": "local", "outcome": "miss"}),
        "missed in redis": ("pointsman_cache_lookups_total", {"layer": "redis", "outcome": "miss"}),
        "absent locally": ("pointsman_cache_lookups_total", {"layer": "local", "outcome": "negative"}),
        "hit locally": ("pointsman_cache_lookups_total", {"layer": "local", "outcome": "hit"}),
        "loads": ("pointsman_store_queries_total", {"operation": "load"}),
        "creates": ("pointsman_write_requests_total", {"action": "create", "outcome": "ok"}),
        "refused": ("pointsman_write_requests_total", {"action": "create", "outcome": "refused"}),
        "active": ("pointsman_resolve_requests_total", {"outcome": "active"}),
        "absent": ("pointsman_resolve_requests_total", {"outcome": "absent"}),
    }
    grpc_server.run(settled(grpc_server))
    before = {what: sample(grpc_server, name, **labels) for what, (name, labels) in names.items()}

    refused(grpc_stub.Resolve, pb.ResolveRequest(key=key))
    refused(grpc_stub.Resolve, pb.ResolveRequest(key=key))
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    refused(grpc_stub.Create, pb.CreateRequest(key=key, url=URL))
    grpc_stub.Resolve(pb.ResolveRequest(key=key))

    def difference() -> dict[str, float]:
        after = {what: sample(grpc_server, name, **labels) for what, (name, labels) in names.items()}
        return {what: after[what] - before[what] for what in names}

    expected = {
        "missed locally": 1,
        "missed in redis": 1,
        "absent locally": 1,
        "hit locally": 1,
        "loads": 1,
        "creates": 1,
        "refused": 1,
        "active": 1,
        "absent": 2,
    }
    assert eventually(lambda: difference() == expected), difference()


def test_no_name_of_a_caller_becomes_a_label(grpc_server, grpc_stub, key):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL, labels={"canary-label": "x"}, reason="canary-reason"))
    grpc_stub.Resolve(pb.ResolveRequest(key=key))

    text = urllib.request.urlopen(f"{grpc_server.http}/metrics").read().decode()

    assert "grpc_server_handled_total" in text
    for secret in (key.tenant, "canary", "payments.internal"):
        assert secret not in text
