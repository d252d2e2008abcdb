"""A channel over real backends, told by a fake near-cache which of them is live."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import grpc
import pytest

import pointsman
import pointsman.aio
from pointsman.channels import channel as sync_channel
from pointsman.channels.aio import channel as async_channel
from pointsman.channels.channel import RouteChannel, open_backend
from pointsman.channels.failure import NoBackend
from pointsman.channels.options import BackendOptions, sticky_key_source
from pointsman.errors import InvalidArgument
from tests.support.echo_backends import EchoBackend, EchoStub
from tests.support.fake_routes import FakeRoutes
from tests.support.waiting import eventually

SECONDS = 20.0
State = grpc.ChannelConnectivity


def generated(channel: grpc.Channel) -> Any:
    """Return a method as generated code makes it."""
    return channel.unary_unary(
        "/test.Echo/UnaryUnary",
        request_serializer=str.encode,
        response_deserializer=bytes.decode,
        _registered_method=True,
    )


class Rig:
    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.one, self.two, self.three = (stack.enter_context(EchoBackend(name)) for name in ("one", "two", "three"))
        self.routes = FakeRoutes(self.one.url)
        self.opened: list[grpc.Channel] = []
        self.closes: list[str] = []
        self.channel = self.make()
        self.stub = EchoStub(self.channel)

    def make(self, drain_seconds: float = 60.0) -> RouteChannel:
        channel = RouteChannel(
            self.routes,
            self.open,
            sticky_key=sticky_key_source(lambda metadata: str(dict(metadata).get("user", ""))),
            drain_seconds=drain_seconds,
            on_close=[partial(self.closes.append, "first"), partial(self.closes.append, "second")],
        )
        self.stack.callback(channel.close)
        return channel

    def open(self, url: str) -> grpc.Channel:
        self.opened.append(open_backend(BackendOptions(), url))
        return self.opened[-1]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr("pointsman.channels.backends.LINGER_SECONDS", 0.1)
    with ExitStack() as stack:
        yield Rig(stack)


Call = Callable[[EchoStub, bytes], bytes]
# Each way to make a call, by the answer to its one request.
CALLS: dict[str, Call] = {
    "unary_unary": lambda stub, request: stub.unary_unary(request, timeout=SECONDS),
    "unary_unary.with_call": lambda stub, request: stub.unary_unary.with_call(request, timeout=SECONDS)[0],
    "unary_unary.future": lambda stub, request: stub.unary_unary.future(request, timeout=SECONDS).result(),
    "unary_stream": lambda stub, request: list(stub.unary_stream(request, timeout=SECONDS))[-1],
    "stream_unary": lambda stub, request: stub.stream_unary(iter([request]), timeout=SECONDS),
    "stream_unary.with_call": lambda stub, request: stub.stream_unary.with_call(iter([request]), timeout=SECONDS)[0],
    "stream_unary.future": lambda stub, request: stub.stream_unary.future(iter([request]), timeout=SECONDS).result(),
    "stream_stream": lambda stub, request: next(stub.stream_stream(iter([request]), timeout=SECONDS)),
}


@pytest.mark.parametrize("kind", CALLS)
def test_each_kind_of_call_follows_a_cut_over(rig: Rig, kind: str) -> None:
    call = CALLS[kind]
    assert call(rig.stub, b"a") == b"one a"
    rig.routes.set(rig.two.url)
    assert call(rig.stub, b"b") == b"two b"
    rig.routes.set(rig.one.url)
    assert call(rig.stub, b"c") == b"one c"
    assert eventually(lambda: all(not each.calls for each in rig.channel._backends._by_url.values()))


@pytest.mark.parametrize("kind", CALLS)
def test_each_kind_of_call_fails_where_nothing_is_live(rig: Rig, kind: str) -> None:
    rig.routes.set("")
    with pytest.raises(NoBackend) as failed:
        CALLS[kind](rig.stub, b"a")
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    assert "is not active: activate it first" in str(failed.value.details())
    assert (rig.opened, rig.one.count) == ([], 0)
    rig.routes.set(rig.one.url)
    assert CALLS[kind](rig.stub, b"a") == b"one a"


@pytest.mark.parametrize("kind", CALLS)
def test_each_kind_of_call_in_flight_ends_where_it_began(rig: Rig, kind: str) -> None:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(CALLS[kind](rig.stub, b"hold")))
    thread.start()
    assert rig.one.held.acquire(timeout=SECONDS)
    rig.routes.set(rig.three.url)
    assert CALLS[kind](rig.stub, b"next") == b"three next"
    rig.routes.set(rig.two.url)
    assert CALLS[kind](rig.stub, b"next") == b"two next"
    # The third left last, and is closed: only its call has kept the first.
    assert eventually(lambda: [*rig.channel._backends._by_url] == [rig.one.url, rig.two.url])
    rig.one.released.set()
    thread.join(SECONDS)
    assert answers == [b"one hold"]
    assert eventually(lambda: [each.url for each in rig.channel._backends._by_url.values()] == [rig.two.url])
    assert eventually(lambda: is_closed(rig.opened[0]))
    assert not is_closed(rig.opened[2])


def test_calls_that_do_not_end_are_cancelled_after_the_drain(rig: Rig) -> None:
    stub = EchoStub(rig.make(drain_seconds=0.0))
    future = stub.unary_unary.future(b"hold")
    assert rig.one.held.acquire(timeout=SECONDS)
    rig.routes.set(rig.two.url)
    with pytest.raises(grpc.RpcError) as ended:
        future.result(SECONDS)
    assert ended.value.code() is grpc.StatusCode.CANCELLED
    assert stub.unary_unary(b"a") == b"two a"


def test_stubs_that_are_generated_work(rig: Rig) -> None:
    call = generated(rig.channel)
    assert call("a", timeout=SECONDS) == "one a"
    rig.routes.set(rig.two.url)
    assert call("a", timeout=SECONDS) == "two a"


def test_an_error_of_a_backend_is_its_own(rig: Rig) -> None:
    for call in (rig.stub.unary_unary, rig.stub.unary_unary.future, rig.stub.unary_unary.with_call):
        with pytest.raises(grpc.RpcError) as failed:
            call(b"not found", timeout=SECONDS).result()
        assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.NOT_FOUND, "one has none")
        assert not isinstance(failed.value, NoBackend)
    assert eventually(lambda: rig.channel._backends.open(rig.one.url).calls == 0)


def test_a_call_that_cannot_begin_counts_as_ended(rig: Rig) -> None:
    for call in (rig.stub.unary_unary, rig.stub.unary_unary.future, rig.stub.unary_stream):
        with pytest.raises(TypeError):
            call(b"a", metadata=7)
    assert rig.channel._backends.open(rig.one.url).calls == 0


def test_metadata_reaches_the_backend_and_the_sticky_key(rig: Rig) -> None:
    rig.routes.set({"": rig.one.url, "user-2": rig.two.url})
    assert rig.stub.unary_unary(b"a") == b"one a"
    assert rig.stub.unary_unary(b"a", metadata=(("user", "user-2"),)) == b"two a"
    assert rig.two.metadata[-1]["user"] == "user-2"


def test_flapping_leaves_neither_channels_nor_threads(rig: Rig) -> None:
    before = set(threading.enumerate())
    for _ in range(100):
        for backend in (rig.one, rig.two):
            rig.routes.set(backend.url)
            assert rig.stub.unary_unary(b"a") == f"{backend.name} a".encode()
    assert len(rig.opened) == 2, "what comes back before it is closed is used again"
    assert eventually(lambda: is_closed(rig.opened[0]))
    assert eventually(lambda: mine(before) == set())


def test_callers_that_race_with_flapping_fail_no_call(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends are closed the moment they have no call, while others are just being called."""
    monkeypatch.setattr("pointsman.channels.backends.LINGER_SECONDS", 0.0)
    failures: list[Exception] = []
    done: Counter[str] = Counter()
    stopped = threading.Event()

    def call(name: str) -> None:
        while not stopped.is_set():
            try:
                rig.stub.unary_unary(b"a", timeout=SECONDS)
            except Exception as error:  # noqa: BLE001 - grpc raises ValueError on a channel that was closed
                failures.append(error)
            done[name] += 1

    threads = [threading.Thread(target=call, args=(str(number),)) for number in range(3)]
    for thread in threads:
        thread.start()
    for number in range(150):
        rig.routes.set((rig.one, rig.two, rig.three)[number % 3].url)
        enough = done.total() + 2
        assert eventually(lambda enough=enough: done.total() >= enough)
    stopped.set()
    for thread in threads:
        thread.join(SECONDS)
    assert failures == []
    assert len(rig.opened) > 20, "they were closed and opened again"


