"""The read path: layers, provenance, races, bounds, failures."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.errors import (
    Overloaded,
    PointsmanError,
    RevisionNotReached,
    RouteInactive,
    RouteNotFound,
    StoreUnavailable,
)
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.cache import Lookup
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.local_lookup import MAX_AGE_SECONDS, LocalLookup
from pointsman_server.reads.resolver import Bounds, Resolver
from tests.support.fakes import EPOCH, ManualClock, MemoryCache, MemoryStore

K1, K2, K3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
NEW = "https://new.internal"


def keys(count: int) -> list[RouteKey]:
    return [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(count)]


class Observed:
    """Counts what was looked up."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def looked_up(self, layer: str, outcome: str) -> None:
        self.counts[layer, outcome] += 1


class World:
    """A resolver, and every layer below it."""

    def __init__(self, bounds: Bounds = Bounds(), patience: float = 1.0) -> None:  # noqa: B008 - frozen
        self.now = ManualClock()
        self.store = MemoryStore()
        self.cache = MemoryCache(self.now)
        self.local = LocalCache(size=1000, ttl=10.0, negative_ttl=5.0, now=self.now)
        self.observed = Observed()
        self.resolver = self.another(bounds, patience)

    def another(self, bounds: Bounds = Bounds(), patience: float = 1.0) -> Resolver:  # noqa: B008 - frozen
        return Resolver(
            self.store,
            self.cache,
            self.local,
            observer=self.observed,
            bounds=bounds,
            patience=patience,
            now=self.now,
        )

    async def resolve(self, key: RouteKey = K1, min_revision: int = 0) -> Answer:
        return await self.resolver.resolve(key, min_revision)

    def held(self, key: RouteKey = K1) -> Snapshot | None:
        found = self.local.look(key)
        return found[0] if found else None

    def drop_local(self) -> None:
        """Drop the entries, as if others had evicted them; known changes stay."""
        self.local.drop()

    def drop_changes(self) -> None:
        """Drop the entries and the known changes, as if others had evicted them."""
        self.local.start_over(0)

    def lookup(self, *keys: RouteKey, min_revision: int = 0) -> LocalLookup:
        """Look up as the fast path does before it declines a call."""
        return LocalLookup(min_revision, self.now(), [self.local.find(key_to_bytes(key), min_revision) for key in keys])

    async def shared(self, key: RouteKey = K1) -> Snapshot | None:
        entry = self.cache.entries.get(key)
        return entry.value if entry else None


@pytest.fixture
def world() -> World:
    return World()


# Layers


async def test_the_first_answer_comes_from_the_store_and_fills_both_caches(world: World) -> None:
    snapshot = Snapshot(K1, world.store.put(K1), 1)
    assert await world.resolve() == Answer(snapshot, Source.POSTGRES, 0.0)
    assert world.held() == await world.shared() == snapshot


async def test_the_second_answer_comes_from_the_local_cache(world: World) -> None:
    snapshot = Snapshot(K1, world.store.put(K1), 1)
    await world.resolve()
    assert await world.resolve() == Answer(snapshot, Source.LOCAL, 0.0)
    assert len(world.store.loads) == 1


async def test_without_a_local_entry_the_shared_cache_answers_and_fills_the_local_one(world: World) -> None:
    snapshot = Snapshot(K1, world.store.put(K1), 1)
    await world.resolve()
    world.drop_local()
    assert await world.resolve() == Answer(snapshot, Source.REDIS, 0.0)
    assert await world.resolve() == Answer(snapshot, Source.LOCAL, 0.0)
    assert len(world.store.loads) == 1


async def test_the_age_of_a_local_answer_counts_from_the_beginning_of_its_read(world: World) -> None:
    world.store.put(K1)
    world.store.after_read.close()
    asking = asyncio.create_task(world.resolve())
    await world.store.after_read.arrivals()
    world.now.advance(2.0)
    world.store.after_read.open()
    await asking
    world.now.advance(3.0)
    answer = await world.resolve()
    assert (answer.source, answer.age) == (Source.LOCAL, 5.0)


async def test_an_expired_local_entry_is_not_answered(world: World) -> None:
    world.store.put(K1)
    await world.resolve()
    world.now.advance(10.0)
    assert (await world.resolve()).source is Source.REDIS


async def test_absence_is_cached_in_both_layers_with_the_revision_of_its_snapshot(world: World) -> None:
    world.store.put(K2)
    assert await world.resolve() == Answer(Snapshot(K1, None, 1), Source.POSTGRES)
    assert (await world.resolve()).source is Source.LOCAL
    world.drop_local()
    assert await world.resolve() == Answer(Snapshot(K1, None, 1), Source.REDIS)
    assert len(world.store.loads) == 1


