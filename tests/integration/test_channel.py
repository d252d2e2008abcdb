"""Channels over near-caches of real servers, to real backends: they follow, fail clearly, drain, and end."""

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

import pointsman
import pointsman.aio
from pointsman import AsyncClient, Client, NearCache
from pointsman.channels.channel import RouteChannel
from pointsman_server.events.watch import snapshots
from tests.support.certificates import Authority
from tests.support.channel_load import Load, async_load, load
from tests.support.echo_backends import EchoBackend, EchoStub, threads_besides_servers
from tests.support.engines import fresh_database, fresh_redis
from tests.support.servers import RunningServer, serving, settings
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import becomes, eventually
from tests.support.xds_clients.backends import backends

FAMILY = "team-a/payments/prod"
V1, V2 = f"{FAMILY}/v1", f"{FAMILY}/v2"
CUT_OVERS = 50
SECONDS = 20.0


@pytest.fixture(scope="module")
def server(engines: Any, template_database: str) -> Iterator[RunningServer]:
    """One for all tests: each leaves it without routes, and begins with what there is: no snapshot of another test."""
    with pytest.MonkeyPatch.context() as patch, fresh_database(template_database) as database_url:
        patch.setattr(snapshots, "KEPT_SECONDS", 0.0)
        chosen = settings(database_url=database_url, redis_url=fresh_redis(engines.urls["REDIS_URL"]))
        with serving(chosen) as running:
            yield running


