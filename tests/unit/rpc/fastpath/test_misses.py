"""Calls that wait in the fast path end as they do in the interceptor chain, on every transport."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import grpc
import protovalidate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey as KeyMessage
from pointsman_server.domain.codec import key_to_bytes, key_to_message, route_to_message
from pointsman_server.domain.errors import Overloaded, PointsmanError, StoreUnavailable
from pointsman_server.domain.identity import Credential, Identity, Scope
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.cache import Lookup
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.resolver import Bounds, Resolver
from pointsman_server.rpc import SERVICE, convert, statuses
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.fastpath import encoder, fast_path
from pointsman_server.rpc.fastpath.call_ends import CallEnds
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.fastpath.fast_path import Declined, FastPath
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.fastpath.handler import RESOLVE, fast_methods
from pointsman_server.rpc.interceptors import chain
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.bulk_limit import Bulk
from pointsman_server.rpc.interceptors.stage import CallHandler, Method
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.route_service import RouteServicer
from pointsman_server.telemetry.metrics import Metrics
from tests.support.fakes import EPOCH, ManualClock, MemoryCache, MemoryStore
from tests.support.receipts import usage_methods
from tests.support.servicers import NO_TRAFFIC

K1, K2, K3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
EXACT = pb.CONSISTENCY_FULLY_CONSISTENT
CALLER = Identity("key:reader", Credential.API_KEY)
METADATA = (("x-request-id", "the-same"),)
DEADLINE = 30.0
Ended = tuple[str, Any, Any]


class Door:
    """Guards that admit or reject every call, and record the tenants and scopes of each."""

    def __init__(self) -> None:
        self.open = True
        self.admission = Admission(most=100)
        self.asked: list[tuple[list[str], list[Scope]]] = []

    def let_in(self, metadata: Callable[[], Any], tenants: Sequence[str], scopes: Sequence[Scope]) -> Identity | None:
        assert metadata() == METADATA
        self.asked.append((list(tenants), list(scopes)))
        return CALLER if self.open and not self.admission.closed else None


class EncodingCache(MemoryCache):
    """Brings hits encoded, as Redis does."""

    async def get(self, keys: Sequence[RouteKey], owner: str) -> list[Lookup]:
        return [self._encoded(found) for found in await super().get(keys, owner)]

    def _encoded(self, found: Lookup) -> Lookup:
        route = found.snapshot.route if found.snapshot else None
        return replace(found, encoded=route_to_message(route).SerializeToString()) if route else found


class Context:
    """Stands for the context of a call of grpcio."""

    def __init__(self, remaining: float | None = 60.0) -> None:
        self.remaining = remaining
        self.ended: Ended = ("", None, None)
        self.trailers: Any = ()

    def invocation_metadata(self) -> Any:
        return METADATA

    def time_remaining(self) -> float | None:
        return self.remaining

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode[self.ended[0]]

    def set_trailing_metadata(self, trailers: Any) -> None:
        self.trailers = trailers

    async def abort(self, code: grpc.StatusCode, text: str) -> None:
        self.ended = (code.name, text, self.trailers)
        raise grpc.aio.AbortError


class Tokens:
    """Revision tokens of one epoch that has begun."""

    async def floor(self, min_revision: int, epoch: str) -> int:
        return min_revision if epoch == EPOCH else 0


class World:
    """Everything below a Resolve, and each way to call it. A test uses one way per world."""

    def __init__(self, bounds: Bounds = Bounds(), sample: float = 0.0) -> None:  # noqa: B008 - frozen
        self.now = ManualClock()
        self.store = MemoryStore()
        self.cache = EncodingCache(self.now)
        self.local = LocalCache(size=100, ttl=10.0, negative_ttl=10.0, now=self.now)
        self.metrics = Metrics()
        self.counters = FastPathCounters(self.metrics, SERVICE)
        self.resolver = Resolver(
            self.store, self.cache, self.local, observer=self.metrics, bounds=bounds, patience=0, now=self.now
        )
        self.door = Door()
        self.reads = ReadCounts()
        self.path = FastPath(
            self.local,
            self.resolver,
            cast("Guards", self.door),
            CallEnds(self.counters, AccessLog(sample)),
            epoch=lambda: EPOCH,
            deadline=DEADLINE,
            reads=self.reads,
            now=self.now,
        )
        self._chain: CallHandler = RouteServicer(
            self.resolver,
            cast("Any", Tokens()),
            *(cast("Any", None) for _ in range(5)),
            usage=usage_methods(self.reads),
            writes=WriteMeter(self.metrics),
            metrics=self.metrics,
            **NO_TRAFFIC,
        ).Resolve
        for stage in reversed(
            chain.stages(self.metrics, self.door.admission, deadline=DEADLINE, access_log_sample=sample)
        ):
            self._chain = stage(Method(SERVICE, "Resolve"), self._chain)
        self._fast = fast_methods(self.path, Bulk())[RESOLVE].before(
            self._chain, pb.ResolveRequest.FromString, pb.ResolveResponse.SerializeToString
        )

    def take(self, key: RouteKey = K1, remaining: float | None = 60.0, **more: Any) -> "asyncio.Task[Ended]":
        """Begin a call."""
        return asyncio.create_task(self.by_fast_path(key, remaining, **more))

    def offer(self, request: bytes) -> bool:
        """Say whether the fast path takes a call."""
        return not isinstance(self.path.resolve(request, cast("Any", Context())), Declined)

    async def by_fast_path(self, key: RouteKey = K1, remaining: float | None = 60.0, **more: Any) -> Ended:
        context = Context(remaining)
        try:
            request = pb.ResolveRequest(key=key_to_message(key), **more).SerializeToString()
            response = await self._fast(request, cast("Any", context))
            return "OK", pb.ResolveResponse.FromString(response), None
        except grpc.aio.AbortError:
            return context.ended

    async def by_chain(self, key: RouteKey = K1, **more: Any) -> Ended:
        context = Context()
        try:
            request = pb.ResolveRequest(key=key_to_message(key), **more)
            response = await self._chain(request, cast("Any", context))
        except grpc.aio.AbortError:
            return context.ended
        # The fast path says milliseconds, and no more.
        response.provenance.age.FromMilliseconds(response.provenance.age.ToMilliseconds())
        return "OK", response, None

    def value(self, name: str, **labels: str) -> float:
        self.counters.flush()
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def counted(self) -> dict[tuple[str, ...], float]:
        """Return every count, without durations."""
        self.counters.flush()
        return {
            (sample.name, *sorted(f"{name}={value}" for name, value in sample.labels.items())): sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.value and not sample.name.endswith(("_created", "_sum", "_bucket"))
        }


@pytest.fixture
def world() -> World:
    return World()


Way = Callable[..., Any]


def end_of(error: PointsmanError) -> tuple[str, str]:
    return statuses.code_of(error).name, error.message


# Answers


async def test_a_call_is_answered_from_the_store_and_then_from_the_caches(world: World) -> None:
    snapshot = Snapshot(K1, world.store.put(K1), 1, EPOCH)
    assert await world.by_fast_path() == ("OK", convert.resolve_response(Answer(snapshot, Source.POSTGRES)), None)
    assert await world.by_fast_path() == ("OK", convert.resolve_response(Answer(snapshot, Source.LOCAL)), None)
    world.local.drop()
    assert await world.by_fast_path() == ("OK", convert.resolve_response(Answer(snapshot, Source.REDIS)), None)
    assert len(world.store.loads) == 1


async def test_an_exact_call_is_answered_by_a_load_of_its_own_whatever_is_held(world: World) -> None:
    world.store.put(K1)
    await world.by_fast_path()
    newer = Snapshot(K1, world.store.put(K1, "https://new.internal"), 2, EPOCH)
    ended = await world.by_fast_path(consistency=EXACT)
    assert ended == ("OK", convert.resolve_response(Answer(newer, Source.POSTGRES)), None)
    assert world.resolver.resolve_locally(K1) == Answer(newer, Source.LOCAL, 0.0)


async def test_a_call_for_a_newer_revision_than_is_cached_is_answered_by_the_store(world: World) -> None:
    world.store.put(K1)
    await world.by_fast_path()
    newer = Snapshot(K1, world.store.put(K1, "https://new.internal"), 2, EPOCH)
    ended = await world.by_fast_path(min_revision=2, epoch=EPOCH)
    assert ended == ("OK", convert.resolve_response(Answer(newer, Source.POSTGRES)), None)
    assert world.value("pointsman_cache_lookups_total", layer="local", outcome="stale") == 1
    assert world.value("pointsman_cache_lookups_total", layer="local", outcome="miss") == 1


async def test_a_newer_revision_than_is_cached_costs_one_cut_and_one_look_into_the_local_cache(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store.put(K1)
    await world.by_fast_path()
    world.store.put(K1, "https://new.internal")
    done: list[str] = []
    cut, find = fast_path.wire.cut, world.path._find
    monkeypatch.setattr(fast_path.wire, "cut", lambda request: (done.append("cut"), cut(request))[1])
    counting = lambda key, min_revision=0: (done.append("find"), find(key, min_revision))[1]  # noqa: E731
    monkeypatch.setattr(world.path, "_find", counting)
    monkeypatch.setattr(world.local, "find", counting)
    assert (await world.by_fast_path(min_revision=2))[0] == "OK"
    assert done == ["cut", "find"]


async def test_what_the_fast_path_declines_is_not_looked_up_again_by_the_chain(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store.put(K1)
    await world.by_fast_path()
    world.door.open = False
    looks: list[bytes] = []
    monkeypatch.setattr(world.local, "find", looks.append)
    assert (await world.by_fast_path())[1].provenance.source == pb.Provenance.SOURCE_LOCAL
    assert looks == []
    assert world.value("pointsman_cache_lookups_total", layer="local", outcome="hit") == 1
    assert world.value("grpc_server_started_total", **CALL) == 2


async def test_calls_for_one_key_share_a_load_on_every_way(world: World) -> None:
    world.store.put(K1)
    world.store.before_read.close()
    waiting = [asyncio.create_task(world.by_chain()), world.take(), world.take()]
    await world.store.before_read.arrivals()
    world.store.before_read.open()
    first, second, third = await asyncio.gather(*waiting)
    assert first == second == third
    assert world.store.loads == [[K1]]


async def test_calls_of_one_turn_go_to_the_shared_cache_together(world: World) -> None:
    await asyncio.gather(*[world.take(key) for key in (K1, K2, K3)])
    assert [keys for what, keys in world.cache.journal if what == "get"] == [[K1, K2, K3]]


async def test_a_call_that_began_after_a_write_does_not_join_a_load_from_before_it(world: World) -> None:
    world.store.put(K1)
    world.store.after_read.close()
    before = world.take()
    await world.store.after_read.arrivals()
    written = Snapshot(K1, world.store.put(K1, "https://new.internal"), 2, EPOCH)
    world.resolver.apply_local_write([written])
    world.local.drop()
    after = world.take()
    await world.store.after_read.arrivals(2)
    world.store.after_read.open()
    assert (await before)[1].provenance.as_of_revision == 1
    assert (await after)[1].provenance.as_of_revision == 2
    assert world.resolver.resolve_locally(K1) == Answer(written, Source.LOCAL, 0.0)


@settings(deadline=None)
@given(
    st.sampled_from(Source), st.integers(0, 2**63 - 1), st.sampled_from(["", EPOCH]), st.integers(0, 10**7), st.text()
)
def test_an_answer_is_what_protobuf_makes_of_it(source: Source, as_of: int, epoch: str, age: int, url: str) -> None:
    route = replace(MemoryStore().put(K1), url=url)
    answer = Answer(Snapshot(K1, route, as_of, epoch), source, age / 1000)
    found, expected = pb.ResolveResponse.FromString(encoder.response_of(answer)), convert.resolve_response(answer)
    assert found.provenance.age.ToMilliseconds() == pytest.approx(expected.provenance.age.ToMilliseconds(), abs=1)
    assert found.provenance.HasField("age")
    expected.provenance.age.CopyFrom(found.provenance.age)
    assert found == expected


# What the chain serves


KEY = key_to_message(K1)
PARTS = ("tenant", "service", "env", "version")


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        pb.ResolveRequest(key=KEY, min_revision=1, epoch="another").SerializeToString(),
        pb.ResolveRequest(key=KEY, min_revision=1, consistency=EXACT).SerializeToString(),
        pb.ResolveRequest(key=KEY, consistency=7).SerializeToString(),  # type: ignore[arg-type] # not defined
        pb.ResolveRequest(key=KEY).SerializeToString() * 2,
        pb.ResolveRequest(key=KEY).SerializeToString()[:-1],
        b"\x0a\x02\xff\xff",
    ],
)
async def test_whatever_is_unusual_is_declined(world: World, request_: bytes) -> None:
    assert not world.offer(request_)
    assert world.door.asked == []


@pytest.mark.parametrize("part", ["", "-", "a-", "a/b", "a b", "ä", "a\n", "a\0", "a" * 64])
@pytest.mark.parametrize("field", PARTS)
async def test_a_key_that_breaks_the_rules_is_declined(world: World, field: str, part: str) -> None:
    broken = key_to_message(K1)
    setattr(broken, field, part)
    assert not world.offer(pb.ResolveRequest(key=broken).SerializeToString())


@pytest.mark.parametrize("more", [b"\xf8\x07\x01", b"\x0a\x01b", b"\x2a\x00"])
def test_a_key_with_more_in_it_is_not_read(more: bytes) -> None:
    encoded = KEY.SerializeToString()
    assert fast_path.read_key(encoded) == K1
    assert fast_path.read_key(encoded + more) is None


@settings(deadline=None)
@given(st.builds(KeyMessage, **{name: st.text("aZ9._-\n ä", max_size=4) for name in PARTS}))
def test_keys_are_valid_by_the_rules_of_the_protos(message: KeyMessage) -> None:
    valid = not protovalidate.collect_violations(message)
    assert (fast_path.read_key(message.SerializeToString()) is not None) == valid


async def test_a_caller_that_is_not_let_in_is_declined_and_checked_for_the_scope(world: World) -> None:
    world.door.open = False
    assert not world.offer(pb.ResolveRequest(key=KEY).SerializeToString())
    assert world.door.asked == [(["team-a"], [Scope("team-a", "prod")])]
    assert world.store.loads == []


async def test_calls_beyond_the_bound_are_declined_and_the_chain_refuses_them(world: World) -> None:
    for _ in range(100):
        world.door.admission.enter()
    assert not world.offer(pb.ResolveRequest(key=KEY).SerializeToString())
    assert world.door.asked == []


# How calls end


async def test_a_call_is_open_until_it_has_ended(world: World) -> None:
    world.store.before_read.close()
    call = asyncio.create_task(world.by_fast_path())
    await world.store.before_read.arrivals()
    assert world.door.admission._open == 1
    world.store.before_read.open()
    await call
    assert world.door.admission._open == 0


@pytest.mark.parametrize(("remaining", "code"), [(60.0, "Cancelled"), (None, "Cancelled"), (0.0, "DeadlineExceeded")])
async def test_a_call_that_is_cancelled_takes_nothing_from_the_others(
    world: World, remaining: float | None, code: str
) -> None:
    world.store.put(K1)
    world.store.before_read.close()
    gone, stays = (
        asyncio.create_task(world.by_fast_path(remaining=remaining)),
        asyncio.create_task(world.by_fast_path()),
    )
    await world.store.before_read.arrivals()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert world.door.admission._open == 1
    world.store.before_read.open()
    assert (await stays)[0] == "OK"
    assert world.door.admission._open == 0
    assert world.value("grpc_server_handled_total", **CALL, grpc_code=code) == 1


CALL = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Resolve"}


async def test_a_call_with_a_deadline_outlasts_ours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.path._misses, "_deadline", 0.01)
    world.store.before_read.close()
    dated, undated = world.take(K1), world.take(K2, remaining=None)
    assert (await undated)[0] == "DEADLINE_EXCEEDED"
    assert not dated.done()
    world.store.before_read.open()
    await dated
    assert world.door.admission._open == 0


@pytest.mark.parametrize("remaining", [None, 1e9])
async def test_a_call_without_a_deadline_has_ours(
    world: World, monkeypatch: pytest.MonkeyPatch, remaining: float | None
) -> None:
    monkeypatch.setattr(world.path._misses, "_deadline", 0.01)
    world.store.before_read.close()
    refusal = Refusal.of_deadline(0.01, "")
    assert (await world.by_fast_path(remaining=remaining))[:2] == ("DEADLINE_EXCEEDED", refusal.text)
    assert world.door.admission._open == 0
    world.store.before_read.open()
    assert world.value("grpc_server_handled_total", **CALL, grpc_code="DeadlineExceeded") == 1


async def test_what_is_too_much_is_refused_at_once() -> None:
    world = World(Bounds(queue=1))
    calls = [world.take(RouteKey("a", "b", "c", f"v{number}")) for number in range(5)]
    assert (await calls[-1])[:2] == end_of(Overloaded("cache_loads"))
    await asyncio.gather(*calls)


async def test_a_bug_is_hidden_from_callers_and_the_others_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store.put(K1)
    world.store.put(K2)
    encode = encoder.response_of

    def broken(answer: Answer) -> bytes:
        if answer.snapshot.key == K1:
            raise RuntimeError("a secret")
        return encode(answer)

    monkeypatch.setattr(encoder, "response_of", broken)
    bad, good = await asyncio.gather(world.by_fast_path(K1), world.by_fast_path(K2))
    assert bad[:2] == ("INTERNAL", statuses.INTERNAL_TEXT)
    assert "a secret" not in repr(bad[2])
    assert good[0] == "OK"


async def test_a_bug_in_a_load_ends_its_call_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(world.resolver, "load", broken)
    assert (await world.by_fast_path())[0] == "INTERNAL"
    assert world.door.admission._open == 0


async def test_calls_that_waited_are_in_the_access_log_as_the_chain_logs_them() -> None:
    lines: list[list[Any]] = []
    for serve in (World.by_fast_path, World.by_chain):
        world = World(sample=1.0)
        world.store.put(K1)
        with capture_logs() as logged:
            await serve(world, K1)
            await serve(world, K2)
            await serve(world, K2)
            world.store.failure = StoreUnavailable()
            await serve(world, K3)
        assert all(line.pop("milliseconds") >= 0 for line in logged)
        lines.append(logged)
    assert lines[0] == lines[1]
    assert [line["code"] for line in lines[0]] == ["OK", "NOT_FOUND", "NOT_FOUND", "UNAVAILABLE"]


# Histories: every way says and counts the same

keys = st.sampled_from([K1, K2])
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, st.booleans()),
        st.tuples(st.just("remove"), keys),
        st.tuples(st.just("supersede"), keys),
        st.tuples(st.just("flush")),
        st.tuples(st.just("drop")),
        st.tuples(st.just("store"), st.sampled_from([None, StoreUnavailable(), Overloaded("store_connections")])),
        st.tuples(st.just("cache"), st.booleans()),
        st.tuples(st.just("wait"), st.floats(0, 10)),
        st.tuples(st.just("advance"), st.integers(0, 20)),
        st.tuples(
            st.just("ask"),
            keys,
            st.sampled_from(
                [
                    {},
                    {"consistency": EXACT},
                    {"min_revision": 2},
                    {"min_revision": 5, "epoch": EPOCH},
                    {"min_revision": 5, "epoch": "another"},
                    {"min_revision": 3, "consistency": EXACT},
                    {"min_revision": -1},
                ]
            ),
        ),
    ),
    max_size=20,
)


def put(world: World, key: RouteKey, active: bool) -> None:
    world.store.put(key, f"https://r{world.store.revision}.internal", active=active)


def remove(world: World, key: RouteKey) -> None:
    if key in world.store.routes:
        world.store.remove(key)


DEEDS: dict[str, Callable[..., object]] = {
    "put": put,
    "remove": remove,
    "supersede": lambda world, key: world.resolver.supersede([key], [world.store.revision]),
    "flush": lambda world: world.cache.flush(),
    "drop": lambda world: world.local.drop(),
    "store": lambda world, failure: setattr(world.store, "failure", failure),
    "wait": lambda world, seconds: world.now.advance(seconds),
    "advance": lambda world, revision: world.local.advance(min(revision, world.store.revision)),
    "cache": lambda world, down: setattr(world.cache, "down", down),
}


async def live(history: list[tuple[Any, ...]], way: Way) -> tuple[list[Ended], dict[tuple[str, ...], float]]:
    world, ends = World(), []
    for what, *details in history:
        if what == "ask":
            key, more = details
            ends.append(await world.by_fast_path(key, **more))
        else:
            DEEDS[what](world, *details)
    return ends, world.counted()


@settings(max_examples=200, deadline=None)
@given(deeds)
def test_every_way_says_and_counts_the_same(history: list[tuple[Any, ...]]) -> None:
    expected = asyncio.run(live(history, World.by_chain))
    assert asyncio.run(live(history, World.by_fast_path)) == expected


async def test_who_reads_a_route_is_counted_once_for_each_call(world: World) -> None:
    world.store.put(K1)
    world.store.put(K2, active=False)
    await world.by_fast_path(K1)
    await world.by_fast_path(K1, consistency=EXACT)
    await world.by_fast_path(K2)
    await world.by_fast_path(K3)

    assert world.reads.take() == {CALLER.subject: {key_to_bytes(K1): 2, key_to_bytes(K2): 1}}