def test_it_connects_for_who_waits_for_it(rig: Rig) -> None:
    rig.routes.set("")
    ready = grpc.channel_ready_future(rig.channel)
    states: list[State] = []
    rig.channel.subscribe(states.append)
    assert eventually(lambda: states == [State.TRANSIENT_FAILURE])
    assert rig.routes.starts == 2
    rig.routes.set(rig.one.url)
    ready.result(SECONDS)
    assert eventually(lambda: states[-1] is State.READY)
    rig.routes.set("")
    assert eventually(lambda: states[-1] is State.TRANSIENT_FAILURE)
    rig.channel.unsubscribe(states.append)
    assert not rig.channel._connectivity.wanted


def test_before_it_is_known_what_is_live_the_state_is_idle(rig: Rig) -> None:
    rig.routes.known = False
    states: list[State] = []
    rig.channel.subscribe(states.append, try_to_connect=True)
    assert eventually(lambda: states == [State.IDLE])
    rig.routes.known = True
    rig.routes.changed()
    assert eventually(lambda: states[-1] is State.READY)


def test_a_backend_that_a_call_opens_is_followed(rig: Rig) -> None:
    states: list[State] = []
    rig.channel.subscribe(states.append)
    assert eventually(lambda: states == [State.IDLE])
    assert rig.opened == []
    assert rig.stub.unary_unary(b"a") == b"one a"
    assert eventually(lambda: State.READY in states)


