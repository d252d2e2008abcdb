"""What abusers get, on both transports: a status or a closed connection; and other callers are answered meanwhile.

Every abuse is bounded in number. Where the transports differ, both are written down here.
"""

import asyncio
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.support import http2
from tests.support.engines import fresh_database, fresh_redis
from tests.support.memory import MEGABYTE, growing
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

STREAMS = 2000
DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 4, 8
ENHANCE_YOUR_CALM = 11
KNOWN = RouteKey(tenant="known", service="payments", env="prod", version="v1")
LONG = RouteKey(tenant="known", service="long", env="prod", version="v1")
URL = "https://payments.internal:8443"
RESOLVE = pb.ResolveRequest(key=KNOWN).SerializeToString()
BATCH = "/pointsman.v1.RouteService/BatchResolve"


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def grpc_server(request: pytest.FixtureRequest, engines, template_database: str) -> Iterator[RunningServer]:
    """A server that knows two routes."""
    with fresh_database(template_database) as database_url:
        chosen = settings(
            transport=request.param,
            database_url=database_url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            max_streams=STREAMS,
            unread_seconds=3,
            deadline_seconds=2,
        )
        with serving(chosen) as server, grpc.insecure_channel(server.address) as channel:
            RouteServiceStub(channel).Create(pb.CreateRequest(key=KNOWN, url=URL))
            RouteServiceStub(channel).Create(pb.CreateRequest(key=LONG, url=f"{URL}/{'x' * 1500}"))
            yield server


@pytest.fixture
def on_envoy(grpc_server: RunningServer) -> bool:
    return grpc_server.app.grpc_server.choice.transport == "envoy"


@pytest.fixture
def abuser(grpc_server: RunningServer) -> Iterator[http2.Connection]:
    with connected(grpc_server) as connection:
        yield connection


@contextmanager
def connected(server: RunningServer, **options: int) -> Iterator[http2.Connection]:
    """Connect, and let the server know all that is to be known of settings."""
    initial_window = {http2.INITIAL_WINDOW: options["window"]} if options else {}
    with http2.connected(server.address, initial_window) as connection:
        assert connection.until(lambda: connection.settings and connection.settings_acked)
        yield connection


