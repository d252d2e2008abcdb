"""Limits of rates and of concurrent calls: which calls are refused, and how, and which are not."""

import asyncio
import threading
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.support import http2
from tests.support.engines import fresh_database, fresh_redis
from tests.support.refusals import Refusal, refused
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
STREAMS = 2500
# By the minute and more: nothing comes back while a test runs.
BURST = 5
RATES = {
    "rate_identity_reads": 0.4,
    "rate_identity_writes": 0.1,
    "rate_tenant_reads": BURST / 200,
    "rate_tenant_writes": BURST / 200,
    "rate_burst_seconds": 200,
}


def limited_server(request: pytest.FixtureRequest, engines, template_database: str, **more: object):
    """A server with a database and a Redis of its own."""
    with fresh_database(template_database) as database_url:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        chosen = settings(transport=request.param, database_url=database_url, redis_url=redis_url, **more)
        with serving(chosen) as server:
            yield server


@pytest.fixture(params=["grpcio", "envoy"])
def rated(request, engines, template_database) -> Iterator[RunningServer]:
    """A server with low rates: 80 reads and 20 writes of anybody at once, 5 of each of a tenant."""
    yield from limited_server(request, engines, template_database, **RATES)


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def grpc_server(request, engines, template_database) -> Iterator[RunningServer]:
    """A server without rates, and with many streams."""
    yield from limited_server(request, engines, template_database, max_streams=STREAMS, deadline_seconds=600)


def channel_to(server: RunningServer) -> grpc.Channel:
    # Without retries, so that a refusal is seen.
    return grpc.insecure_channel(server.address, [("grpc.enable_retries", 0)])


def key(tenant: str, version: str = "v1") -> RouteKey:
    return RouteKey(tenant=tenant, service="payments", env="prod", version=version)


def create(stub: RouteServiceStub, tenant: str, number: int) -> None:
    stub.Create(pb.CreateRequest(key=key(tenant, f"v{number}"), url=URL))


def count(server: RunningServer, limit: str) -> float:
    value = server.app.metrics.registry.get_sample_value("pointsman_rate_limited_total", {"limit": limit})
    return value or 0.0


def check(refusal: Refusal, server: RunningServer, reason: str, limit: str) -> None:
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, reason), refusal
    assert refusal.metadata["limit"] == limit
    assert refusal.retry_seconds
    pushback = refusal.trailers.get("grpc-retry-pushback-ms")
    assert pushback is not None
    assert refusal.retry_seconds * 1000 <= int(pushback) <= refusal.retry_seconds * 1500 + 1


def test_writes_of_a_tenant(rated):
    with channel_to(rated) as channel:
        stub = RouteServiceStub(channel)
        for number in range(BURST):
            create(stub, "team-a", number)
        refusal = refused(create, stub, "team-a", 99)

        check(refusal, rated, "RATE_LIMITED", "tenant.writes")
        assert refusal.retry_seconds == pytest.approx(40, abs=15)
        create(stub, "team-b", 0)
        stub.Get(pb.GetRequest(key=key("team-a", "v0")))
    assert count(rated, "tenant.writes") == 1


def test_each_mutation_of_a_commit_is_a_write_of_its_tenant(rated):
    def commit(*tenants: str) -> pb.CommitResponse:
        keys = [key(tenant, f"c{number}") for number, tenant in enumerate(tenants)]
        mutations = [pb.Mutation(create=pb.CreateRequest(key=each, url="https://a.internal")) for each in keys]
        return stub.Commit(pb.CommitRequest(mutations=mutations, dry_run=True))

    with channel_to(rated) as channel:
        stub = RouteServiceStub(channel)
        commit(*["team-c"] * (BURST - 1), "team-d")
        check(refused(commit, "team-d", "team-c", "team-c"), rated, "RATE_LIMITED", "tenant.writes")
        # What was refused has cost nobody anything.
        commit("team-c", "team-d")
        check(refused(commit, "team-c"), rated, "RATE_LIMITED", "tenant.writes")


def test_reads_of_a_tenant_and_of_all(rated):
    with channel_to(rated) as channel:
        stub = RouteServiceStub(channel)
        stub.BatchResolve(pb.BatchResolveRequest(keys=[key("team-a")] * BURST))
        check(refused(stub.Resolve, pb.ResolveRequest(key=key("team-a"))), rated, "RATE_LIMITED", "tenant.reads")
        for _ in range(2 * BURST):
            stub.List(pb.ListRequest())


