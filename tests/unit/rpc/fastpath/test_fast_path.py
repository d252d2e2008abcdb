"""The fast path answers from the local cache as the interceptor chain would."""

import inspect
from collections.abc import Callable
from itertools import product
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_to_bytes, key_to_message
from pointsman_server.domain.errors import Overloaded, PointsmanError
from pointsman_server.domain.identity import Credential, Identity, Scope
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.local_lookup import LocalLookup
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc import SERVICE, access_log, convert
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.fastpath.call_ends import CallEnds
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.fastpath.fast_path import DECLINED, Declined, FastPath
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.telemetry.metrics import Metrics
from tests.support.fakes import BIRTH, EPOCH, ManualClock, MemoryCache, MemoryStore

CALLER = Identity("key:reader", Credential.API_KEY)
CALL = {"grpc_type": "unary", "grpc_service": SERVICE}
K1, K2, K3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
TTL = 10.0


class Door:
    """Guards that admit or reject every call, and record the tenants and scopes of each."""

    def __init__(self) -> None:
        self.open = True
        self.admission = Admission()
        self.asked: list[tuple[list[str], list[Scope]]] = []

    def let_in(self, _metadata: Any, tenants: Any, scopes: Any) -> Identity | None:
        self.asked.append((list(tenants), list(scopes)))
        return CALLER if self.open else None


class Context:
    """Stands for the context of a call."""

    def invocation_metadata(self) -> Any:
        return (("x-request-id", "mine"),)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return 60.0


CONTEXT = Context()


class World:
    """A local cache, the resolver as the chain asks it, and the fast path."""

    def __init__(self) -> None:
        self.now = ManualClock()
        self.epoch = EPOCH
        self.local = LocalCache(size=100, ttl=TTL, negative_ttl=TTL, now=self.now)
        self.local.start_over(0)
        self.metrics = Metrics()
        self.counters = FastPathCounters(self.metrics, SERVICE)
        self.door = Door()
        self.reads = ReadCounts()
        self.resolver = Resolver(MemoryStore(), MemoryCache(self.now), self.local, observer=self.metrics, now=self.now)
        self.path = self.make_path()

    def make_path(self, sample: float = 0.0) -> FastPath:
        return FastPath(
            self.local,
            self.resolver,
            cast("Guards", self.door),
            CallEnds(self.counters, AccessLog(sample)),
            epoch=lambda: self.epoch,
            deadline=5.0,
            reads=self.reads,
            now=self.now,
        )

    def put(self, key: RouteKey, as_of: int, *, active: bool = True, url: str = "https://a.internal") -> None:
        route = Route(key, url, active, {"tier": "gold"}, as_of, BIRTH, BIRTH)
        self.local.put(Snapshot(key, route, as_of, EPOCH), self.now())

    def put_absence(self, key: RouteKey, as_of: int) -> None:
        self.local.put(Snapshot(key, None, as_of, EPOCH), self.now())

    def serve(self, key: RouteKey = K1, **more: Any) -> bytes | Refusal | Declined | None:
        """Return what the fast path says at once, or None when there is something to wait for."""
        outcome = self.path.resolve(pb.ResolveRequest(key=key_to_message(key), **more).SerializeToString(), CONTEXT)
        if inspect.iscoroutine(outcome):
            outcome.close()
            return None
        return cast("bytes | Refusal | Declined", outcome)

    def resolve(self, key: RouteKey = K1, **more: Any) -> pb.ResolveResponse | None:
        """Return the response of the fast path if it answers at once with a route, else None."""
        outcome = self.serve(key, **more)
        return pb.ResolveResponse.FromString(outcome) if isinstance(outcome, bytes) else None

    def serve_batch(self, *keys: RouteKey, **more: Any) -> bytes | Refusal | Declined:
        request = pb.BatchResolveRequest(keys=map(key_to_message, keys), **more)
        return self.path.batch_resolve(request.SerializeToString(), CONTEXT)

    def batch(self, *keys: RouteKey, **more: Any) -> pb.BatchResolveResponse | None:
        outcome = self.serve_batch(*keys, **more)
        return pb.BatchResolveResponse.FromString(outcome) if isinstance(outcome, bytes) else None

    def chain(self, key: RouteKey = K1, min_revision: int = 0) -> pb.ResolveResponse | PointsmanError | None:
        """Return what the chain answers from the local cache, or None for a miss."""
        answer = self.resolver.resolve_locally(key, min_revision)
        try:
            return convert.resolve_response(answer) if answer else None
        except PointsmanError as error:
            return error

    def value(self, name: str, **labels: str) -> float:
        self.counters.flush()
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def world() -> World:
    return World()