def test_its_end(rig: Rig) -> None:
    before = set(threading.enumerate())
    future = rig.stub.unary_unary.future(b"hold")
    assert rig.one.held.acquire(timeout=SECONDS)
    with rig.channel as channel:
        assert channel is rig.channel
    with pytest.raises(grpc.RpcError) as ended:
        future.result(SECONDS)
    assert ended.value.code() is grpc.StatusCode.CANCELLED
    channel.close()
    assert (rig.closes, rig.routes.followers) == (["first", "second"], 0)
    assert is_closed(rig.opened[0])
    for call in CALLS.values():
        with pytest.raises(ValueError, match="closed channel"):
            call(rig.stub, b"a")
    assert eventually(lambda: mine(before) == set())


def test_around_a_fork_it_has_no_connection(rig: Rig) -> None:
    rig.stub.unary_unary(b"a")
    rig.channel.before_fork()
    assert is_closed(rig.opened[0])
    rig.channel.after_fork_in_parent()
    assert rig.stub.unary_unary(b"a") == b"one a"
    rig.channel.before_fork()
    rig.channel.after_fork_in_child()
    assert rig.stub.unary_unary(b"a") == b"one a"
    assert len(rig.opened) == 3
    rig.routes.set(rig.two.url)
    assert rig.stub.unary_unary(b"a") == b"two a"


def test_a_call_that_opens_a_backend_meanwhile_does_not_block_a_fork(rig: Rig) -> None:
    rig.stub.unary_unary(b"a")
    backends, reaper = rig.channel._backends, rig.channel._reaper
    forking = threading.Thread(target=rig.channel.before_fork)
    with backends._lock:  # as of a call that opens a second backend, and lets the reaper know of it
        forking.start()
        assert eventually(reaper._working.locked)
        waking = threading.Thread(target=reaper.wake, daemon=True)
        waking.start()
        waking.join(SECONDS)
        assert not waking.is_alive()
    forking.join(SECONDS)
    assert not forking.is_alive()
    rig.channel.after_fork_in_parent()
    assert rig.stub.unary_unary(b"a") == b"one a"