async def test_fully_consistent_reads_the_store_whatever_the_caches_hold(world: World) -> None:
    world.store.put(K1)
    await world.resolve()
    newer = Snapshot(K1, world.store.put(K1, NEW), 2)
    assert await world.resolver.resolve(K1, fully_consistent=True) == Answer(newer, Source.POSTGRES)
    assert world.held() == newer


async def test_resolve_locally_answers_from_the_local_cache_alone(world: World) -> None:
    world.store.put(K1)
    assert world.resolver.resolve_locally(K1) is None
    answer = await world.resolve()
    assert world.resolver.resolve_locally(K1) == Answer(answer.snapshot, Source.LOCAL, 0.0)
    assert world.resolver.resolve_locally(K1, min_revision=2) is None


async def test_every_look_into_a_cache_is_counted(world: World) -> None:
    world.store.put(K1)
    await world.resolve(K1)
    await world.resolve(K1)
    await world.resolve(K2)
    await world.resolve(K2)
    await world.resolve(K1, min_revision=1)
    world.drop_local()
    await world.resolve(K1)
    await world.resolve(K2)
    assert world.observed.counts == {
        ("local", "miss"): 4,
        ("local", "hit"): 2,
        ("local", "negative"): 1,
        ("redis", "miss"): 2,
        ("redis", "hit"): 1,
        ("redis", "negative"): 1,
    }


# What an answer says


async def test_an_active_route_is_the_answer(world: World) -> None:
    route = world.store.put(K1)
    assert (await world.resolve()).route() == route


async def test_an_inactive_route_is_refused_with_the_revision_as_of_which_it_is_so(world: World) -> None:
    world.store.put(K1, active=False)
    world.store.put(K2)
    answer = await world.resolve()
    with pytest.raises(RouteInactive) as refused:
        answer.route()
    assert refused.value.metadata == {"key": str(K1), "revision": "2", "epoch": EPOCH}


async def test_an_absent_route_is_refused_with_the_revision_as_of_which_it_is_so(world: World) -> None:
    world.store.put(K2)
    answer = await world.resolve()
    with pytest.raises(RouteNotFound) as refused:
        answer.route()
    assert refused.value.metadata == {"key": str(K1), "revision": "1", "epoch": EPOCH}


# min_revision

Seed = Callable[[World], Snapshot]


def seed_route(world: World) -> Snapshot:
    return Snapshot(K1, world.store.put(K1), 1)


def seed_absence(world: World) -> Snapshot:
    world.store.put(K2)
    return Snapshot(K1, None, 1)


either = pytest.mark.parametrize("seed", [seed_route, seed_absence], ids=["route", "absence"])


@either
async def test_min_revision_is_served_by_any_layer_that_is_at_it(world: World, seed: Seed) -> None:
    snapshot = seed(world)
    for source in (Source.POSTGRES, Source.LOCAL):
        assert await world.resolve(K1, 1) == Answer(snapshot, source)
    world.drop_local()
    assert await world.resolve(K1, 1) == Answer(snapshot, Source.REDIS)


@either
async def test_min_revision_skips_a_local_entry_that_is_older_for_a_shared_one_that_is_not(
    world: World, seed: Seed
) -> None:
    seed(world)
    await world.resolve()
    newer = Snapshot(K1, world.store.put(K1, NEW), 2)
    await world.cache.consume([newer])
    assert await world.resolve(K1, 2) == Answer(newer, Source.REDIS)
    assert world.held() == newer


@either
async def test_min_revision_skips_both_caches_that_are_older_and_leaves_them_the_newer_answer(
    world: World, seed: Seed
) -> None:
    seed(world)
    await world.resolve()
    newer = Snapshot(K1, world.store.put(K1, NEW), 2)
    assert await world.resolve(K1, 2) == Answer(newer, Source.POSTGRES)
    assert world.held() == await world.shared() == newer


@either
async def test_without_min_revision_the_older_entry_is_still_answered(world: World, seed: Seed) -> None:
    snapshot = seed(world)
    await world.resolve()
    world.store.put(K1, NEW)
    assert await world.resolve() == Answer(snapshot, Source.LOCAL)


async def test_a_load_that_is_too_old_for_one_waiter_is_repeated_for_it(world: World) -> None:
    """Two share a load; while it is under way, one of them has seen a newer revision elsewhere."""
    world.store.put(K1)
    world.store.after_read.close()
    one = asyncio.create_task(world.resolve(K1))
    await world.store.after_read.arrivals()
    world.store.put(K1, NEW)
    other = asyncio.create_task(world.resolve(K1, 2))
    await asyncio.sleep(0)
    world.store.after_read.open()
    assert (await one).snapshot.as_of == 1
    assert (await other).snapshot.as_of == 2