def test_reads_of_who_calls(rated):
    with channel_to(rated) as channel:
        stub = RouteServiceStub(channel)
        # Of everybody's: no tenant is over its own.
        for tenant in range(16):
            stub.BatchResolve(pb.BatchResolveRequest(keys=[key(f"team-{tenant}")] * BURST))
        refusal = refused(stub.Resolve, pb.ResolveRequest(key=key("another")))

        check(refusal, rated, "RATE_LIMITED", "identity.reads")
        # Before validation: not even this is looked at.
        assert refused(stub.Resolve, pb.ResolveRequest()).reason == "RATE_LIMITED"
        create(stub, "team-a", 0)
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(100):
            health.Check(health_pb2.HealthCheckRequest(service="liveness"))


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_shared_writes_count_for_all_servers_together_and_alone_without_redis(engines, template_database, transport):
    with fresh_database(template_database) as database_url:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        common = {"transport": transport, "database_url": database_url, "rate_shared_writes": True, **RATES}
        chosen = settings(redis_url=redis_url, **common)
        alone = settings(redis_url="redis://127.0.0.1:1/0", **common)
        with (
            serving(chosen) as one,
            serving(chosen) as two,
            serving(alone) as three,
            channel_to(one) as first,
            channel_to(two) as second,
            channel_to(three) as third,
        ):
            stubs = [RouteServiceStub(first), RouteServiceStub(second)]
            for number in range(BURST):
                create(stubs[number % 2], "team-a", number)
            for stub, server in zip(stubs, (one, two), strict=True):
                check(refused(create, stub, "team-a", 99), server, "RATE_LIMITED", "tenant.writes")

            stub = RouteServiceStub(third)
            for number in range(BURST):
                create(stub, "team-a", 10 + number)
            check(refused(create, stub, "team-a", 99), three, "RATE_LIMITED", "tenant.writes")


@pytest.fixture
def stuck(grpc_server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose listing never answers."""

    async def never(*_args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(grpc_server.app.store, "list_routes", never)


def test_calls_beyond_the_limit_are_overload_and_health_is_not(grpc_server, stuck, monkeypatch):
    monkeypatch.setattr(grpc_server.app.grpc_server.admission, "_most", 20)
    with channel_to(grpc_server) as channel:
        stub = RouteServiceStub(channel)
        held = [stub.List.future(pb.ListRequest(tenant="x"), timeout=600) for _ in range(20)]
        assert eventually(lambda: grpc_server.app.grpc_server.admission._open == 20)

        check(refused(stub.Resolve, pb.ResolveRequest(key=key("a"))), grpc_server, "OVERLOADED", "concurrent_calls")
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="liveness"))

        for call in held:
            call.cancel()
        assert eventually(lambda: grpc_server.app.grpc_server.admission._open == 0)
        assert refused(stub.Resolve, pb.ResolveRequest(key=key("a"))).code is grpc.StatusCode.NOT_FOUND


def test_large_calls_beyond_the_limit_are_overload_and_small_ones_are_not(grpc_server, stuck):
    with channel_to(grpc_server) as channel:
        stub = RouteServiceStub(channel)
        pages = [stub.List.future(pb.ListRequest(tenant="x", page_size=1000), timeout=600) for _ in range(10)]
        assert eventually(lambda: grpc_server.app.grpc_server.admission._open == 10)

        batch = pb.BatchResolveRequest(keys=[key("a")])
        check(refused(stub.BatchResolve, batch), grpc_server, "OVERLOADED", "bulk_routes")
        assert refused(stub.Resolve, pb.ResolveRequest(key=key("a"))).code is grpc.StatusCode.NOT_FOUND

        for call in pages:
            call.cancel()
        assert eventually(lambda: grpc_server.app.grpc_server.admission._open == 0)
        assert len(stub.BatchResolve(batch).results) == 1


def test_thousands_of_calls_that_wait_for_python_are_all_answered_by_us(grpc_server):
    """By default grpcio cancels calls, without a reason, once a thousand wait for a handler."""
    busy, go_on = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        go_on.wait(60)

    body = pb.ResolveRequest(key=key("a")).SerializeToString()
    with http2.connected(grpc_server.address) as crowd:
        assert crowd.until(lambda: crowd.settings and crowd.settings_acked)
        grpc_server.loop.call_soon_threadsafe(block)
        assert busy.wait(60)
        try:
            streams = [crowd.call(body) for _ in range(STREAMS)]
            # Frames are read in order: after the pong the transport has all the calls.
            crowd.send(http2.ping())
            assert crowd.until(lambda: crowd.pongs)
        finally:
            go_on.set()
        assert crowd.until(lambda: len(crowd.headers) + len(crowd.resets) >= STREAMS, patience=60)

        assert crowd.until(lambda: all(crowd.ended(stream) for stream in streams), patience=60)

    assert {crowd.status(stream) for stream in streams} == {grpc.StatusCode.NOT_FOUND.value[0]}