def test_a_key_that_is_not_held_waits_and_a_batch_with_it_is_declined(world: World) -> None:
    world.put(K2, 5)
    held = world.local.find(key_to_bytes(K2))
    assert world.serve() is None
    assert world.serve_batch(K2, K1) == Declined(LocalLookup(0, world.now(), (held, None)))


def test_a_key_that_is_held_is_answered_as_the_chain_does(world: World) -> None:
    world.put(K1, 5)
    world.now.advance(1.25)

    assert world.resolve() == world.chain()
    answer = world.resolve()
    assert answer
    assert (answer.route.url, answer.provenance.age.ToMilliseconds()) == ("https://a.internal", 1250)
    assert (answer.provenance.as_of_revision, answer.provenance.epoch) == (5, EPOCH)


@pytest.mark.parametrize(("as_of", "epoch"), [(0, ""), (0, EPOCH), (127, ""), (128, "x" * 200), (2**63 - 1, EPOCH)])
def test_the_provenance_is_that_of_the_chain(world: World, as_of: int, epoch: str) -> None:
    world.local.put(Snapshot(K1, Route(K1, "https://a", True, {}, 1, BIRTH, BIRTH), as_of, epoch), world.now())
    assert world.resolve() == world.chain()
    assert world.resolve()


def test_what_becomes_of_the_route_is_seen_at_once(world: World) -> None:
    world.put(K1, 5)
    assert world.resolve()

    world.put(K1, 6, url="https://b.internal")
    answer = world.resolve()
    assert answer
    assert (answer.route.url, answer.provenance.as_of_revision) == ("https://b.internal", 6)

    world.put(K1, 7, active=False)
    assert world.resolve() is None
    world.put(K1, 8)
    assert world.resolve()
    world.put_absence(K1, 9)
    assert world.resolve() is None


def test_what_is_held_no_longer_or_too_long_waits(world: World) -> None:
    world.put(K1, 5)
    world.now.advance(TTL)
    assert world.resolve() is None

    world.put(K1, 5)
    assert world.resolve()
    world.local.start_over(5)
    assert world.resolve() is None


def test_a_change_that_the_feed_tells_is_answered(world: World) -> None:
    world.put(K1, 5)
    assert world.resolve()

    world.local.observe(Snapshot(K1, Route(K1, "https://new", True, {}, 9, BIRTH, BIRTH), 9, EPOCH))

    answer = world.resolve()
    assert answer
    assert answer.route.url == "https://new"


def test_the_longest_key_is_answered_too(world: World) -> None:
    longest = RouteKey(*(letter * 63 for letter in "abcd"))
    world.put(longest, 5)

    assert world.resolve(longest) == world.chain(longest)
    assert world.batch(longest, longest)


# Request fields besides the key


def test_an_answer_is_never_from_before_min_revision(world: World) -> None:
    world.put(K1, 5)

    assert world.resolve(min_revision=5) == world.chain(min_revision=5)
    assert world.serve(min_revision=6) is None

    world.local.advance(8)
    answer = world.resolve(min_revision=7)
    assert answer == world.chain(min_revision=7)
    assert answer
    assert answer.provenance.as_of_revision == 8


def test_what_the_feed_does_not_track_is_no_newer_than_it_was(world: World) -> None:
    world.local.start_over(6)
    world.put(K1, 5)
    world.local.advance(8)

    assert world.resolve()
    assert world.resolve(min_revision=7) is None


def test_a_token_of_another_epoch_is_declined_and_without_a_revision_asks_for_nothing(world: World) -> None:
    world.put(K1, 5)

    assert world.resolve(min_revision=1, epoch=EPOCH)
    assert (
        world.serve(min_revision=1, epoch="another")
        == world.serve_batch(K1, min_revision=1, epoch="another")
        == DECLINED
    )
    assert world.resolve(epoch="another") == world.resolve()


@pytest.mark.parametrize(
    "more",
    [
        {"consistency": pb.CONSISTENCY_FULLY_CONSISTENT, "min_revision": 1},
        {"consistency": 99},
        {"min_revision": -1},
        {"epoch": "x" * 37},
        {"epoch": "x" * 1000},
    ],
)
def test_what_is_unusual_or_invalid_is_declined(world: World, more: dict[str, Any]) -> None:
    world.put(K1, 5)
    assert world.serve(**more) == world.serve_batch(K1, **more) == DECLINED
    assert world.resolve(consistency=pb.CONSISTENCY_MINIMIZE_LATENCY)


@pytest.mark.parametrize(
    "tail", [b"\x0a\x02\x0a\x00", b"\x10", b"\xff\xff\xff", b"\x0a\x7f", b"\x10\x01\x0a\x02\x0a\x00"]
)
def test_bytes_behind_the_key_that_are_no_terms_are_declined(world: World, tail: bytes) -> None:
    world.put(K1, 5)
    request = pb.ResolveRequest(key=key_to_message(K1)).SerializeToString()

    assert world.path.resolve(request + tail, CONTEXT) == DECLINED