async def test_a_store_that_lags_is_asked_until_it_is_at_min_revision(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store.put(K1)
    pauses: list[float] = []
    yield_once = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            world.store.put(K2)
        await yield_once(0)

    monkeypatch.setattr("pointsman_server.reads.resolver.asyncio.sleep", sleep)
    assert (await world.resolve(K1, 2)).snapshot.as_of == 2
    assert len(pauses) == 3


@pytest.mark.parametrize("fully_consistent", [False, True])
async def test_a_min_revision_that_is_not_reached_within_patience_is_an_error_that_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch, fully_consistent: bool
) -> None:
    """Only the pauses between tries advance the clock."""
    world.store.put(K1)
    begun = world.now()
    yield_once = asyncio.sleep

    async def sleep(seconds: float) -> None:
        world.now.advance(seconds)
        await yield_once(0)

    monkeypatch.setattr("pointsman_server.reads.resolver.asyncio.sleep", sleep)
    with pytest.raises(RevisionNotReached) as refused:
        await world.resolver.resolve(K1, 9, fully_consistent=fully_consistent)
    assert refused.value.metadata == {"min_revision": "9", "revision": "1"}
    assert 0.5 < world.now() - begun <= 1.0
    assert len(world.store.loads) < 15  # with pauses that grow


# One load per key, bounds


async def test_a_thousand_concurrent_misses_of_one_key_are_one_load(world: World) -> None:
    world.store.put(K1)
    answers = await asyncio.gather(*(world.resolve() for _ in range(1000)))
    assert {answer.snapshot.as_of for answer in answers} == {1}
    assert world.store.loads == [[K1]]
    assert [keys for name, keys in world.cache.journal if name == "get"] == [[K1]]


async def test_misses_that_come_while_a_load_is_under_way_share_it(world: World) -> None:
    world.store.before_read.close()
    first = asyncio.create_task(world.resolve())
    await world.store.before_read.arrivals()
    rest = [asyncio.create_task(world.resolve()) for _ in range(100)]
    await asyncio.sleep(0)
    world.store.before_read.open()
    await asyncio.gather(first, *rest)
    assert world.store.loads == [[K1]]


async def test_different_misses_go_in_batches_and_never_exceed_the_bounds_and_the_rest_is_shed() -> None:
    world = World(Bounds(batch=10, concurrency=3, queue=50))
    world.store.before_read.close()
    asking = asyncio.create_task(world.resolver.resolve_many(keys(1000)))
    await world.store.before_read.arrivals(3)
    for _ in range(100):
        await asyncio.sleep(0)
    assert world.store.before_read.peak == 3
    assert all(len(load) <= 10 for load in world.store.loads)
    world.store.before_read.open()
    answers = await asking
    shed = [answer for answer in answers if isinstance(answer, PointsmanError)]
    assert {type(error) for error in shed} == {Overloaded}
    assert {error.metadata["limit"] for error in shed} == {"cache_loads", "store_loads"}
    assert len(answers) - len(shed) == 3 * 10 + 50
    assert world.store.before_read.peak == 3


async def test_four_times_as_many_keys_may_wait_for_the_shared_cache_as_for_the_store() -> None:
    world = World(Bounds(queue=3))
    results = await asyncio.gather(*map(world.resolver.load, keys(20)), return_exceptions=True)
    limits = [result.metadata["limit"] if isinstance(result, Overloaded) else "" for result in results]
    assert limits[12:] == ["cache_loads"] * 8
    assert "cache_loads" not in limits[:12]


async def test_after_shedding_the_same_keys_are_answered() -> None:
    world = World(Bounds(batch=10, concurrency=1, queue=10))
    first = await world.resolver.resolve_many(keys(100))
    assert any(isinstance(answer, Overloaded) for answer in first)
    for key in keys(100):
        assert isinstance(await world.resolve(key), Answer)


async def test_a_finished_load_leaves_nothing_behind(world: World) -> None:
    await world.resolver.resolve_many(keys(10))
    world.store.failure = StoreUnavailable()
    world.drop_local()
    world.cache.flush()
    await world.resolver.resolve_many(keys(10))
    assert world.resolver._loads == {}
    assert len(world.resolver._reservations) == 0


# Races with a write of this process

Late = Callable[[World], "asyncio.Task[Answer]"]


def by_a_miss(world: World) -> "asyncio.Task[Answer]":
    return asyncio.create_task(world.resolve())


def by_a_fully_consistent_read(world: World) -> "asyncio.Task[Answer]":
    return asyncio.create_task(world.resolver.resolve(K1, fully_consistent=True))


late = pytest.mark.parametrize("ask", [by_a_miss, by_a_fully_consistent_read])