@pytest.fixture(autouse=True)
def bystander(grpc_server: RunningServer) -> Iterator[None]:
    """Another client, which calls all the while and afterwards, and is answered every time."""
    stop = threading.Event()
    problems: list[grpc.RpcError] = []
    begun = threading.Event()

    def call() -> None:
        with grpc.insecure_channel(grpc_server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = RouteServiceStub(channel)
            last = False
            while not last:
                last = stop.is_set()
                try:
                    assert stub.Resolve(pb.ResolveRequest(key=KNOWN), timeout=http2.PATIENCE_SECONDS).route.url == URL
                except grpc.RpcError as problem:
                    problems.append(problem)
                begun.set()
                stop.wait(0.01)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        assert begun.wait(http2.PATIENCE_SECONDS)
        yield
    finally:
        stop.set()
        thread.join()
    assert problems == []


def calmed(abuser: http2.Connection) -> bool:
    """Say whether the server closed the connection, and said why."""
    assert abuser.until(lambda: abuser.gone)
    return abuser.goaway is not None and abuser.goaway.error_code == ENHANCE_YOUR_CALM


def answered(abuser: http2.Connection, stream: int) -> int | None:
    assert abuser.until(lambda: abuser.ended(stream))
    return abuser.status(stream)


@pytest.mark.parametrize("whole", [False, True], ids=["headers", "whole calls"])
def test_rapid_reset(grpc_server, abuser, on_envoy, whole):
    """CVE-2023-44487."""
    for _ in range(60):
        burst = b""
        for _ in range(50):
            stream = abuser.stream()
            burst += abuser.begin(stream)
            burst += http2.data(stream, http2.message(RESOLVE), ended=True) if whole else b""
            burst += http2.reset(stream)
        if not abuser.send(burst):
            break
        abuser.until(lambda: False, patience=0.001)

    if on_envoy:
        assert abuser.until(lambda: abuser.gone)
    else:
        # grpcio holds out, and refuses more until Python has dealt with what was cancelled.
        assert eventually(lambda: answered(abuser, abuser.call(RESOLVE)) == 0)
    assert eventually(lambda: grpc_server.app.grpc_server.admission._open <= 1)


def test_cancelled_calls_keep_their_place_until_python_has_dealt_with_them(engines, template_database):
    """So no connection can make others wait behind more calls than it may have open."""
    open_at_once = 100
    busy, go_on = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        go_on.wait(http2.PATIENCE_SECONDS)

    with fresh_database(template_database) as database_url:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        chosen = settings(transport="grpcio", database_url=database_url, redis_url=redis_url, max_streams=open_at_once)
        with serving(chosen) as server, connected(server) as abuser:
            server.loop.call_soon_threadsafe(block)
            assert busy.wait(http2.PATIENCE_SECONDS)
            try:
                for _ in range(5 * open_at_once):
                    stream = abuser.call(RESOLVE)
                    abuser.send(http2.reset(stream))
                # Frames are read in order: after the pong the transport has dealt with all of them.
                abuser.send(http2.ping())
                assert abuser.until(lambda: abuser.pongs)
                assert len(abuser.resets) >= 3 * open_at_once
            finally:
                go_on.set()
            with grpc.insecure_channel(server.address) as channel:
                missing = RouteServiceStub(channel).BatchResolve(pb.BatchResolveRequest(keys=[KNOWN]))
            assert len(missing.results) == 1


def test_ping_flood(abuser, on_envoy):
    for _ in range(200):
        if not abuser.send(http2.ping() * 100):
            break
        abuser.until(lambda: abuser.gone, patience=0.001)

    if on_envoy:
        # Envoy answers every ping that a client makes room for.
        assert abuser.until(lambda: abuser.pongs == 20_000)
    else:
        assert calmed(abuser)
        assert abuser.goaway.additional_data == b"too_many_pings"


def test_a_ping_now_and_then_is_welcome(abuser):
    abuser.send(http2.ping())

    assert abuser.until(lambda: abuser.pongs == 1)
    assert answered(abuser, abuser.call(RESOLVE)) == 0


def test_settings_flood(abuser):
    flood = http2.frame(http2.SettingsFrame(0, settings={http2.INITIAL_WINDOW: http2.FIRST_WINDOW}))
    for _ in range(100):
        abuser.send(flood * 100)
        abuser.until(lambda: False, patience=0.001)

    # Both acknowledge all.
    assert abuser.until(lambda: abuser.settings_acked == 10_001)
    assert answered(abuser, abuser.call(RESOLVE)) == 0


def test_a_reader_with_a_window_of_zero_gets_its_answers_when_it_opens_it(grpc_server):
    with connected(grpc_server, window=0) as abuser:
        streams = [abuser.call(RESOLVE) for _ in range(300)]
        assert abuser.until(lambda: all(stream in abuser.headers for stream in streams))
        assert abuser.data == {}
        for stream in streams:
            abuser.send(http2.open_window(stream, http2.FIRST_WINDOW))

        assert abuser.until(lambda: all(abuser.status(stream) == 0 for stream in streams))


def test_who_does_not_read_large_answers_is_disconnected(grpc_server):
    # Megabytes each: more than a transport buffers.
    request = http2.message(pb.BatchResolveRequest(keys=[LONG] * 1000).SerializeToString())
    with connected(grpc_server, window=0) as abuser:
        for _ in range(10):
            stream = abuser.stream()
            abuser.send(abuser.begin(stream, BATCH))
            abuser.upload(stream, request)
        assert abuser.until(lambda: abuser.gone)


def test_small_answers_that_a_client_does_not_read_are_dropped_on_envoy(grpc_server, on_envoy):
    with connected(grpc_server, window=0) as abuser:
        streams = [abuser.call(RESOLVE) for _ in range(100)]
        if on_envoy:
            assert abuser.until(lambda: all(stream in abuser.resets for stream in streams))
        else:
            # grpcio keeps them, some hundred bytes each.
            assert abuser.until(lambda: all(stream in abuser.headers for stream in streams))
            assert abuser.resets == {}


def test_a_client_that_never_reads_from_its_socket(grpc_server):
    with connected(grpc_server) as abuser:
        for _ in range(1000):
            abuser.call(RESOLVE)


def bomb(size: int) -> bytes:
    """Compress ``size`` zeros without ever having them."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [squeeze.compress(b"\0" * MEGABYTE) for _ in range(size // MEGABYTE)]
    return b"".join([*pieces, squeeze.flush()])


def test_a_compressed_bomb(grpc_server, abuser):
    request = http2.message(bomb(512 * MEGABYTE), compressed=True)
    with growing() as growth:
        stream = abuser.stream()
        abuser.send(abuser.begin(stream, grpc_encoding="gzip"))
        abuser.upload(stream, request)

        assert answered(abuser, stream) == RESOURCE_EXHAUSTED
        assert growth() < 64 * MEGABYTE


def test_an_oversized_body(abuser):
    request = http2.message(b"\0" * (32 * MEGABYTE))
    with growing() as growth:
        stream = abuser.stream()
        abuser.send(abuser.begin(stream))
        abuser.upload(stream, request)

        assert answered(abuser, stream) == RESOURCE_EXHAUSTED
        # It is refused by its prefix.
        assert growth() < 16 * MEGABYTE


def test_metadata_over_the_cap(abuser):
    stream = abuser.stream()
    abuser.send(abuser.begin(stream, x_padding="~" * 8100, x_more="~" * 8100, ended=True))

    assert answered(abuser, stream) == RESOURCE_EXHAUSTED


def test_many_small_headers_over_the_cap(abuser):
    stream = abuser.stream()
    abuser.send(abuser.begin(stream, ended=True, **{f"x_{number}": "" for number in range(500)}))

    assert answered(abuser, stream) == RESOURCE_EXHAUSTED


def test_metadata_without_end(abuser, on_envoy):
    """CVE-2024-27316: CONTINUATION frames, and no end of the headers."""
    stream = abuser.stream()
    first = http2.HeadersFrame(stream, abuser.fields(http2.CALL))
    abuser.send(http2.frame(first))
    for number in range(2000):
        more = abuser.fields({f"x-{number}": "y" * 1000})
        if not abuser.send(http2.frame(http2.ContinuationFrame(stream, more))):
            break
        if abuser.until(lambda: abuser.gone or abuser.ended(stream), patience=0.001):
            break

    if on_envoy:
        # Beyond four times the cap Envoy resets the call before it knows that it is one of gRPC.
        assert abuser.until(lambda: stream in abuser.resets)
    else:
        assert answered(abuser, stream) == RESOURCE_EXHAUSTED


def test_streams_beyond_the_limit_are_refused_one_by_one(grpc_server, abuser):
    """Calls that are begun and never sent: each takes a stream, and no time of ours."""
    streams = [abuser.stream() for _ in range(STREAMS + 100)]
    for stream in streams:
        abuser.send(abuser.begin(stream))

    assert abuser.until(lambda: abuser.gone or len(abuser.resets) >= 100)
    assert all(stream in abuser.resets for stream in streams[STREAMS:]) or abuser.gone
    assert not any(stream in abuser.resets for stream in streams[:STREAMS])
    assert eventually(lambda: grpc_server.app.grpc_server.admission._open <= 1)


def test_a_call_without_a_deadline_gets_that_of_the_server(grpc_server, abuser, monkeypatch):
    async def never(*_args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(grpc_server.app.store, "list_routes", never)
    stream = abuser.call(pb.ListRequest(tenant="x").SerializeToString(), "/pointsman.v1.RouteService/List")

    assert answered(abuser, stream) == DEADLINE_EXCEEDED


def test_nonsense_instead_of_http2(grpc_server):
    with http2.connected(grpc_server.address) as abuser:
        abuser.send(b"GET / HTTP/1.1\r\n\r\n" * 100)

        assert abuser.until(lambda: abuser.gone)