def test_a_caller_that_is_not_let_in_is_declined_with_what_was_found(world: World) -> None:
    world.put(K1, 5)
    world.door.open = False
    world.now.advance(1)

    hit = world.local.find(key_to_bytes(K1))
    assert world.serve() == Declined(LocalLookup(0, world.now(), (hit,)))
    assert world.serve_batch(K1, K1) == Declined(LocalLookup(0, world.now(), (hit, hit)))
    assert world.serve(K2) == Declined(LocalLookup(0, world.now(), (None,)))
    assert world.serve(consistency=pb.CONSISTENCY_FULLY_CONSISTENT) == DECLINED
    scope = Scope("team-a", "prod")
    assert world.door.asked == [(["team-a"], [scope]), (["team-a"] * 2, [scope]), *[(["team-a"], [scope])] * 2]
    assert world.value("pointsman_cache_lookups_total", layer="local", outcome="hit") == 0
    assert world.value("grpc_server_started_total", **CALL, grpc_method="Resolve") == 0


@pytest.mark.parametrize(("active", "reason"), [(False, "inactive"), (None, "absent")])
def test_a_route_that_is_inactive_or_absent_is_refused_with_the_details_of_the_chain(
    world: World, active: bool | None, reason: str
) -> None:
    if active is None:
        world.put_absence(K1, 5)
    else:
        world.put(K1, 5, active=active)
    error = world.chain()
    assert isinstance(error, PointsmanError)

    assert world.serve() == Refusal.of_error(error, "mine")
    assert world.value("pointsman_resolve_requests_total", outcome=reason) == 1
    assert world.value("grpc_server_handled_total", **CALL, grpc_method="Resolve", grpc_code="NotFound") == 1
    assert world.value("grpc_server_started_total", **CALL, grpc_method="Resolve") == 1


def test_answers_are_in_the_access_log_with_the_facts_of_the_call(world: World) -> None:
    world.put(K1, 5)
    world.put_absence(K2, 5)
    world.path = world.make_path(sample=1.0)
    with capture_logs() as lines:
        world.serve()
        world.serve_batch(K1)
        world.serve(K2)
    assert [(line["method"], line["code"]) for line in lines] == [
        ("Resolve", "OK"),
        ("BatchResolve", "OK"),
        ("Resolve", "NOT_FOUND"),
    ]
    assert {(line["event"], line["peer"], line["request_id"]) for line in lines} == {("call", CONTEXT.peer(), "mine")}
    assert all(0 <= line["milliseconds"] < 1000 for line in lines)


def test_without_a_sample_answers_are_not_in_the_access_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log.log, "is_enabled_for", lambda _level: False)
    world.put(K1, 5)
    world.path = world.make_path()
    with capture_logs() as lines:
        assert world.resolve()
    assert lines == []


# Batches


def test_a_batch_is_answered_key_by_key_as_the_chain_does(world: World) -> None:
    other = K2._replace(tenant="team-b")
    world.put(K1, 5)
    world.put(other, 6, active=False)
    world.put_absence(K3, 7)
    world.now.advance(0.5)

    answer = world.batch(K1, other, K3, K1)

    assert answer
    expected = [convert.batch_result(key, world.resolver.resolve_locally(key)) for key in (K1, other, K3, K1)]  # type: ignore[arg-type]
    assert list(answer.results) == expected
    assert world.door.asked[-1] == (
        ["team-a", "team-b", "team-a", "team-a"],
        [Scope("team-a", "prod"), Scope("team-b", "prod")],
    )


def test_a_batch_with_a_key_that_is_not_held_is_declined(world: World) -> None:
    world.put(K1, 5)
    assert world.batch(K1, K2) is None
    assert world.batch() is None
    assert world.batch(*[K1] * 1001) is None
    assert world.batch(*[K1] * 1000)


def test_a_batch_beyond_the_bound_is_refused_as_the_chain_refuses_it(world: World) -> None:
    world.put(K1, 5)
    request = pb.BatchResolveRequest(keys=[key_to_message(K1)] * 3).SerializeToString()
    asked: list[int] = []

    def admit(routes: int) -> None:
        asked.append(routes)
        raise Overloaded("bulk_routes")

    refusal = world.path.batch_resolve(request, CONTEXT, admit)

    assert refusal == Refusal.of_error(Overloaded("bulk_routes"), "mine")
    assert asked == [3]
    method = CALL | {"grpc_method": "BatchResolve"}
    assert world.value("grpc_server_handled_total", **method, grpc_code="ResourceExhausted") == 1
    assert world.value("grpc_server_started_total", **method) == 1
    assert world.value("grpc_server_msg_sent_total", **method) == 0