async def load_late(world: World, ask: Late, *, evict: bool) -> Snapshot:
    """Load revision 1, apply a local write of revision 2 meanwhile, and only then complete the load."""
    world.cache.down = True
    world.store.put(K1)
    world.store.after_read.close()
    asking = ask(world)
    await world.store.after_read.arrivals()
    written = Snapshot(K1, world.store.put(K1, NEW), 2)
    world.resolver.apply_local_write([written])
    if evict:
        world.drop_changes()
    world.store.after_read.open()
    await asking
    return written


@late
async def test_what_was_written_is_never_replaced_by_a_load_that_began_before(world: World, ask: Late) -> None:
    written = await load_late(world, ask, evict=False)
    assert world.held() == written


@late
async def test_a_load_that_began_before_a_write_is_not_taken_over_even_when_the_written_entry_was_evicted(
    world: World, ask: Late
) -> None:
    """The local cache holds nothing newer that would reject it: only the reservation does."""
    written = await load_late(world, ask, evict=True)
    assert world.held() is None
    assert await world.resolve() == Answer(written, Source.POSTGRES)


@late
async def test_without_reservations_the_late_load_would_be_taken_over(world: World, ask: Late) -> None:
    """The race of the test above without reservations."""

    def apply_local_write(snapshots: Sequence[Snapshot]) -> None:
        for snapshot in snapshots:
            world.local.put(snapshot, world.now())

    world.resolver.apply_local_write = apply_local_write  # type: ignore[method-assign]
    await load_late(world, ask, evict=True)
    held = world.held()
    assert held
    assert held.as_of == 1


async def test_who_asks_after_a_write_does_not_join_a_load_that_began_before_it(world: World) -> None:
    world.cache.down = True
    world.store.put(K1)
    world.store.after_read.close()
    before = asyncio.create_task(world.resolve())
    await world.store.after_read.arrivals()
    written = Snapshot(K1, world.store.put(K1, NEW), 2)
    world.resolver.apply_local_write([written])
    world.drop_local()
    after = asyncio.create_task(world.resolve())
    await world.store.after_read.arrivals(2)
    world.store.after_read.open()
    assert (await before).snapshot.as_of == 1
    assert (await after).snapshot == written
    assert world.held() == written


async def test_what_was_written_is_answered_at_once_from_the_local_cache(world: World) -> None:
    written = Snapshot(K1, world.store.put(K1), 1)
    world.resolver.apply_local_write([written, Snapshot(K2, None, 1)])
    assert await world.resolve(K1) == Answer(written, Source.LOCAL)
    assert await world.resolve(K2) == Answer(Snapshot(K2, None, 1), Source.LOCAL)


async def test_a_load_of_another_key_is_taken_over_all_the_same(world: World) -> None:
    world.store.put(K2)
    world.store.after_read.close()
    asking = asyncio.create_task(world.resolve(K2))
    await world.store.after_read.arrivals()
    world.resolver.apply_local_write([Snapshot(K1, None, 1)])
    world.store.after_read.open()
    assert world.held(K2) is None
    assert (await asking).snapshot == world.held(K2)


async def test_a_late_load_does_not_fill_the_shared_cache_after_a_write(world: World) -> None:
    world.store.put(K1)
    world.store.after_read.close()
    asking = asyncio.create_task(world.resolve())
    await world.store.after_read.arrivals()
    written = Snapshot(K1, world.store.put(K1, NEW), 2)
    await world.cache.mark([K1], "writer")
    await world.cache.settle([written], "writer")
    world.cache.flush()
    world.store.after_read.open()
    await asking
    assert await world.shared() is None


# Failures


async def test_with_the_store_down_what_is_cached_keeps_coming_and_says_from_where(world: World) -> None:
    snapshot = Snapshot(K1, world.store.put(K1), 1)
    await world.resolve(K1)
    await world.resolve(K2)
    world.store.failure = StoreUnavailable()
    assert await world.resolve(K1) == Answer(snapshot, Source.LOCAL)
    world.drop_local()
    assert await world.resolve(K1) == Answer(snapshot, Source.REDIS)
    assert await world.resolve(K2) == Answer(Snapshot(K2, None, 1), Source.REDIS)


@pytest.mark.parametrize("failure", [StoreUnavailable(), Overloaded("store_connections")])
async def test_with_the_store_down_what_is_not_cached_is_an_error_and_comes_back_with_it(
    world: World, failure: PointsmanError
) -> None:
    world.store.put(K1)
    world.store.failure = failure
    with pytest.raises(type(failure)):
        await world.resolve()
    world.store.failure = None
    assert (await world.resolve()).snapshot.as_of == 1


async def test_with_the_store_down_a_newer_revision_than_cached_is_an_error_not_an_old_answer(world: World) -> None:
    world.store.put(K1)
    await world.resolve()
    world.store.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await world.resolve(K1, 2)