def test_after_a_fork_subscribers_are_connected_again(rig: Rig) -> None:
    states: list[State] = []
    rig.channel.subscribe(states.append, try_to_connect=True)
    assert eventually(lambda: states[-1:] == [State.READY])
    rig.channel.before_fork()
    rig.channel.after_fork_in_parent()
    assert eventually(lambda: len(rig.opened) == 2 and states[-1] is State.READY)


def test_a_child_leaves_the_calls_of_its_parent_alone(rig: Rig) -> None:
    future = rig.stub.unary_unary.future(b"hold")
    assert rig.one.held.acquire(timeout=SECONDS)
    for _ in range(2):
        rig.channel.before_fork()
        rig.channel.after_fork_in_child()
        assert rig.stub.unary_unary(b"a") == b"one a"
    rig.one.released.set()
    assert future.result(SECONDS) == b"one hold"


class Closable:
    def close(self) -> None:
        pass


class FakeClient(Closable):
    """A client that makes one near-cache."""

    def __init__(self) -> None:
        self.cache = Closable()
        self.asked: list[dict[str, Any]] = []

    def cached(self, **asked: Any) -> Closable:
        self.asked.append(asked)
        return self.cache


class Made:
    """The arguments that a channel was made with."""

    def __init__(self, routes: Any, opener: Any, **rest: Any) -> None:
        self.routes = routes
        self.opener = opener
        self.rest = rest


@pytest.mark.parametrize("kind", ["Async", ""], ids=["asyncio", "threads"])
@pytest.mark.parametrize("given", [True, False], ids=["client", "environment"])
def test_it_is_made_of_what_is_given(monkeypatch: pytest.MonkeyPatch, kind: str, given: bool) -> None:
    module: Any = async_channel if kind else sync_channel
    client, shut_down = FakeClient(), cast("list[Any]", [])
    monkeypatch.setattr(module, f"{kind}RouteChannel", Made)
    monkeypatch.setattr(module, f"{kind}NearCacheRoutes", lambda cache, key: (cache, key))
    monkeypatch.setattr(module.garbage, "shut_down_with", lambda made, cache: shut_down.append((made, cache)))
    monkeypatch.setattr(f"pointsman{'.aio' if kind else ''}.{kind}Client.from_environment", lambda: client)
    chosen = BackendOptions(object(), False, [("a", 1)], grpc.Compression.Gzip, [object()] if kind else ())  # type: ignore[arg-type]
    made = module.channel(
        "team-a/payments/prod/v1",
        client=client if given else None,
        sticky_key="a",
        credentials=chosen.credentials,
        plaintext=chosen.plaintext,
        options=chosen.options,
        compression=chosen.compression,
        interceptors=chosen.interceptors,
        drain_seconds=1.0,
    )
    assert made.routes == (client.cache, "team-a/payments/prod/v1")
    assert client.asked == [{"tenants": ["team-a"], "service": "payments", "env": "prod", "on_stale": "serve"}]
    assert (made.opener.func, made.opener.args) == (module.open_backend, (chosen,))
    assert made.rest.pop("sticky_key")(None) == "a"
    # The near-cache before the client that it is of.
    on_close = [client.cache.close] if given else [client.cache.close, client.close]
    assert made.rest == {"drain_seconds": 1.0, "on_close": on_close}
    assert shut_down == [(made, client.cache)]


def test_what_it_refuses() -> None:
    with pytest.raises(InvalidArgument, match="must be tenant/service/env/version"):
        pointsman.channel("payments")
    with pytest.raises(ValueError, match="cache or client"), pointsman.Client("localhost:1") as client:
        pointsman.channel("team-a/payments/prod", client=client, cache=client.cached())
    with pytest.raises(ValueError, match="drain_seconds"):
        pointsman.channel("team-a/payments/prod", drain_seconds=-1)


def is_closed(channel: grpc.Channel) -> bool:
    try:
        channel.unary_unary("/test.Echo/UnaryUnary")(b"", timeout=0.001)
    except ValueError:
        return True
    except grpc.RpcError:
        return False
    return False


def mine(before: set[threading.Thread]) -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each not in before and each.name.startswith("pointsman")}
