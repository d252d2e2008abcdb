"""A stop fails no admitted call, and admits no more."""

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server.domain.errors import ShuttingDown
from pointsman_server.rpc.interceptors.admission import STREAM_PAUSE_SECONDS, Admission
from tests.support import http2
from tests.support.engines import fresh_redis
from tests.support.refusals import read, refused
from tests.support.servers import serving, settings
from tests.support.waiting import eventually

CALLS = 20
ROUNDS = 5
STREAMS = 20
URL = "https://payments.internal:8443"
KEY = RouteKey(tenant="team-a", service="payments", env="prod", version="v1")


class Held:
    """A store whose listing waits until it is let go; counts who waits."""

    def __init__(self) -> None:
        self.waiting = 0
        self._go = threading.Event()

    async def __call__(self, *_: object) -> list[object]:
        self.waiting += 1
        while not self._go.is_set():  # noqa: ASYNC110 - set from another thread
            await asyncio.sleep(0.002)
        return []

    def let_go(self) -> None:
        self._go.set()


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_every_call_that_was_let_in_is_answered(engines, database_url, transport):
    redis_url = fresh_redis(engines.urls["REDIS_URL"])
    chosen = settings(transport=transport, database_url=database_url, redis_url=redis_url, drain_seconds=60)
    for _ in range(ROUNDS):
        held = Held()
        with concurrent.futures.ThreadPoolExecutor(CALLS + 1) as pool:
            with serving(chosen) as server:
                server.app.store.list_routes = held
                # Without retries: each failure counts.
                options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
                channel = grpc.insecure_channel(server.address, options)
                stub = RouteServiceStub(channel)
                calls = [pool.submit(stub.List, pb.ListRequest(), timeout=60) for _ in range(CALLS)]
                assert eventually(lambda held=held: held.waiting == CALLS)
                pool.submit(lambda held=held: threading.Timer(0.05, held.let_go).start())
            failures = [call.exception() for call in calls if call.exception()]
            channel.close()
        assert failures == []


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_streams_end_one_after_another_and_each_says_why(engines, database_url, transport):
    redis_url = fresh_redis(engines.urls["REDIS_URL"])
    engine_urls = {"database_url": database_url, "redis_url": redis_url}
    chosen = settings(transport=transport, drain_seconds=60, **engine_urls)
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        server = stack.enter_context(serving(chosen))
        channel = stack.enter_context(grpc.insecure_channel(server.address, [("grpc.enable_retries", 0)]))
        stub = health_pb2_grpc.HealthStub(channel)
        streams = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=120) for _ in range(STREAMS)]
        for stream in streams:
            next(stream)
        ends = [pool.submit(end_of, stream) for stream in streams]
        begun = time.monotonic()
        server.run(server.app.grpc_server.drain())

        times, codes, details = zip(*[end.result(60) for end in ends], strict=True)

    assert set(codes) == {grpc.StatusCode.UNAVAILABLE}
    assert set(details) == {"SHUTTING_DOWN"}
    # A busy machine may end them later, never sooner.
    earliest = [begun + number * STREAM_PAUSE_SECONDS for number in range(STREAMS)]
    assert all(end > soonest for end, soonest in zip(sorted(times), earliest, strict=True))


def end_of(stream: grpc.Call) -> tuple[float, grpc.StatusCode, str]:
    """Wait for the end of a stream; return when it was, and the code and the reason."""
    try:
        for _ in stream:
            pass
    except grpc.RpcError as error:
        return time.monotonic(), error.code(), read(error).reason
    raise AssertionError("the stream ended without a reason")


def test_an_answer_that_its_client_has_yet_to_read_arrives_whole_on_envoy(engines, database_url):
    redis_url = fresh_redis(engines.urls["REDIS_URL"])
    engine_urls = {"database_url": database_url, "redis_url": redis_url}
    chosen = settings(transport="envoy", drain_seconds=60, unread_seconds=60, **engine_urls)
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(1) as pool:
        server = stack.enter_context(serving(chosen))
        with grpc.insecure_channel(server.address) as channel:
            RouteServiceStub(channel).Create(pb.CreateRequest(key=KEY, url=URL))
        slow = stack.enter_context(http2.connected(server.address, {http2.INITIAL_WINDOW: 0}))
        call = slow.call(pb.ResolveRequest(key=KEY).SerializeToString())
        # The headers are there, so the whole answer waits in Envoy.
        assert slow.until(lambda: call in slow.headers)
        stopped = pool.submit(server.run, server.app.grpc_server.drain())
        assert eventually(lambda: not listens(server.address))
        assert not stopped.done()

        slow.send(http2.open_window(call, http2.FIRST_WINDOW))

        assert slow.until(lambda: slow.ended(call))
        assert (slow.status(call), slow.data[call] > 0) == (0, True)
        stopped.result(60)


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_a_new_call_is_refused_and_health_still_answers(engines, database_url, transport):
    redis_url = fresh_redis(engines.urls["REDIS_URL"])
    chosen = settings(transport=transport, database_url=database_url, redis_url=redis_url)
    with serving(chosen) as server, grpc.insecure_channel(server.address) as channel:

        async def drain() -> None:
            await server.app.health.drain()
            await server.app.grpc_server.admission.close(0)

        server.run(drain())

        refusal = refused(RouteServiceStub(channel).Resolve, pb.ResolveRequest(key=KEY))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert refusal.retry_seconds
        status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="readiness")).status
        assert status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_the_admission_waits_for_the_last_call() -> None:
    admission = Admission()
    admission.enter()
    closing = asyncio.create_task(admission.close(60))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        admission.check()
    assert not closing.done()

    admission.leave()

    await closing


async def test_the_admission_waits_no_longer_than_told() -> None:
    admission = Admission()
    admission.enter()

    await admission.close(0.001)

    assert admission.closed