async def test_with_the_shared_cache_down_the_store_answers(world: World) -> None:
    world.cache.down = True
    world.store.put(K1)
    assert (await world.resolve()).source is Source.POSTGRES
    assert (await world.resolve()).source is Source.LOCAL


async def test_without_the_lease_of_the_shared_cache_it_is_not_filled(world: World) -> None:
    world.store.put(K1)
    await world.cache.get([K1], "another server")
    await world.resolve()
    assert await world.shared() is None
    assert "fill" not in [name for name, _ in world.cache.journal]


async def test_who_gives_up_takes_nothing_from_the_others(world: World) -> None:
    world.store.put(K1)
    world.store.before_read.close()
    impatient = asyncio.create_task(world.resolve())
    await world.store.before_read.arrivals()
    patient = asyncio.create_task(world.resolve())
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    world.store.before_read.open()
    assert (await patient).snapshot.as_of == 1
    assert impatient.cancelled()
    assert len(world.store.loads) == 1


async def test_a_failure_without_waiters_is_not_logged(world: World) -> None:
    noise: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
    world.store.before_read.close()
    world.store.failure = StoreUnavailable()
    asking = asyncio.create_task(world.resolve())
    await world.store.before_read.arrivals()
    tasks = list(world.resolver._tasks)
    assert tasks
    asking.cancel()
    await asyncio.wait([asking])
    world.store.before_read.open()
    await asyncio.wait(tasks)
    del asking, tasks
    await asyncio.sleep(0)
    assert noise == []


# Many keys


async def test_many_keys_are_answered_in_their_order_repeats_included(world: World) -> None:
    world.store.put(K1)
    world.store.put(K2)
    asked = [K2, K3, K1, K2, K2, K3]
    answers = await world.resolver.resolve_many(asked)
    assert [answer.snapshot.key for answer in answers if isinstance(answer, Answer)] == asked
    assert [bool(answer.snapshot.route) for answer in answers if isinstance(answer, Answer)] == [
        True,
        False,
        True,
        True,
        True,
        False,
    ]
    assert world.store.loads == [[K2, K3, K1]]


async def test_no_keys_no_answers(world: World) -> None:
    assert await world.resolver.resolve_many([]) == []


async def test_a_key_that_cannot_be_answered_has_its_error_in_its_place(world: World) -> None:
    world.store.put(K1)
    await world.resolve(K1)
    world.store.failure = StoreUnavailable()
    first, second, third = await world.resolver.resolve_many([K2, K1, K3])
    assert isinstance(second, Answer)
    assert isinstance(first, StoreUnavailable)
    assert isinstance(third, StoreUnavailable)


async def test_min_revision_and_consistency_hold_for_every_one_of_many_keys(world: World) -> None:
    world.store.put(K1)
    await world.resolver.resolve_many([K1, K2])
    world.store.put(K1, NEW)
    for options in ({"min_revision": 2}, {"fully_consistent": True}):
        answers = await world.another().resolve_many([K1, K2], **options)
        assert [answer.snapshot.as_of for answer in answers if isinstance(answer, Answer)] == [2, 2]