def test_a_batch_that_asks_for_a_newer_revision_than_is_held_is_declined(world: World) -> None:
    world.put(K1, 5)
    world.put(K2, 7)
    held = [world.local.find(key_to_bytes(key)) for key in (K1, K2)]
    assert world.batch(K1, K2, min_revision=5)
    assert world.serve_batch(K1, K2, min_revision=6) == Declined(LocalLookup(6, world.now(), tuple(held)))


# Bounds and counts


def test_what_is_remembered_is_bounded(world: World) -> None:
    world.put(K3, 5)
    for number in range(20_000):
        world.resolve(K3, min_revision=1, epoch=f"e{number}")
    assert len(world.path._terms._known) == 10_000


def test_answers_are_counted_as_by_the_chain(world: World) -> None:
    world.put(K1, 5)
    world.put_absence(K3, 5)
    world.resolve()
    world.resolve()
    world.batch(K1, K3, K1)

    value, call = world.value, CALL
    assert value("grpc_server_handled_total", **call, grpc_method="Resolve", grpc_code="OK") == 2
    assert value("grpc_server_started_total", **call, grpc_method="BatchResolve") == 1
    assert value("grpc_server_handling_seconds_count", **call, grpc_method="Resolve") == 2
    assert value("pointsman_resolve_requests_total", outcome="active") == 4
    assert value("pointsman_resolve_requests_total", outcome="absent") == 1
    assert value("pointsman_resolve_seconds_count", source="LOCAL") == 5
    assert value("pointsman_cache_lookups_total", layer="local", outcome="hit") == 4
    assert value("pointsman_cache_lookups_total", layer="local", outcome="negative") == 1


# Histories: the fast path agrees with the chain


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from([K1, K2]), st.integers(1, 30), st.booleans()),
        st.tuples(st.just("absent"), st.sampled_from([K1, K2]), st.integers(1, 30)),
        st.tuples(st.just("observe"), st.sampled_from([K1, K2]), st.integers(1, 30), st.booleans()),
        st.tuples(st.just("advance"), st.integers(1, 30)),
        st.tuples(
            st.just("confirm"),
        ),
        st.tuples(st.just("wait"), st.floats(0, TTL)),
        st.tuples(st.just("start over"), st.integers(0, 30)),
    ),
    max_size=25,
)


def observe(world: World, key: RouteKey, revision: int, active: bool) -> None:
    route = Route(key, f"https://r{revision}", active, {}, revision, BIRTH, BIRTH)
    world.local.observe(Snapshot(key, route, revision, EPOCH))


DEEDS: dict[str, Callable[..., object]] = {
    "put": lambda world, key, revision, active: world.put(key, revision, active=active),
    "absent": World.put_absence,
    "observe": observe,
    "advance": lambda world, revision: world.local.advance(revision),
    "confirm": lambda world: world.local.confirm(world.now()),
    "wait": lambda world, seconds: world.now.advance(seconds),
    "start over": lambda world, revision: world.local.start_over(revision),
}


@settings(max_examples=400, deadline=None)
@given(steps, st.integers(0, 30))
def test_the_fast_path_answers_as_the_chain_would(history: list[tuple[Any, ...]], floor: int) -> None:
    world = World()
    for deed, *details in history:
        DEEDS[deed](world, *details)
        for key, min_revision in product((K1, K2), (0, floor)):
            expected = world.chain(key, min_revision)
            if isinstance(expected, PointsmanError):
                refusal = Refusal.of_error(expected, "mine")
                assert world.serve(key, min_revision=min_revision) == refusal
                continue
            if expected is not None:
                # The fast path says milliseconds, and no more.
                expected.provenance.age.FromMilliseconds(expected.provenance.age.ToMilliseconds())
            assert world.resolve(key, min_revision=min_revision) == expected


def test_reads_of_routes_are_counted_by_caller_and_those_of_absent_keys_are_not(world: World) -> None:
    world.put(K1, 5)
    world.put(K2, 5, active=False)
    world.put_absence(K3, 5)

    for key in (K1, K1, K2, K3):
        world.serve(key)
    world.serve_batch(K1, K3, K2)
    world.serve_batch(K1, K2)

    assert world.reads.take() == {CALLER.subject: {key_to_bytes(K1): 4, key_to_bytes(K2): 3}}


def test_a_call_that_is_not_let_in_is_not_counted(world: World) -> None:
    world.put(K1, 5)
    world.door.open = False

    world.serve(K1)
    world.serve_batch(K1)

    assert world.reads.take() == {}


def test_a_call_is_counted_and_logged(world: World) -> None:
    world.put(K1, 5)
    world.path = world.make_path(sample=1.0)
    with capture_logs() as logs:
        world.serve(K1)

    assert [line["event"] for line in logs] == ["call"]
    assert world.reads.take() == {CALLER.subject: {key_to_bytes(K1): 1}}