@pytest.fixture(autouse=True)
def environment(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POINTSMAN_SERVER", server.address)
    yield
    with Client(server.address) as client:
        for traffic in client.list_traffic():
            client.delete_traffic(traffic.key)
        for route in client.list():
            client.delete(route.key)


@pytest.fixture
def writer(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


@pytest.fixture
def one() -> Iterator[EchoBackend]:
    with EchoBackend("one") as backend:
        yield backend


@pytest.fixture
def two() -> Iterator[EchoBackend]:
    with EchoBackend("two") as backend:
        yield backend


def answer(channel: grpc.Channel, request: bytes = b"a", **arguments: Any) -> str:
    """Return the name of the backend that answered, or the code of the failure."""
    try:
        response: bytes = EchoStub(channel).unary_unary(request, timeout=SECONDS, **arguments)
    except grpc.RpcError as error:
        failed: Any = error
        return str(failed.code().name)
    return response.decode().split()[0]


# Cut-overs


@contextmanager
def sync_calls(key: str) -> Iterator[Load]:
    with pointsman.channel(key) as channel, load(channel) as made:
        yield made


@contextmanager
def async_calls(key: str) -> Iterator[Load]:
    with async_load(lambda: pointsman.aio.channel(key)) as made:
        yield made


@pytest.mark.parametrize("calls", [sync_calls, async_calls], ids=["threads", "asyncio"])
@pytest.mark.parametrize("key", [V1, FAMILY], ids=["route", "family"])
def test_cut_overs_under_load_fail_no_call(
    writer: Client, calls: Callable[[str], Any], key: str, record_property: Callable[[str, object], None]
) -> None:
    with backends() as servers:
        urls = {name: f"http://127.0.0.1:{servers.open(name)}" for name in ("one", "two")}
        writer.create(V1, urls["one"])
        writer.create(V2, urls["two"], active=False)
        with calls(key) as made:
            assert made.reaches("one")
            for number in range(CUT_OVERS):
                name = ("two", "one")[number % 2]
                if key == FAMILY:
                    writer.activate(V2 if name == "two" else V1, exclusive=True)
                else:
                    writer.update(V1, url=urls[name])
                assert made.reaches(name), made.failures
    assert made.failures == []
    record_property("calls_a_second", made.rate)


def test_what_is_not_live_says_so_and_is_followed(writer: Client, one: EchoBackend) -> None:
    with pointsman.channel(V1) as channel:
        assert answer(channel) == "NOT_FOUND"
        with pytest.raises(grpc.RpcError) as unknown:
            EchoStub(channel).unary_unary(b"a")
        assert unknown.value.details() == f"pointsman {V1}: no route {V1}"
        writer.create(V1, one.url)
        assert eventually(lambda: answer(channel) == "one")
        for _ in range(3):
            writer.deactivate(V1)
            assert eventually(lambda: answer(channel) == "NOT_FOUND")
            writer.activate(V1)
            assert eventually(lambda: answer(channel) == "one")
        writer.update(V1, url=f"{one.url}/path")
        assert eventually(lambda: answer(channel) == "FAILED_PRECONDITION")


def test_calls_in_flight_end_where_they_began(writer: Client, one: EchoBackend, two: EchoBackend) -> None:
    """Unary and streaming ones, over a cut-over and over an inactivation."""
    writer.create(V1, one.url)
    with pointsman.channel(V1) as channel:
        assert isinstance(channel, RouteChannel)
        stub = EchoStub(channel)
        unary = stub.unary_unary.future(b"hold")
        stream = stub.unary_stream(b"hold")
        assert next(stream) == b"one first"
        requests = Requests()
        both = stub.stream_stream(iter(requests))
        requests.add(b"a")
        assert next(both) == b"one a"
        writer.update(V1, url=two.url)
        assert eventually(lambda: answer(channel) == "two")
        writer.deactivate(V1)
        assert eventually(lambda: answer(channel) == "NOT_FOUND")
        # The second left last, and is closed: only its calls have kept the first.
        assert eventually(lambda: [*channel._backends._by_url] == [one.url])
        requests.add(b"b")
        assert next(both) == b"one b"
        one.released.set()
        requests.end()
        assert (unary.result(SECONDS), list(stream), list(both)) == (b"one hold", [b"one hold"], [])
        assert eventually(lambda: channel._backends._by_url == {})


class Requests:
    """Requests of a stream, one after another."""

    def __init__(self) -> None:
        self._ready = threading.Semaphore(0)
        self._requests: list[bytes | None] = []

    def add(self, request: bytes | None) -> None:
        self._requests.append(request)
        self._ready.release()

    def end(self) -> None:
        self.add(None)

    def __iter__(self) -> Iterator[bytes]:
        while self._ready.acquire(timeout=SECONDS):
            request = self._requests.pop(0)
            if request is None:
                return
            yield request


def test_flapping_leaks_nothing(writer: Client, one: EchoBackend, two: EchoBackend) -> None:
    writer.create(V1, one.url)
    with pointsman.channel(V1) as channel:
        assert isinstance(channel, RouteChannel)
        assert answer(channel) == "one"
        before = set(threading.enumerate())
        for number in range(12):
            backend = (two, one)[number % 2]
            writer.update(V1, url=backend.url)
            assert eventually(lambda name=backend.name: answer(channel) == name)
        assert eventually(lambda: [*channel._backends._by_url] == [one.url])
        assert eventually(lambda: threads_besides_servers(before) == set())
        gc.collect()
        kind = type(channel._backends.open(one.url).channel)
        assert sum(type(each) is kind for each in gc.get_objects()) < 20


# Traffic


def test_traffic_divides_the_calls(writer: Client, one: EchoBackend, two: EchoBackend) -> None:
    writer.create(V1, one.url)
    writer.create(V2, two.url)
    writer.set_traffic(FAMILY, {"v1": 7_500, "v2": 2_500})
    cached = writer.cached(tenants=["team-a"])
    by_user = pointsman.channel(FAMILY, cache=cached, sticky_key=lambda metadata: str(dict(metadata).get("user", "")))
    with cached as cache, by_user as channel:
        assert cache.wait_ready(SECONDS)
        counts = Counter(answer(channel) for _ in range(400))
        assert 220 < counts["one"] < 360, counts
        assert counts.total() == counts["one"] + counts["two"]
        for number in range(40):
            user = f"user-{number}"
            expected = {"v1": "one", "v2": "two"}[cache.select(FAMILY, user).version]
            assert {answer(channel, metadata=(("user", user),)) for _ in range(3)} == {expected}
        writer.set_traffic(FAMILY, {"v1": 0, "v2": 10_000}, fallbacks=["v1"])
        assert eventually(lambda: [cache.select(FAMILY).version for _ in range(20)] == ["v2"] * 20)
        assert {answer(channel) for _ in range(20)} == {"two"}
        assert isinstance(channel, RouteChannel)
        assert eventually(lambda: [*channel._backends._by_url] == [two.url])
        writer.deactivate(V2)
        assert eventually(lambda: answer(channel) == "one")
        writer.deactivate(V1)
        assert eventually(lambda: answer(channel) == "NOT_FOUND")


def test_several_versions_without_traffic_are_ambiguous(writer: Client, one: EchoBackend, two: EchoBackend) -> None:
    writer.create(V1, one.url)
    writer.create(V2, two.url)
    with pointsman.channel(FAMILY) as channel:
        assert answer(channel) == "FAILED_PRECONDITION"
        writer.deactivate(V1)
        assert eventually(lambda: answer(channel) == "two")


# TLS


def test_certificates_must_be_of_the_host_of_the_url(writer: Client, one: EchoBackend) -> None:
    authority = Authority()
    pair = authority.server()
    trusted = grpc.ssl_channel_credentials(authority.pem)
    credentials = grpc.ssl_server_credentials([(pair.key, pair.cert)])
    with ExitStack() as stack:
        secure = stack.enter_context(EchoBackend("secure", credentials))
        writer.create(V1, f"https://localhost:{secure.port}")
        channel = stack.enter_context(pointsman.channel(V1, credentials=trusted))
        assert answer(channel) == "secure"
        assert answer(stack.enter_context(pointsman.channel(V1))) == "UNAVAILABLE", "an authority that nobody trusts"
        writer.update(V1, url=f"https://127.0.0.1:{secure.port}")
        assert eventually(lambda: answer(channel) == "secure")
        # The same certificate, which does not name this host.
        other = stack.enter_context(EchoBackend("other", credentials, host="127.0.0.2"))
        writer.update(V1, url=f"https://127.0.0.2:{other.port}")
        assert eventually(lambda: answer(channel) == "UNAVAILABLE")
        assert other.count == 0
        writer.update(V1, url=one.url)
        assert eventually(lambda: answer(channel) == "one")
        careful = stack.enter_context(pointsman.channel(V1, credentials=trusted, plaintext=False))
        assert answer(careful) == "FAILED_PRECONDITION"


# Without a server


@pytest.fixture
def cable(server: RunningServer) -> Iterator[TcpProxy]:
    """What the near-cache of a test is connected to the server by: without it the server is away."""
    with TcpProxy(server.address) as proxy:
        yield proxy


def pull(cable: TcpProxy) -> None:
    cable.refuse = True
    cable.cut()


@pytest.mark.parametrize(
    ("on_stale", "expected"), [("serve", "one"), ("raise", "UNAVAILABLE"), ("call", "UNAVAILABLE")]
)
def test_without_a_server_the_near_cache_decides(
    writer: Client, cable: TcpProxy, one: EchoBackend, on_stale: Any, expected: str
) -> None:
    writer.create(V1, one.url)
    with ExitStack() as stack:
        client = stack.enter_context(Client(cable.address, timeout=0.5))
        cache = stack.enter_context(client.cached(max_stale=1.0, on_stale=on_stale))
        channel = stack.enter_context(pointsman.channel(V1, cache=cache))
        assert cache.wait_ready(SECONDS)
        assert answer(channel) == "one"
        pull(cable)
        assert eventually(lambda: not cache.healthy)
        assert answer(channel) == expected
        cable.refuse = False
        assert eventually(lambda: cache.healthy)
        assert answer(channel) == "one"


def test_one_with_a_near_cache_of_its_own_serves_what_it_last_knew(
    writer: Client, cable: TcpProxy, one: EchoBackend
) -> None:
    writer.create(V1, one.url)
    with Client(cable.address, timeout=0.5) as client, pointsman.channel(V1, client=client) as channel:
        assert answer(channel) == "one"
        [cache] = client._session.near_caches
        assert isinstance(cache, NearCache)
        assert cache.wait_ready(SECONDS)
        pull(cable)
        assert eventually(lambda: not cache.live)
        cache._table.suspend()  # as after ``max_stale``
        assert {answer(channel) for _ in range(20)} == {"one"}
        assert cache.statistics().stale == 20


def test_a_server_that_was_never_reached_is_unavailable() -> None:
    with Client("127.0.0.1:1", timeout=0.5) as client, pointsman.channel(V1, client=client) as channel:
        begun = time.monotonic()
        with pytest.raises(grpc.RpcError) as failed:
            EchoStub(channel).unary_unary(b"a", timeout=0.25)
        assert time.monotonic() - begun < 5.0
        error: Any = failed.value
        assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


# Its end


def test_it_closes_what_it_made_and_nothing_else(writer: Client, one: EchoBackend) -> None:
    writer.create(V1, one.url)
    before = set(threading.enumerate())
    with pointsman.channel(V1) as channel:
        assert answer(channel) == "one"
    with pointsman.channel(V1, client=writer) as channel:
        assert answer(channel) == "one"
    assert writer._session.near_caches == ()
    with writer.cached() as cache:
        with pointsman.channel(V1, cache=cache) as channel:
            assert answer(channel) == "one"
        assert cache.resolve(V1).url == one.url
    assert eventually(lambda: threads_besides_servers(before) == set())


def test_interceptors_go_around_it(writer: Client, one: EchoBackend) -> None:
    seen: list[str] = []

    class Interceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            call = continuation(details, request)
            seen.append(call.code().name)
            return call

    with pointsman.channel(V1, interceptors=[Interceptor()]) as channel:
        assert answer(channel) == "NOT_FOUND"
        writer.create(V1, one.url)
        assert eventually(lambda: answer(channel) == "one")
    assert (seen[0], seen[-1]) == ("NOT_FOUND", "OK")


async def test_the_same_for_asyncio(server: RunningServer, one: EchoBackend, two: EchoBackend) -> None:
    async def answers(channel: grpc.aio.Channel) -> str:
        try:
            response: bytes = await EchoStub(channel).unary_unary(b"a", timeout=SECONDS)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return response.decode().split()[0]

    async with AsyncClient(server.address) as writer, pointsman.aio.channel(FAMILY) as channel:
        assert await answers(channel) == "NOT_FOUND"
        await writer.create(V1, one.url)
        await writer.create(V2, two.url, active=False)

        async def reaches(expected: str) -> bool:
            return await answers(channel) == expected

        assert await becomes(lambda: reaches("one"))
        held = EchoStub(channel).unary_unary(b"hold", timeout=SECONDS)
        assert await asyncio.to_thread(one.held.acquire, timeout=SECONDS)
        await writer.activate(V2, exclusive=True)
        assert await becomes(lambda: reaches("two"))
        one.released.set()
        assert await held == b"one hold"
        await writer.deactivate(V2)
        assert await becomes(lambda: reaches("NOT_FOUND"))
    async with AsyncClient(server.address) as client, client.cached() as cache:
        async with pointsman.aio.channel(FAMILY, cache=cache) as channel:
            assert await answers(channel) == "NOT_FOUND"
        await client.activate(V1)
        async with pointsman.aio.channel(V1, client=client) as channel:
            assert await answers(channel) == "one"