async def test_a_bug_is_no_answer_of_a_key_but_raised(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(world.cache, "get", broken)
    with pytest.raises(RuntimeError):
        await world.resolver.resolve_many([K1, K2])


# The feed


async def test_a_local_entry_that_the_feed_tracks_is_as_new_as_the_feed(world: World) -> None:
    await world.resolve()
    world.local.advance(50)

    answer = await world.resolve(min_revision=50)

    assert answer.source is Source.LOCAL
    assert answer.snapshot.as_of == 50
    assert world.observed.counts["local", "stale"] == 0


async def test_a_local_entry_is_no_newer_than_the_feed(world: World) -> None:
    await world.resolve()
    world.local.advance(50)

    with pytest.raises(RevisionNotReached):
        await impatient(world).resolve(K1, 51)


async def test_an_entry_from_before_the_feed_does_not_grow_with_it(world: World) -> None:
    world.local.start_over(50)
    world.local.put(Snapshot(K1, None, 7), world.now())
    world.local.advance(60)

    assert world.resolver.resolve_locally(K1, 8) is None
    assert world.resolver.resolve_locally(K1, 7) is not None


async def test_a_load_that_began_before_a_change_was_observed_is_not_taken_over(world: World) -> None:
    world.store.after_read.close()
    asking = asyncio.create_task(world.resolve())
    await world.store.after_read.arrivals()
    world.resolver.observe(Snapshot(K1, None, 9))
    world.drop_local()

    world.store.after_read.open()
    await asking

    assert world.held() is None


async def test_a_shared_value_older_than_a_known_change_is_not_answered(world: World) -> None:
    """The writer could not reach the shared cache, but the feed brought the change to this server."""
    await world.resolve()
    shared = await world.shared()
    world.store.revision = 9
    world.resolver.observe(Snapshot(K1, None, 9))
    world.drop_local()

    answer = await world.resolve()

    assert shared
    assert shared.as_of < 9
    assert answer.source is Source.POSTGRES
    assert answer.snapshot.as_of >= 9
    assert world.observed.counts["redis", "stale"] == 1


async def test_a_shared_value_that_is_as_new_as_the_last_known_change_is_answered(world: World) -> None:
    snapshot = Snapshot(K1, world.store.put(K1), 1)
    await world.resolve()
    world.drop_local()
    world.resolver.observe(snapshot)

    assert await world.resolve() == Answer(snapshot, Source.REDIS)
    assert world.local.changed(K1) == 1
    assert len(world.store.loads) == 1


async def test_a_route_that_the_shared_cache_returns_encoded_is_answered_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Snapshot(K1, world.store.put(K1), 1)

    async def get(asked: Sequence[RouteKey], _owner: str) -> list[Lookup]:
        return [Lookup(snapshot, encoded=b"encoded") for _ in asked]

    monkeypatch.setattr(world.cache, "get", get)
    assert (await world.resolve()).encoded == b"encoded"


def impatient(world: World) -> Resolver:
    """A resolver on the same layers that does not wait for revisions."""
    return world.another(patience=0)


async def test_a_load_older_than_a_local_entry_may_be_is_not_joined_but_waited_for(world: World) -> None:
    """Another process may have written, and answered, since it read."""
    world.store.put(K1)
    world.store.after_read.close()
    first = asyncio.create_task(world.resolve())
    await world.store.after_read.arrivals()
    world.store.put(K1, NEW)
    world.now.advance(1.5)
    second = asyncio.create_task(world.resolve())
    await asyncio.sleep(0)
    assert len(world.store.loads) == 1

    world.cache.flush()
    world.drop_local()
    world.store.after_read.open()

    assert (await first).route().url != NEW
    world.drop_local()
    assert (await second).route().url == NEW


# What a caller has already looked up


async def test_a_lookup_of_the_caller_is_used_and_counted_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answer(Snapshot(K1, world.store.put(K1), 1), Source.LOCAL)
    await world.resolver.resolve_many([K1, K2])
    lookup, one, none = world.lookup(K1, K2, K3), world.lookup(K1), world.lookup(K3)
    world.observed.counts.clear()
    looks: list[bytes] = []
    monkeypatch.setattr(world.local, "find", lambda encoded, _min_revision=0: looks.append(encoded))

    assert await world.resolver.resolve(K1, lookup=one) == answer
    assert world.observed.counts == {("local", "hit"): 1}
    first, second, third = await world.resolver.resolve_many([K1, K2, K3], lookup=lookup)
    assert (first, second) == (answer, Answer(Snapshot(K2, None, 1), Source.LOCAL))
    assert isinstance(third, Answer)
    assert third.source is Source.POSTGRES
    assert await world.resolver.resolve(K3, lookup=none) == Answer(third.snapshot, Source.REDIS)
    assert looks == []
    assert world.observed.counts["local", "hit"] == 2
    assert world.observed.counts["local", "negative"] == 1
    assert world.observed.counts["local", "miss"] == 2


async def test_the_keys_of_a_lookup_may_repeat(world: World) -> None:
    world.store.put(K1)
    await world.resolve(K1)
    answers = await world.resolver.resolve_many([K1, K2, K1], lookup=world.lookup(K1, K2, K1))
    assert [answer.source for answer in answers if isinstance(answer, Answer)] == [
        Source.LOCAL,
        Source.POSTGRES,
        Source.LOCAL,
    ]


async def test_a_lookup_with_another_number_of_keys_is_a_bug(world: World) -> None:
    with pytest.raises(ValueError, match="zip"):
        await world.resolver.resolve_many([K1, K2], lookup=world.lookup(K1))


async def test_a_lookup_of_an_older_revision_than_asked_for_is_stale(world: World) -> None:
    world.store.put(K1)
    await world.resolver.resolve_many([K1, K2])
    world.store.put(K1, NEW)
    one, both = world.lookup(K1, min_revision=2), world.lookup(K1, K2, min_revision=2)
    assert (await world.resolver.resolve(K1, 2, lookup=one)).snapshot.as_of == 2
    assert world.observed.counts["local", "stale"] == 1
    answers = await world.resolver.resolve_many([K1, K2], 2, lookup=both)
    assert [answer.snapshot.as_of for answer in answers if isinstance(answer, Answer)] == [2, 2]
    assert world.observed.counts["local", "stale"] == 3


@pytest.mark.parametrize(("min_revision", "seconds"), [(0, MAX_AGE_SECONDS * 1.5), (1, 0.0)])
async def test_an_old_lookup_or_one_with_another_min_revision_is_repeated(
    world: World, min_revision: int, seconds: float
) -> None:
    one, both = world.lookup(K1), world.lookup(K1, K2)
    world.resolver.apply_local_write([Snapshot(K1, world.store.put(K1), 1), Snapshot(K2, None, 1)])
    world.now.advance(seconds)
    assert (await world.resolver.resolve(K1, min_revision, lookup=one)).source is Source.LOCAL
    answers = await world.resolver.resolve_many([K1, K2], min_revision, lookup=both)
    assert [answer.source for answer in answers if isinstance(answer, Answer)] == [Source.LOCAL] * 2
    assert (await world.resolver.resolve(K1, fully_consistent=True, lookup=one)).source is Source.POSTGRES


# Many keys: what is held locally is not loaded


async def test_many_keys_that_are_held_locally_are_answered_from_there(world: World) -> None:
    world.store.put(K1)
    await world.resolver.resolve_many([K1, K2])
    world.store.failure = StoreUnavailable()
    world.cache.flush()
    answers = await world.resolver.resolve_many([K1, K2])
    assert [answer.source for answer in answers if isinstance(answer, Answer)] == [Source.LOCAL] * 2


async def test_many_fully_consistent_keys_are_read_in_the_store_and_not_looked_up(world: World) -> None:
    world.store.put(K1)
    await world.resolver.resolve_many([K1, K2])
    world.observed.counts.clear()
    answers = await world.resolver.resolve_many([K1, K2], fully_consistent=True)
    assert [answer.source for answer in answers if isinstance(answer, Answer)] == [Source.POSTGRES] * 2
    assert world.observed.counts == {}


# Loads beyond the local cache


async def test_a_load_from_the_store_is_cached_with_the_time_of_its_beginning(world: World) -> None:
    snapshot = Snapshot(K1, world.store.put(K1), 1)
    world.store.after_read.close()
    load = asyncio.create_task(world.resolver.load_from_store(K1))
    await world.store.after_read.arrivals()
    world.now.advance(2.0)
    world.store.after_read.open()
    assert await load == Answer(snapshot, Source.POSTGRES)
    assert world.resolver.resolve_locally(K1) == Answer(snapshot, Source.LOCAL, 2.0)
    assert len(world.resolver._reservations) == 0


async def test_a_load_from_the_store_that_fails_leaves_nothing(world: World) -> None:
    world.store.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await world.resolver.load_from_store(K1)
    assert world.held() is None
    assert len(world.resolver._reservations) == 0


async def test_a_load_from_the_store_that_began_before_a_write_is_answered_but_not_cached(world: World) -> None:
    world.store.put(K1)
    world.store.after_read.close()
    load = asyncio.create_task(world.resolver.load_from_store(K1))
    await world.store.after_read.arrivals()
    world.resolver.apply_local_write([Snapshot(K1, world.store.put(K1, NEW), 2)])
    world.drop_changes()
    world.store.after_read.open()
    assert (await load).snapshot.as_of == 1
    assert world.held() is None


async def test_a_waiter_that_needs_a_revision_gets_it_and_the_others_what_was_loaded(world: World) -> None:
    world.store.put(K1)
    await world.resolve()
    newer = Snapshot(K1, world.store.put(K1, NEW), 2)
    world.drop_local()
    first, second = await asyncio.gather(world.resolver.load(K1), world.resolver.load(K1, min_revision=2))
    assert (first.snapshot.as_of, first.source) == (1, Source.REDIS)
    assert second == Answer(newer, Source.POSTGRES)
    assert await world.shared() == newer


async def test_a_newer_read_continues_without_the_waiter_that_needed_it(world: World) -> None:
    world.store.put(K1)
    await world.resolve()
    newer = Snapshot(K1, world.store.put(K1, NEW), 2)
    world.drop_local()
    world.store.before_read.close()
    gone = asyncio.create_task(world.resolver.load(K1, min_revision=2))
    await world.store.before_read.arrivals()
    gone.cancel()
    await asyncio.wait([gone])
    world.store.before_read.open()
    await asyncio.gather(*world.resolver._tasks)
    assert gone.cancelled()
    assert await world.shared() == newer


async def test_a_newer_read_that_fails_without_its_waiter_is_no_error_of_the_event_loop(world: World) -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))

    async def fail() -> Answer:
        raise StoreUnavailable

    failing = world.resolver._run(fail())  # type: ignore[arg-type]
    await asyncio.wait({failing})
    del failing
    gc.collect()
    await asyncio.sleep(0)

    assert problems == []


