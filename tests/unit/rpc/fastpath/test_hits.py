"""The short way answers as the long way would, or not at all."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_to_message
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc import SERVICE, convert
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.fastpath.hits import WarmAnswers
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.telemetry.metrics import Metrics
from tests.support.fakes import BIRTH, EPOCH, ManualClock, MemoryCache, MemoryStore

K1, K2, K3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
TTL = 10.0


class Door:
    """Guards that let in, or not, and remember whom they were asked about."""

    def __init__(self) -> None:
        self.open = True
        self.asked: list[tuple[list[str], list[Scope]]] = []

    def let_in(self, _metadata: Any, tenants: Any, scopes: Any) -> bool:
        self.asked.append((list(tenants), list(scopes)))
        return self.open


class World:
    """A local cache, the long way, and the short way."""

    def __init__(self) -> None:
        self.now = ManualClock()
        self.epoch = EPOCH
        self.local = LocalCache(size=100, ttl=TTL, negative_ttl=TTL, now=self.now)
        self.local.start_over(0)
        self.metrics = Metrics()
        self.tally = FastPathCounters(self.metrics, SERVICE)
        self.door = Door()
        self.resolver = Resolver(MemoryStore(), MemoryCache(self.now), self.local, observer=self.metrics, now=self.now)
        self.warm = WarmAnswers(
            self.local,
            self.door,  # type: ignore[arg-type] # stands in
            epoch=lambda: self.epoch,
            tally=self.tally,
        )

    def put(self, key: RouteKey, as_of: int, *, active: bool = True, url: str = "https://a.internal") -> None:
        route = Route(key, url, active, {"tier": "gold"}, as_of, BIRTH, BIRTH)
        self.local.put(Snapshot(key, route, as_of, EPOCH), self.now())

    def put_absence(self, key: RouteKey, as_of: int) -> None:
        self.local.put(Snapshot(key, None, as_of, EPOCH), self.now())

    def resolve(self, key: RouteKey = K1, **more: Any) -> pb.ResolveResponse | None:
        request = pb.ResolveRequest(key=key_to_message(key), **more)
        answer = self.warm.resolve(request.SerializeToString(), lambda: ())
        return None if answer is None else pb.ResolveResponse.FromString(answer)

    def batch(self, *keys: RouteKey, **more: Any) -> pb.BatchResolveResponse | None:
        request = pb.BatchResolveRequest(keys=map(key_to_message, keys), **more)
        answer = self.warm.batch_resolve(request.SerializeToString(), lambda: ())
        return None if answer is None else pb.BatchResolveResponse.FromString(answer)

    def long(self, key: RouteKey = K1, min_revision: int = 0) -> pb.ResolveResponse | None:
        """What the long way says of a key that the local cache answers; None for what it would not, or refuses."""
        near = self.resolver.near(key, min_revision)
        try:
            return convert.resolve_response(near) if near else None
        except PointsmanError:
            return None


@pytest.fixture
def world() -> World:
    return World()


def test_a_key_that_is_not_held_goes_the_long_way(world: World) -> None:
    world.put(K2, 5)
    assert world.resolve() is None
    assert world.batch(K2, K1) is None


def test_a_key_that_is_held_is_answered_as_the_long_way_does(world: World) -> None:
    world.put(K1, 5)
    world.now.advance(1.25)

    assert world.resolve() == world.long()
    answer = world.resolve()
    assert answer
    assert (answer.route.url, answer.provenance.age.ToMilliseconds()) == ("https://a.internal", 1250)
    assert (answer.provenance.as_of_revision, answer.provenance.epoch) == (5, EPOCH)


@pytest.mark.parametrize(("as_of", "epoch"), [(0, ""), (0, EPOCH), (127, ""), (128, "x" * 200), (2**63 - 1, EPOCH)])
def test_the_provenance_is_that_of_the_long_way(world: World, as_of: int, epoch: str) -> None:
    world.local.put(Snapshot(K1, Route(K1, "https://a", True, {}, 1, BIRTH, BIRTH), as_of, epoch), world.now())
    assert world.resolve() == world.long()
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


def test_what_is_held_no_longer_or_too_long_goes_the_long_way(world: World) -> None:
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

    assert world.resolve(longest) == world.long(longest)
    assert world.batch(longest, longest)


# What is asked beyond the key


def test_an_answer_is_never_from_before_min_revision(world: World) -> None:
    world.put(K1, 5)

    assert world.resolve(min_revision=5) == world.long(min_revision=5)
    assert world.resolve(min_revision=6) is None

    world.local.advance(8)
    answer = world.resolve(min_revision=7)
    assert answer == world.long(min_revision=7)
    assert answer
    assert answer.provenance.as_of_revision == 8


def test_what_the_feed_does_not_track_is_no_newer_than_it_was(world: World) -> None:
    world.local.start_over(6)
    world.put(K1, 5)
    world.local.advance(8)

    assert world.resolve()
    assert world.resolve(min_revision=7) is None


def test_a_token_of_another_epoch_goes_the_long_way_and_without_a_revision_asks_for_nothing(world: World) -> None:
    world.put(K1, 5)

    assert world.resolve(min_revision=1, epoch=EPOCH)
    assert world.resolve(min_revision=1, epoch="another") is None
    assert world.resolve(epoch="another") == world.resolve()


@pytest.mark.parametrize(
    "more",
    [
        {"consistency": pb.CONSISTENCY_FULLY_CONSISTENT},
        {"consistency": 99},
        {"min_revision": -1},
        {"epoch": "x" * 37},
        {"epoch": "x" * 1000},
    ],
)
def test_whatever_is_unusual_or_invalid_goes_the_long_way(world: World, more: dict[str, Any]) -> None:
    world.put(K1, 5)
    assert world.resolve(**more) is None
    assert world.batch(K1, **more) is None
    assert world.resolve(consistency=pb.CONSISTENCY_MINIMIZE_LATENCY)


@pytest.mark.parametrize(
    "tail", [b"\x0a\x02\x0a\x00", b"\x10", b"\xff\xff\xff", b"\x0a\x7f", b"\x10\x01\x0a\x02\x0a\x00"]
)
def test_bytes_behind_the_key_that_are_no_terms_go_the_long_way(world: World, tail: bytes) -> None:
    world.put(K1, 5)
    request = pb.ResolveRequest(key=key_to_message(K1)).SerializeToString()

    assert world.warm.resolve(request + tail, lambda: ()) is None


def test_who_is_not_let_in_goes_the_long_way_and_is_asked_about_the_scope(world: World) -> None:
    world.put(K1, 5)
    world.door.open = False

    assert world.resolve() is None
    assert world.door.asked == [(["team-a"], [Scope("team-a", "prod")])]


# Batches


def test_a_batch_is_answered_key_by_key_as_the_long_way_does(world: World) -> None:
    other = K2._replace(tenant="team-b")
    world.put(K1, 5)
    world.put(other, 6, active=False)
    world.put_absence(K3, 7)
    world.now.advance(0.5)

    answer = world.batch(K1, other, K3, K1)

    assert answer
    expected = [convert.batch_result(key, world.resolver.near(key)) for key in (K1, other, K3, K1)]  # type: ignore[arg-type]
    assert list(answer.results) == expected
    assert world.door.asked[-1] == (
        ["team-a", "team-b", "team-a", "team-a"],
        [Scope("team-a", "prod"), Scope("team-b", "prod")],
    )


def test_a_batch_with_a_key_that_is_not_held_goes_the_long_way(world: World) -> None:
    world.put(K1, 5)
    assert world.batch(K1, K2) is None
    assert world.batch() is None
    assert world.batch(*[K1] * 1001) is None
    assert world.batch(*[K1] * 1000)


def test_a_batch_that_is_too_much_now_goes_the_long_way(world: World) -> None:
    world.put(K1, 5)
    request = pb.BatchResolveRequest(keys=[key_to_message(K1)] * 3).SerializeToString()
    asked: list[int] = []

    assert world.warm.batch_resolve(request, lambda: (), lambda routes: bool(asked.append(routes))) is None
    assert asked == [3]


# Bounds and counts


def test_what_is_remembered_is_bounded(world: World) -> None:
    world.put(K3, 5)
    for number in range(20_000):
        world.resolve(K3, min_revision=1, epoch=f"e{number}")
    assert len(world.warm._terms) <= 10_000


def test_answers_are_counted_as_on_the_long_way(world: World) -> None:
    world.put(K1, 5)
    world.put_absence(K3, 5)
    world.resolve()
    world.resolve()
    world.batch(K1, K3, K1)

    world.tally.settle()
    world.tally.settle()

    def value(name: str, **labels: str) -> float | None:
        return world.metrics.registry.get_sample_value(name, labels)

    call = {"grpc_type": "unary", "grpc_service": SERVICE}
    assert value("grpc_server_handled_total", **call, grpc_method="Resolve", grpc_code="OK") == 2
    assert value("grpc_server_started_total", **call, grpc_method="BatchResolve") == 1
    assert value("grpc_server_handling_seconds_count", **call, grpc_method="Resolve") == 2
    assert value("pointsman_resolve_requests_total", outcome="active") == 4
    assert value("pointsman_resolve_requests_total", outcome="absent") == 1
    assert value("pointsman_resolve_seconds_count", source="LOCAL") == 5
    assert value("pointsman_cache_lookups_total", layer="local", outcome="hit") == 4
    assert value("pointsman_cache_lookups_total", layer="local", outcome="negative") == 1


# Whatever happens, in whatever order: the two ways agree


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
def test_the_short_way_says_what_the_long_way_would(history: list[tuple[Any, ...]], floor: int) -> None:
    world = World()
    for deed, *details in history:
        DEEDS[deed](world, *details)
        for key, min_revision in product((K1, K2), (0, floor)):
            long = world.long(key, min_revision)
            if long is not None:
                # The short way says no more than milliseconds.
                long.provenance.age.FromMilliseconds(long.provenance.age.ToMilliseconds())
            assert world.resolve(key, min_revision=min_revision) == long


def test_guards_without_anything_let_everybody_in_until_the_server_drains() -> None:
    admission = Admission()
    guards = Guards(admission)
    assert guards.let_in(lambda: None, ["team-a"], [Scope("team-a", "prod")])
    admission._closed = True
    assert not guards.let_in(lambda: None, ["team-a"], [Scope("team-a", "prod")])
