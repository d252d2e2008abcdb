"""Select and BatchSelect from bytes to bytes are what the interceptor chain answers, refuses and counts."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import AsOf
from pointsman.v1.selection_pb2 import Choice
from pointsman_server.domain.codec import key_to_bytes, key_to_message
from pointsman_server.domain.errors import Overloaded, StoreUnavailable
from pointsman_server.domain.identity import Credential, Identity, Scope
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.local_lookup import LocalLookup
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.fastpath import select_path
from pointsman_server.rpc.fastpath.call_ends import CallEnds
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.fastpath.declined import DECLINED, Declined
from pointsman_server.rpc.fastpath.fast_path import FastPath
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.fastpath.handler import BATCH_SELECT, SELECT, fast_methods
from pointsman_server.rpc.interceptors import chain
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.bulk_limit import Bulk
from pointsman_server.rpc.interceptors.stage import CallHandler
from pointsman_server.rpc.methods.selection import SelectionMethods
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.metrics import Metrics
from tests.support.fakes import EPOCH, ManualClock, MemoryCache, MemoryStore
from tests.support.receipts import usage_methods

FAMILY = RouteKey("team-a", "payments", "prod", "")
MAIL = FAMILY._replace(service="mail")
EXACT = pb.CONSISTENCY_FULLY_CONSISTENT
CALLER = Identity("key:reader", Credential.API_KEY)
METADATA = (("x-request-id", "the-same"),)
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
        return CALLER if self.open else None


class Context:
    """Stands for the context of a call of grpcio."""

    def __init__(self) -> None:
        self.ended: Ended = ("", None, None)
        self.trailers: Any = ()

    def invocation_metadata(self) -> Any:
        return METADATA

    def time_remaining(self) -> float | None:
        return 60.0

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def add_done_callback(self, _callback: Any) -> None:
        pass

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode[self.ended[0]]

    def set_trailing_metadata(self, trailers: Any) -> None:
        self.trailers = trailers

    async def abort(self, code: grpc.StatusCode, text: str) -> None:
        self.ended = (code.name, text, self.trailers)
        raise grpc.aio.AbortError


CONTEXT = cast("Any", Context())


class World:
    """Everything below a Select, and both ways to call it."""

    def __init__(self) -> None:
        self.now = ManualClock()
        self.store = MemoryStore()
        self.local = LocalCache(size=100, ttl=10.0, negative_ttl=10.0, now=self.now)
        self.metrics, self.reads = Metrics(), ReadCounts()
        self.counters = FastPathCounters(self.metrics, SERVICE)
        self.resolver = Resolver(
            self.store, MemoryCache(self.now), self.local, observer=self.metrics, patience=0, now=self.now
        )
        self.door = Door()
        self.fast = FastPath(
            self.local,
            self.resolver,
            cast("Guards", self.door),
            CallEnds(self.counters, AccessLog(0.0)),
            epoch=lambda: EPOCH,
            deadline=30.0,
            reads=self.reads,
            now=self.now,
        )
        self.path = self.fast.selects
        mine = cast("Any", self)
        methods = SelectionMethods(self.resolver, mine, mine, usage_methods(self.reads), self.metrics, FairShare())

        async def select(request: pb.SelectRequest, _context: Any) -> pb.SelectResponse:
            return await methods.select(request)

        async def batch_select(request: pb.BatchSelectRequest, _context: Any) -> pb.BatchSelectResponse:
            return await methods.batch_select(request)

        self._chains: dict[Any, CallHandler] = {}
        for method, handle in ((SELECT, select), (BATCH_SELECT, batch_select)):
            handler: CallHandler = handle
            for stage in reversed(
                chain.stages(self.metrics, self.door.admission, deadline=30.0, access_log_sample=0.0)
            ):
                handler = stage(method, handler)
            self._chains[method] = handler
        self._fast = fast_methods(self.fast, Bulk())

    async def floor(self, min_revision: int, epoch: str) -> int:
        return min_revision if epoch == EPOCH else 0

    async def load_as_of(self, keys: Sequence[RouteKey], revision: int) -> list[Snapshot]:
        return await self.store.load(keys)

    async def by_fast_path(self, request: pb.SelectRequest | pb.BatchSelectRequest) -> Ended:
        method, response = _of(request)
        handler = self._fast[method].before(self._chains[method], type(request).FromString, response.SerializeToString)
        context = Context()
        try:
            found = await handler(request.SerializeToString(), cast("Any", context))
            return "OK", in_order(found, response), None
        except grpc.aio.AbortError:
            return context.ended

    async def by_chain(self, request: pb.SelectRequest | pb.BatchSelectRequest) -> Ended:
        context = Context()
        try:
            response = await self._chains[_of(request)[0]](request, cast("Any", context))
        except grpc.aio.AbortError:
            return context.ended
        return "OK", response.SerializeToString(), None

    async def hold(self, *families: RouteKey) -> None:
        for family in families:
            await self.resolver.resolve(family)

    def counted(self) -> dict[tuple[str, ...], float]:
        """Return every count, without durations."""
        self.counters.flush()
        return {
            (sample.name, *sorted(f"{name}={value}" for name, value in sample.labels.items())): sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.value and not sample.name.endswith(("_created", "_sum", "_bucket"))
        }

    def value(self, name: str, **labels: str) -> float:
        self.counters.flush()
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def in_order(found: Any, response: Any = pb.SelectResponse) -> Any:
    """Put the fields into the order of protobuf: the fast path writes the age after the rest of a provenance."""
    return response.FromString(found).SerializeToString() if isinstance(found, bytes) else found


def _of(request: pb.SelectRequest | pb.BatchSelectRequest) -> tuple[Any, Any]:
    if isinstance(request, pb.SelectRequest):
        return SELECT, pb.SelectResponse
    return BATCH_SELECT, pb.BatchSelectResponse


def ask(sticky_key: str = "user-1", family: RouteKey = FAMILY, **more: Any) -> pb.SelectRequest:
    return pb.SelectRequest(tenant=family.tenant, service=family.service, env=family.env, sticky_key=sticky_key, **more)


def one(sticky_key: str = "user-1", family: RouteKey = FAMILY) -> pb.Selection:
    return pb.Selection(tenant=family.tenant, service=family.service, env=family.env, sticky_key=sticky_key)


@pytest.fixture
async def world() -> World:
    """Two versions are divided, and held."""
    made = World()
    divide(made.store)
    await made.hold(FAMILY)
    return made


def divide(store: MemoryStore) -> None:
    for version in ("v1", "v2", "v3"):
        store.put(FAMILY._replace(version=version), f"https://{version}.internal", active=version != "v3")
    store.divide(FAMILY, ("v1", 3000), ("v2", 5000), ("v3", 2000))


async def served(world: World, request: pb.SelectRequest) -> Any:
    outcome = world.path.select(request.SerializeToString(), CONTEXT)
    return await outcome if asyncio.iscoroutine(outcome) else outcome


# Hits


async def test_a_family_that_is_held_is_answered_at_once_as_the_chain_answers(world: World) -> None:
    world.now.advance(1.25)
    for number in range(200):
        request = ask(f"user-{number}")
        outcome = world.path.select(request.SerializeToString(), CONTEXT)
        assert ("OK", in_order(outcome), None) == await world.by_chain(request)
    assert len(world.store.loads) == 1


async def test_what_was_passed_is_said(world: World) -> None:
    choices = [pb.SelectResponse.FromString(await served(world, ask(f"user-{number}"))).choice for number in range(100)]
    assert {choice.version for choice in choices} == {"v1", "v2"}
    assert {tuple(choice.inactive_versions) for choice in choices} == {(), ("v3",)}


async def test_an_empty_sticky_key_is_divided_at_random(world: World) -> None:
    found = {pb.SelectResponse.FromString(await served(world, ask(""))).choice.version for _ in range(60)}
    assert found == {"v1", "v2"}


async def test_what_becomes_of_the_family_is_seen_at_once(world: World) -> None:
    assert pb.SelectResponse.FromString(await served(world, ask())).choice.version == "v2"
    traffic = world.store.divide(FAMILY, ("v1", 10_000))
    world.resolver.supersede([FAMILY], [traffic.revision])
    choice = pb.SelectResponse.FromString(await served(world, ask())).choice
    assert choice == Choice(rule=Choice.RULE_SPLIT, version="v1", traffic_revision=traffic.revision)
    assert world.path.select(ask().SerializeToString(), CONTEXT).__class__ is bytes


async def test_a_family_is_made_ready_once_while_the_same_record_is_held(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    encode = select_path.encoder.select_response
    monkeypatch.setattr(
        select_path.encoder, "select_response", lambda chosen, *more: (made.append(chosen), encode(chosen, *more))[1]
    )
    for _ in range(3):
        await served(world, ask())
    assert made[0] is made[1] is made[2]


async def test_reads_are_counted_for_the_route_that_was_chosen(world: World) -> None:
    await served(world, ask())
    assert world.reads.take() == {"key:reader": {key_to_bytes(FAMILY._replace(version="v2")): 1}}


async def test_a_resolve_of_a_key_without_a_version_is_left_to_the_chain(world: World) -> None:
    """Its bytes are those of a family, which the local cache holds."""
    await world.hold(MAIL)
    for key in (FAMILY, MAIL):
        message = key_to_message(key)
        assert world.fast.resolve(pb.ResolveRequest(key=message).SerializeToString(), CONTEXT) == DECLINED
        batch = pb.BatchResolveRequest(keys=[message]).SerializeToString()
        assert isinstance(world.fast.batch_resolve(batch, CONTEXT), Declined)


# What cannot be chosen, and misses


async def test_nothing_to_choose_is_refused_as_the_chain_refuses_it(world: World) -> None:
    await world.hold(MAIL)
    world.store.put(MAIL._replace(version="v1"))
    world.store.put(MAIL._replace(version="v2"))
    for revision in (4, 6):
        request = ask(family=MAIL, min_revision=revision)
        refusal = await served(world, request)
        assert isinstance(refusal, Refusal)
        assert await world.by_fast_path(request) == await world.by_chain(request)
    assert world.value("pointsman_select_requests_total", outcome="absent") == 3
    assert world.value("pointsman_select_requests_total", outcome="ambiguous") == 3


async def test_a_miss_waits_and_is_answered_as_the_chain_answers() -> None:
    fast, slow = World(), World()
    for world in (fast, slow):
        divide(world.store)
    requests = [
        ask(),
        ask(min_revision=4),
        ask(consistency=EXACT),
        ask(family=MAIL),
        ask(min_revision=99),
        ask(min_revision=99, epoch="another"),
    ]
    for request in requests:
        assert await fast.by_fast_path(request) == await slow.by_chain(request)
    fast.store.failure = slow.store.failure = StoreUnavailable()
    assert await fast.by_fast_path(ask(consistency=EXACT)) == await slow.by_chain(ask(consistency=EXACT))
    assert fast.counted() == slow.counted()


async def test_a_caller_that_is_not_let_in_is_declined_with_what_was_found(world: World) -> None:
    world.door.open = False
    hit = world.local.find(key_to_bytes(FAMILY))
    assert await served(world, ask()) == Declined(LocalLookup(0, world.now(), (hit,)))
    assert await served(world, ask(family=MAIL)) == Declined(LocalLookup(0, world.now(), (None,)))
    assert await served(world, ask(consistency=EXACT)) == DECLINED
    assert world.door.asked == [(["team-a"], [Scope("team-a", "prod")])] * 3


# Requests that are left to the chain


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\x0a",
        b"\x0a\x01a",
        pb.SelectRequest(tenant="team-a", service="payments").SerializeToString(),
        ask(family=FAMILY._replace(tenant="team a")).SerializeToString(),
        ask(family=FAMILY._replace(env="")).SerializeToString(),
        ask(family=FAMILY._replace(tenant="a" * 64)).SerializeToString(),
        ask(family=FAMILY._replace(tenant="a" * 200)).SerializeToString(),
        ask("k" * 257).SerializeToString(),
        ask("é" * 129).SerializeToString(),
        ask().SerializeToString() + b"\x22\x01",
        ask().SerializeToString() + b"\x0a\x06team-b",
        ask().SerializeToString() + b"\x0a\x00",
        ask().SerializeToString() + b"\x22\x01x",
        ask().SerializeToString() + b"\xff\xff",
        ask().SerializeToString() + b"\x78\x01",
        ask("").SerializeToString() + b"\x22\x02\xff\xfe",
        ask("").SerializeToString() + b"\x22\x82\x80\x80\x00ab",
        ask(min_revision=-1).SerializeToString(),
        ask(consistency=99).SerializeToString(),
        ask(epoch="x" * 37).SerializeToString(),
        ask(as_of=AsOf(revision=1)).SerializeToString(),
        ask(consistency=EXACT, min_revision=1).SerializeToString(),
        ask(min_revision=1, epoch="another").SerializeToString(),
    ],
    ids=repr,
)
async def test_what_is_invalid_or_unusual_is_declined(world: World, request_: bytes) -> None:
    assert world.path.select(request_, CONTEXT) == DECLINED
    batch = pb.BatchSelectRequest(selections=[one()]).SerializeToString()
    assert world.path.batch_select(batch + b"\x0a\x7f", CONTEXT, admit_all) == DECLINED


@pytest.mark.parametrize(
    "selection",
    [one("k" * 257), one(family=FAMILY._replace(env="")), pb.Selection(sticky_key="x"), pb.Selection()],
    ids=repr,
)
async def test_a_batch_with_an_invalid_selection_is_declined(world: World, selection: pb.Selection) -> None:
    request = pb.BatchSelectRequest(selections=[one(), selection]).SerializeToString()
    assert isinstance(world.path.batch_select(request, CONTEXT, admit_all), Declined)


async def test_the_longest_sticky_key_is_served(world: World) -> None:
    for sticky_key in ("k" * 256, "é" * 128, "🦊", "\0"):
        request = ask(sticky_key)
        assert ("OK", in_order(await served(world, request)), None) == await world.by_chain(request)


# Batches


def admit_all(_count: int) -> None:
    """Bound nothing."""


async def test_a_batch_is_answered_one_by_one_as_the_chain_answers(world: World) -> None:
    world.store.put(MAIL._replace(version="v1"))
    other = FAMILY._replace(tenant="team-b")
    await world.hold(MAIL, other)
    world.now.advance(0.5)
    selections = [one(f"user-{number}", (FAMILY, MAIL, other)[number % 3]) for number in range(300)]
    request = pb.BatchSelectRequest(selections=selections)
    outcome = world.path.batch_select(request.SerializeToString(), CONTEXT, admit_all)
    assert ("OK", in_order(outcome, pb.BatchSelectResponse), None) == await world.by_chain(request)
    assert world.door.asked[-1] == (
        ["team-a", "team-a", "team-b"] * 100,
        [Scope("team-a", "prod"), Scope("team-b", "prod")],
    )
    assert set(world.reads.take()["key:reader"]) == {
        key_to_bytes(key)
        for key in (FAMILY._replace(version="v1"), FAMILY._replace(version="v2"), MAIL._replace(version="v1"))
    }


async def test_a_batch_with_a_family_that_is_not_held_is_declined_with_what_was_found(world: World) -> None:
    held = world.local.find(key_to_bytes(FAMILY))
    request = pb.BatchSelectRequest(selections=[one("a"), one("b", MAIL), one("c")])
    outcome = world.path.batch_select(request.SerializeToString(), CONTEXT, admit_all)
    assert outcome == Declined(LocalLookup(0, world.now(), (held, None, held)))
    request = pb.BatchSelectRequest(selections=[one("a")], min_revision=9)
    outcome = world.path.batch_select(request.SerializeToString(), CONTEXT, admit_all)
    assert outcome == Declined(LocalLookup(9, world.now(), (held,)))


async def test_batches_out_of_bounds_are_declined(world: World) -> None:
    for count in (0, 1001):
        request = pb.BatchSelectRequest(selections=[one()] * count).SerializeToString()
        assert world.path.batch_select(request, CONTEXT, admit_all) == DECLINED


async def test_a_batch_beyond_the_bound_is_refused_as_the_chain_refuses_it(world: World) -> None:
    request = pb.BatchSelectRequest(selections=[one()] * 3).SerializeToString()

    def admit(count: int) -> None:
        raise Overloaded(f"bulk_{count}")

    outcome = world.path.batch_select(request, CONTEXT, admit)
    assert outcome == Refusal.of_error(Overloaded("bulk_3"), "the-same")


async def test_a_response_that_is_too_large_is_left_to_the_chain(world: World) -> None:
    big = MAIL._replace(version="v1")
    world.store.put(big, "https://" + "a" * 9000)
    await world.hold(MAIL)
    request = pb.BatchSelectRequest(selections=[one("x", MAIL)] * 1000)
    assert isinstance(world.path.batch_select(request.SerializeToString(), CONTEXT, admit_all), Declined)
    code, response, _ = await world.by_fast_path(request)
    assert code == "OK"
    assert len(response) <= 4_000_000


# Everything alike

VERSIONS = ("v1", "v2", "v3")
shares = st.lists(st.integers(0, 10), min_size=3, max_size=3).filter(any)
requests = st.builds(
    ask,
    st.text(min_size=1, max_size=8),
    st.sampled_from([FAMILY, MAIL, FAMILY._replace(tenant="a b")]),
    min_revision=st.sampled_from([0, 1, 3, 4, 99, -1]),
    consistency=st.sampled_from([0, 1, 2, 99]),
    epoch=st.sampled_from(["", EPOCH, "another", "x" * 37]),
)
batches = st.builds(
    lambda selections, **more: pb.BatchSelectRequest(selections=selections, **more),
    st.lists(
        st.builds(one, st.text(min_size=1, max_size=4), st.sampled_from([FAMILY, MAIL, MAIL._replace(env="")])),
        max_size=5,
    ),
    min_revision=st.sampled_from([0, 3, 99]),
    consistency=st.sampled_from([0, 2]),
)


@settings(deadline=None, max_examples=80)
@given(
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.none() | shares,
    st.sampled_from([(), ("v3",), ("v2", "v1")]),
    st.lists(requests | batches, min_size=1, max_size=4),
    st.integers(0, 100),
)
def test_both_ways_answer_the_same_bytes_and_count_the_same(
    active: tuple[bool, ...],
    weights: list[int] | None,
    fallbacks: tuple[str, ...],
    asked: list[pb.SelectRequest | pb.BatchSelectRequest],
    pause: int,
) -> None:
    async def run(way: Callable[[World], Callable[[Any], Awaitable[Ended]]]) -> Any:
        world = World()
        for version, is_active in zip(VERSIONS, active, strict=True):
            world.store.put(FAMILY._replace(version=version), active=is_active)
        if weights:
            total = sum(weights)
            points = [weight * 10_000 // total for weight in weights]
            points[weights.index(max(weights))] += 10_000 - sum(points)
            world.store.divide(FAMILY, *zip(VERSIONS, points, strict=True), fallbacks=fallbacks)
        ended = []
        for request in asked:
            ended.append(await way(world)(request))
            # In whole milliseconds, which the fast path says, and a float can.
            world.now.advance(pause / 8)
        return ended, world.counted()

    assert asyncio.run(run(lambda world: world.by_fast_path)) == asyncio.run(run(lambda world: world.by_chain))