async def test_a_waiter_that_needs_a_revision_that_is_not_reached_gets_the_error(world: World) -> None:
    world.store.put(K1)
    with pytest.raises(RevisionNotReached):
        await impatient(world).load(K1, min_revision=9)


async def test_a_key_that_never_changed_is_answered_as_of_revision_nought(world: World) -> None:
    """No read asks for a revision unless it says so."""
    resolver = impatient(world)
    assert await resolver.load(K1) == Answer(Snapshot(K1, None, 0), Source.POSTGRES)
    world.drop_local()
    world.cache.flush()
    assert (await resolver.resolve(K1)).snapshot.as_of == 0
    assert await resolver.resolve(K1) == resolver.resolve_locally(K1) == Answer(Snapshot(K1, None, 0), Source.LOCAL)
    assert (await resolver.resolve(K1, fully_consistent=True)).snapshot.as_of == 0
    assert [answer.snapshot.as_of for answer in await resolver.resolve_many([K1]) if isinstance(answer, Answer)] == [0]


async def test_a_load_of_just_the_age_of_a_local_entry_is_joined(world: World) -> None:
    world.store.before_read.close()
    first = asyncio.create_task(world.resolve())
    await world.store.before_read.arrivals()
    world.now.advance(1.0)
    second = asyncio.create_task(world.resolve())
    await asyncio.sleep(0)
    world.store.before_read.open()
    await asyncio.gather(first, second)
    assert world.store.loads == [[K1]]
    assert world.observed.counts == {("local", "miss"): 2, ("redis", "miss"): 1}


# Changes of which only the revision is known


async def test_superseded_keys_are_dropped_and_their_loads_cancelled(world: World) -> None:
    for key in (K1, K2, K3):
        world.store.put(key)
    await world.resolve(K3)
    world.store.after_read.close()
    load = asyncio.create_task(world.resolve(K1))
    from_store = asyncio.create_task(world.resolver.load_from_store(K2))
    await world.store.after_read.arrivals(2)
    world.store.put(K1, NEW)
    world.resolver.supersede([K2, K1, K3], [5, 4, 6])
    assert world.held(K3) is None
    assert [world.local.changed(key) for key in (K1, K2, K3)] == [4, 5, 6]

    world.drop_changes()
    again = asyncio.create_task(world.resolve(K1))
    await world.store.after_read.arrivals(3)
    world.store.after_read.open()
    assert (await load).snapshot.as_of == 3
    assert (await again).route().url == NEW
    await from_store
    held = world.held(K1)
    assert held
    assert held.as_of == 4
    assert world.held(K2) is None


async def test_superseding_needs_a_revision_for_each_key(world: World) -> None:
    with pytest.raises(ValueError, match="zip"):
        world.resolver.supersede([K1, K2], [1])


async def test_a_forgotten_load_is_neither_joined_nor_cached(world: World) -> None:
    world.store.put(K1)
    world.store.put(K2)
    world.store.after_read.close()
    load = asyncio.create_task(world.resolve(K1))
    from_store = asyncio.create_task(world.resolver.load_from_store(K2))
    await world.store.after_read.arrivals(2)
    world.resolver.forget()
    again = asyncio.create_task(world.resolve(K1))
    await world.store.after_read.arrivals(3)
    assert len(world.store.loads) == 3
    world.store.after_read.open()
    await asyncio.gather(load, again, from_store)
    assert world.held(K2) is None


@pytest.mark.parametrize(("patience", "pauses"), [(0.035, 3), (None, 7)])
async def test_pauses_between_tries_double_and_end_within_patience(
    world: World, patience: float | None, pauses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store.put(K1)
    passed: list[float] = []
    yield_once = asyncio.sleep

    async def sleep(seconds: float) -> None:
        passed.append(seconds)
        world.now.advance(seconds)
        await yield_once(0)

    monkeypatch.setattr("pointsman_server.reads.resolver.asyncio.sleep", sleep)
    given: dict[str, Any] = {} if patience is None else {"patience": patience}
    resolver = Resolver(world.store, world.cache, world.local, observer=world.observed, now=world.now, **given)
    with pytest.raises(RevisionNotReached):
        await resolver.resolve(K1, 9)
    assert passed == pytest.approx([0.005 * 2**number for number in range(pauses)])


async def test_each_lookup_in_the_shared_cache_has_an_owner_of_its_own(world: World) -> None:
    owners: list[str] = []
    get = world.cache.get

    async def noted(asked: Sequence[RouteKey], owner: str) -> list[Lookup]:
        owners.append(owner)
        return await get(asked, owner)

    world.cache.get = noted  # type: ignore[method-assign]
    other = world.another()
    for key in (K1, K2):
        await world.resolve(key)
    await other.resolve(K3)
    assert len(set(owners)) == 3
    assert all(owners)
