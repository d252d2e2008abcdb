"""The law of ``ports.RouteCache``, for every implementation: fence, lease and mark."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

import pytest
from redis.asyncio import Redis

from pointsman.v1 import route_pb2
from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.cache import Lifetimes, RedisCache
from pointsman_server.domain.codec import route_to_message
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.ports.cache import CacheUnavailable, Lookup, RouteCache
from pointsman_server.ports.store import Clock
from tests.support.fakes import ManualClock, MemoryCache, Wire

K1, K2, K3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
BORN = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
LARGE = 2**53  # beyond it, a double cannot tell neighbours apart
PATIENCE = 5.0
READER, WRITER = "reader", "writer"
LIFETIMES = Lifetimes(value=300.0, absence=30.0, lease=10.0, mark=8.0)
MISS, LEASED = Lookup(), Lookup(leased=True)


def at(as_of: int, key: RouteKey = K1, *, labels: dict[str, str] | None = None) -> Snapshot:
    """Make the snapshot of a route that was written at ``as_of``."""
    return Snapshot(key, Route(key, f"https://r{as_of}.internal", True, labels or {}, as_of, BORN, BORN), as_of)


def absent(as_of: int, key: RouteKey = K1) -> Snapshot:
    return Snapshot(key, None, as_of)


def hit(snapshot: Snapshot) -> Lookup:
    return Lookup(snapshot)


class Harness:
    """A cache, and what its operator or its memory limit may do to it."""

    def __init__(self, cache: RouteCache) -> None:
        self.cache = cache

    async def get(self, key: RouteKey = K1, owner: str = READER) -> Lookup:
        (found,) = await self.cache.get([key], owner)
        return found

    async def hold(self, *snapshots: Snapshot) -> None:
        """Fill the cache as readers do."""
        for snapshot in snapshots:
            assert await self.get(snapshot.key, "filler") == LEASED
            await self.cache.fill([snapshot], "filler")
            assert await self.get(snapshot.key) == hit(snapshot)

    async def flush(self) -> None:
        """Lose everything."""
        raise NotImplementedError

    async def evict(self, key: RouteKey) -> None:
        """Lose one key."""
        raise NotImplementedError

    async def lapse(self, key: RouteKey) -> float:
        """Let the time of a key run out; say how many seconds it had left."""
        raise NotImplementedError


class MemoryHarness(Harness):
    def __init__(self) -> None:
        self.memory = MemoryCache()
        super().__init__(self.memory)

    async def flush(self) -> None:
        self.memory.flush()

    async def evict(self, key: RouteKey) -> None:
        del self.memory.entries[key]

    async def lapse(self, key: RouteKey) -> float:
        left = self.memory.entries[key].expires_at - self.memory.now()
        self.memory.now.advance(left)
        return left


class RedisHarness(Harness):
    def __init__(self, url: str, redis: Redis) -> None:
        super().__init__(RedisCache(url, timeout=PATIENCE, lifetimes=LIFETIMES))
        self.redis = redis

    async def flush(self) -> None:
        await self.redis.flushdb()

    async def evict(self, key: RouteKey) -> None:
        assert await self.redis.delete(f"pointsman:no-epoch:{key}") == 1

    async def lapse(self, key: RouteKey) -> float:
        left = await self.redis.pttl(f"pointsman:no-epoch:{key}")
        assert left > 0, "it would never run out"
        await self.evict(key)
        return left / 1000


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(params=["memory", "redis"])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    if request.param == "memory":
        yield MemoryHarness()
        return
    url = request.getfixturevalue("redis_url")
    async with Redis.from_url(url) as client:
        redis_harness = RedisHarness(url, client)
        yield redis_harness
        assert isinstance(redis_harness.cache, RedisCache)
        await redis_harness.cache.close()


# Look up and fill


async def test_an_empty_cache_leases_the_key(harness: Harness) -> None:
    assert await harness.get() == LEASED


async def test_a_filled_value_is_answered_as_it_was(harness: Harness) -> None:
    snapshot = at(7, labels={"ünï": "🚂", "": "empty"})
    await harness.hold(replace(snapshot, as_of=9))
    assert await harness.get() == hit(replace(snapshot, as_of=9))


async def test_an_inactive_route_is_answered_as_one(harness: Harness) -> None:
    snapshot = at(7)
    assert snapshot.route
    await harness.hold(Snapshot(K1, replace(snapshot.route, active=False), 7))


async def test_absence_is_cached_like_a_value(harness: Harness) -> None:
    await harness.hold(absent(7))
    assert await harness.get() == hit(absent(7))


async def test_absence_obeys_the_fence_in_both_directions(harness: Harness) -> None:
    await harness.hold(absent(7))
    await harness.cache.fill([at(6)], "late")
    assert await harness.get() == hit(absent(7))
    await harness.cache.fill([at(8)], "newer")
    assert await harness.get() == hit(at(8))
    await harness.cache.fill([absent(7)], "late")
    assert await harness.get() == hit(at(8))
    await harness.cache.consume([absent(9)])
    assert await harness.get() == hit(absent(9))


async def test_many_keys_in_one_call_are_answered_in_their_order(harness: Harness) -> None:
    await harness.hold(at(5, K2))
    assert await harness.cache.get([K3, K2, K1], "reader") == [LEASED, hit(at(5, K2)), LEASED]
    await harness.cache.fill([at(6, K1), absent(6, K3)], "reader")
    assert await harness.cache.get([K1, K2, K3], "other") == [hit(at(6, K1)), hit(at(5, K2)), hit(absent(6, K3))]


async def test_a_thousand_keys_in_one_call(harness: Harness) -> None:
    keys = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(1000)]
    assert await harness.cache.get(keys, "reader") == [LEASED] * 1000
    await harness.cache.fill([at(number + 1, key) for number, key in enumerate(keys)], "reader")
    found = await harness.cache.get(keys, "reader")
    assert [lookup.snapshot.as_of for lookup in found if lookup.snapshot] == list(range(1, 1001))


async def test_nothing_in_nothing_out(harness: Harness) -> None:
    assert await harness.cache.get([], "reader") == []
    await harness.cache.fill([], "reader")
    await harness.cache.mark([], "writer")
    await harness.cache.settle([], "writer")
    await harness.cache.consume([])


# Fence

Write = Callable[[RouteCache, Snapshot], object]


async def fill(cache: RouteCache, snapshot: Snapshot) -> None:
    await cache.fill([snapshot], "reader")


async def settle(cache: RouteCache, snapshot: Snapshot) -> None:
    await cache.mark([snapshot.key], "writer")
    await cache.settle([snapshot], "writer")


async def consume(cache: RouteCache, snapshot: Snapshot) -> None:
    await cache.consume([snapshot])


class Writing(Protocol):
    async def __call__(self, cache: RouteCache, snapshot: Snapshot) -> None: ...


every_write = pytest.mark.parametrize("write", [fill, settle, consume])
# As numbers in Lua, each pair but the first two would be equal; as unpadded text, 9 would be above 10.
pairs = pytest.mark.parametrize(
    ("older", "newer"), [(1, 2), (9, 10), (LARGE, LARGE + 1), (LARGE + 1, LARGE + 2), (2**63 - 2, 2**63 - 1)]
)


@every_write
@pairs
async def test_an_older_value_never_replaces_a_newer_one(
    harness: Harness, write: Writing, older: int, newer: int
) -> None:
    await harness.hold(at(newer))
    await write(harness.cache, at(older))
    assert await harness.get() == hit(at(newer))


@every_write
@pairs
async def test_a_newer_value_replaces_an_older_one(harness: Harness, write: Writing, older: int, newer: int) -> None:
    await harness.hold(at(older))
    await write(harness.cache, at(newer))
    assert await harness.get() == hit(at(newer))


@every_write
async def test_a_value_as_old_as_the_cached_one_does_not_replace_it(harness: Harness, write: Writing) -> None:
    await harness.hold(at(5))
    await write(harness.cache, absent(5))
    assert await harness.get() == hit(at(5))


# Lease


async def test_the_second_to_ask_is_not_leased(harness: Harness) -> None:
    assert await harness.get(owner="first") == LEASED
    assert await harness.get(owner="second") == MISS
    assert await harness.get(owner="first") == MISS


async def test_only_the_holder_of_the_lease_fills(harness: Harness) -> None:
    await harness.get(owner="first")
    await harness.get(owner="second")
    await harness.cache.fill([at(5)], "second")
    await harness.cache.fill([at(5)], "")
    assert await harness.get(owner="second") == MISS
    await harness.cache.fill([at(4)], "first")
    assert await harness.get() == hit(at(4))


async def test_without_a_lease_nothing_is_filled(harness: Harness) -> None:
    await harness.cache.fill([at(5)], "nobody")
    await harness.cache.fill([at(5)], "")
    assert await harness.get() == LEASED


async def test_the_lease_of_one_key_fills_no_other(harness: Harness) -> None:
    await harness.get(K1, "first")
    await harness.cache.fill([at(5, K2)], "first")
    assert await harness.get(K2) == LEASED


async def test_a_lease_fills_once(harness: Harness) -> None:
    await harness.get(owner="first")
    await harness.cache.fill([at(5)], "first")
    await harness.evict(K1)
    await harness.cache.fill([at(5)], "first")
    assert await harness.get() == LEASED


async def test_a_lease_ends_by_itself_when_its_holder_dies(harness: Harness) -> None:
    await harness.get(owner="dead")
    assert 0 < await harness.lapse(K1) <= LIFETIMES.lease
    assert await harness.get(owner="next") == LEASED
    await harness.cache.fill([at(5)], "dead")
    assert await harness.get() == MISS


async def test_the_announcement_of_a_write_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await harness.cache.mark([K1], "writer")
    await harness.cache.fill([at(5)], "reader")
    await harness.lapse(K1)
    assert await harness.get() == LEASED


async def test_a_finished_write_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await settle(harness.cache, at(6))
    await harness.cache.fill([at(5)], "reader")
    assert await harness.get() == hit(at(6))


async def test_a_write_that_could_not_be_announced_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await harness.cache.settle([at(6)], "writer")
    await harness.cache.fill([at(5)], "reader")
    assert await harness.get() == LEASED


async def test_a_consumed_write_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await harness.cache.consume([at(6)])
    await harness.cache.fill([at(5)], "reader")
    assert await harness.get() == LEASED


async def test_eviction_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await harness.evict(K1)
    await harness.cache.fill([at(5)], "reader")
    assert await harness.get() == LEASED


async def test_a_flush_or_restart_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await harness.flush()
    assert await harness.get(owner="next") == LEASED
    await harness.cache.fill([at(5)], "reader")
    assert await harness.get(owner="another") == MISS
    await harness.cache.fill([at(6)], "next")
    assert await harness.get() == hit(at(6))


# Mark


async def test_from_before_the_commit_a_key_is_neither_answered_nor_leased(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1, K2], "writer")
    assert await harness.cache.get([K1, K2], "reader") == [MISS, MISS]


async def test_from_before_the_commit_a_key_is_not_filled_not_even_with_something_newer(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1, K2], "writer")
    await harness.cache.fill([at(7), at(7, K2)], "writer")
    await harness.cache.fill([at(7), at(7, K2)], "")
    assert await harness.cache.get([K1, K2], "reader") == [MISS, MISS]
    await harness.cache.settle([at(6), at(6, K2)], "writer")
    assert await harness.cache.get([K1, K2], "reader") == [hit(at(6)), hit(at(6, K2))]


async def test_settle_brings_a_written_key_in_also_where_nothing_was(harness: Harness) -> None:
    await settle(harness.cache, at(6))
    assert await harness.get() == hit(at(6))


async def test_settle_brings_a_deletion_in(harness: Harness) -> None:
    await harness.hold(at(5))
    await settle(harness.cache, absent(6))
    assert await harness.get() == hit(absent(6))


async def test_a_mark_expires_by_itself_when_its_writer_dies(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1], "dead")
    assert 0 < await harness.lapse(K1) <= 10.0
    assert await harness.get() == LEASED  # and what was there before the mark is gone: it may be old


@pytest.mark.parametrize("write", [fill, consume])
async def test_the_mark_of_a_dead_writer_is_not_prolonged_by_readers_and_consumers(
    harness: Harness, write: Writing
) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1], "dead")
    await write(harness.cache, at(6))
    assert 0 < await harness.lapse(K1) <= 10.0
    assert await harness.get() == LEASED


async def test_the_mark_of_a_dead_writer_is_not_prolonged_by_the_settling_of_another(harness: Harness) -> None:
    await harness.cache.mark([K1], "one")
    await harness.cache.mark([K1], "dead")
    await harness.cache.settle([at(6)], "one")
    assert await harness.get() == MISS
    assert 0 < await harness.lapse(K1) <= 10.0
    assert await harness.get() == LEASED


async def test_while_one_of_two_writers_is_not_done_the_key_is_not_answered(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1], "one")
    await harness.cache.mark([K1], "other")
    await harness.cache.settle([at(6)], "one")
    assert await harness.get() == MISS
    await harness.cache.settle([at(7)], "other")
    assert await harness.get() == hit(at(7))


async def test_two_writers_who_settle_in_the_wrong_order_leave_the_newer_value(harness: Harness) -> None:
    await harness.cache.mark([K1], "one")
    await harness.cache.mark([K1], "other")
    await harness.cache.settle([at(7)], "other")
    await harness.cache.settle([at(6)], "one")
    assert await harness.get() == hit(at(7))


async def test_settle_with_a_lost_mark_drops_the_key(harness: Harness) -> None:
    """Who lost the mark may have been filled since from before the commit."""
    await harness.cache.mark([K1], "writer")
    await harness.flush()
    await harness.get(owner="reader")
    await harness.cache.fill([at(5)], "reader")
    await harness.cache.settle([at(6)], "writer")
    assert await harness.get() == LEASED


async def test_settle_with_a_lost_mark_keeps_what_is_newer(harness: Harness) -> None:
    await harness.cache.mark([K1], "writer")
    await harness.flush()
    await harness.hold(at(7))
    await harness.cache.settle([at(6)], "writer")
    assert await harness.get() == hit(at(7))


async def test_settle_takes_back_only_its_own_mark(harness: Harness) -> None:
    await harness.cache.mark([K1], "one")
    await harness.cache.settle([at(6)], "other")
    assert await harness.get() == MISS


# Consume


async def test_consume_never_brings_back_an_absent_key(harness: Harness) -> None:
    await harness.cache.consume([at(6), absent(6, K2)])
    assert await harness.cache.get([K1, K2], "reader") == [LEASED, LEASED]


async def test_consume_replaces_what_is_older_under_a_mark_too_and_the_mark_stays(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1], "writer")
    await harness.cache.consume([at(6)])
    assert await harness.get() == MISS
    await harness.cache.settle([at(4)], "writer")
    assert await harness.get() == hit(at(6))


async def test_consuming_twice_or_out_of_order_changes_nothing(harness: Harness) -> None:
    await harness.hold(at(5))
    for as_of in (6, 7, 6, 5, 7):
        await harness.cache.consume([at(as_of)])
    assert await harness.get() == hit(at(7))


async def test_ping_is_quiet_when_the_cache_answers(harness: Harness) -> None:
    await harness.cache.ping()


# A cache that cannot be reached


@pytest.fixture(params=["memory", "redis"])
async def unreachable(
    request: pytest.FixtureRequest, unused_tcp_port_factory: Callable[[], int]
) -> AsyncIterator[RouteCache]:
    if request.param == "memory":
        memory = MemoryCache()
        memory.down = True
        yield memory
        return
    cache = RedisCache(f"redis://127.0.0.1:{unused_tcp_port_factory()}/0", timeout=PATIENCE)
    yield cache
    await cache.close()


async def test_a_cache_that_is_down_misses_without_a_lease(unreachable: RouteCache) -> None:
    assert await unreachable.get([K1, K2], "reader") == [MISS, MISS]


async def test_a_cache_that_is_down_drops_what_it_is_told(unreachable: RouteCache) -> None:
    await unreachable.mark([K1], "writer")
    await unreachable.fill([at(5)], "reader")
    await unreachable.settle([at(6)], "writer")


async def test_a_cache_that_is_down_cannot_consume(unreachable: RouteCache) -> None:
    with pytest.raises(CacheUnavailable):
        await unreachable.consume([at(6)])


async def test_a_cache_that_is_down_fails_its_ping(unreachable: RouteCache) -> None:
    with pytest.raises(CacheUnavailable):
        await unreachable.ping()


# Redis alone


@pytest.fixture
async def cache(redis_url: str) -> AsyncIterator[RedisCache]:
    cache = RedisCache(redis_url, timeout=PATIENCE, lifetimes=LIFETIMES)
    yield cache
    await cache.close()


async def test_lifetimes_are_shortened_by_up_to_a_tenth_and_not_all_alike(cache: RedisCache, redis: Redis) -> None:
    routes = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(50)]
    gaps = [RouteKey("team-a", "nothing", "prod", f"v{number}") for number in range(50)]
    await cache.get(routes + gaps, "reader")
    await cache.fill([at(5, key) for key in routes] + [absent(5, key) for key in gaps], "reader")
    for keys, lifetime in ((routes, LIFETIMES.value), (gaps, LIFETIMES.absence)):
        left = [await redis.pttl(f"pointsman:no-epoch:{key}") / 1000 for key in keys]
        assert lifetime * 0.9 - PATIENCE <= min(left) < max(left) <= lifetime
        assert max(left) - min(left) > lifetime / 100


@pytest.mark.parametrize("write", [settle, consume])
async def test_what_is_written_lives_as_long_as_what_is_filled(cache: RedisCache, redis: Redis, write: Writing) -> None:
    await cache.get([K1], "reader")
    await cache.fill([at(5)], "reader")
    await write(cache, at(6))
    left = await redis.pttl(f"pointsman:no-epoch:{K1}") / 1000
    assert LIFETIMES.value * 0.9 - PATIENCE <= left <= LIFETIMES.value


async def test_caches_with_different_prefixes_do_not_meet(cache: RedisCache, redis_url: str) -> None:
    other = RedisCache(redis_url, prefix="other", timeout=PATIENCE)
    await settle(cache, at(5))
    assert await other.get([K1], "reader") == [LEASED]
    await other.close()


GOOD = route_to_message(Route(K1, "https://x.internal", True, {}, 5, BORN, BORN)).SerializeToString()
TEXT, NUMBER = b"\xff\xfe not protobuf", f"{5:020d}".encode()
# A timestamp of the year 31 billion: it decodes, but no datetime can hold it.
FAR_FUTURE = b"\x32\x0a\x08" + b"\xff\xff\xff\xff\xff\xff\xff\xff\x3f"
OF_ANOTHER = route_to_message(Route(K2, "https://x.internal", True, {}, 5, BORN, BORN)).SerializeToString()
garbage = pytest.mark.parametrize(
    "fields",
    [
        {"r": NUMBER, "v": TEXT},
        {"r": NUMBER, "v": FAR_FUTURE},
        {"r": NUMBER, "v": OF_ANOTHER},
        {"r": f"{4:020d}".encode(), "v": GOOD},
        {"r": f"{2**63:020d}".encode(), "v": GOOD},
        {"r": b"9" * 20, "v": b""},
        {"r": NUMBER},
        {"r": b"", "v": GOOD},
        {"r": b"garbage", "v": GOOD},
        {"r": b"5", "v": GOOD},
        {"r": "\u0665".encode() * 10, "v": GOOD},
        {"v": GOOD},
        {"something": b"else"},
    ],
    ids=lambda fields: " ".join(f"{name}={value[:8]!r}" for name, value in fields.items()),
)


async def spoil(redis: Redis, fields: dict[str, bytes]) -> None:
    name = f"pointsman:no-epoch:{K1}"
    await redis.hset(name, mapping=fields)  # type: ignore[arg-type]
    # As all of ours expire: another one is never read.
    await redis.expire(name, 100)


@garbage
async def test_garbage_in_redis_is_a_miss_for_its_key_alone(
    cache: RedisCache, redis: Redis, fields: dict[str, bytes]
) -> None:
    await settle(cache, at(5, K2))
    await spoil(redis, fields)
    first, second = await cache.get([K1, K2], "reader")
    assert first.snapshot is None
    assert second == hit(at(5, K2))


@garbage
@pytest.mark.parametrize("write", [settle, consume])
async def test_garbage_in_redis_is_never_answered_after_a_write_and_goes(
    cache: RedisCache, redis: Redis, fields: dict[str, bytes], write: Writing
) -> None:
    await spoil(redis, fields)
    await write(cache, at(6))
    (found,) = await cache.get([K1], "reader")
    if found.snapshot is None:
        assert found.leased
        await cache.fill([at(6)], "reader")
        (found,) = await cache.get([K1], "reader")
    assert found == hit(at(6))


@pytest.mark.parametrize("highest", [b"9" * 20, b"9" * 5000, b"1", b"zzz", b""])
async def test_garbage_in_the_clock_is_no_revision_of_the_store(redis_url: str, redis: Redis, highest: bytes) -> None:
    told: list[tuple[str, int]] = []
    cache = RedisCache(redis_url, timeout=PATIENCE, witness=lambda *known: told.append(known))
    await redis.hset("pointsman:clock", "no-epoch", highest)  # type: ignore[arg-type]
    await cache.mark([K1], WRITER)
    await cache.publish_clock(Clock("no-epoch", 7))
    await cache.mark([K1], WRITER)
    assert told == [("no-epoch", 7)] * 2
    await cache.close()


@pytest.mark.parametrize("write", [fill, settle, consume])
async def test_a_key_of_another_type_is_a_miss_and_does_not_open_the_breaker(
    redis_url: str, redis: Redis, write: Writing
) -> None:
    cache = RedisCache(redis_url, timeout=PATIENCE, breaker=Breaker(threshold=1))
    await redis.set(f"pointsman:no-epoch:{K1}", "a string")
    await write(cache, at(5))
    await redis.set(f"pointsman:no-epoch:{K1}", "a string")
    assert await cache.get([K1, K2], "reader") == [LEASED, LEASED]
    assert not cache.breaker.is_open
    await cache.close()


@pytest.fixture
async def wire(redis_url: str) -> AsyncIterator[Wire]:
    async with Wire(int(redis_url.rpartition("/")[0].rpartition(":")[2])) as wire:
        yield wire


def behind(wire: Wire, redis_url: str) -> str:
    return f"redis://127.0.0.1:{wire.port}/{redis_url.rpartition('/')[2]}"


async def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(redis_url: str, wire: Wire) -> None:
    """A connection that was given up in the middle of a reply must not be used again."""
    cache = RedisCache(behind(wire, redis_url), timeout=PATIENCE)
    await settle(cache, at(5, K1))
    await settle(cache, at(6, K2))
    wire.replies.close()
    cache._timeout = 0.01
    assert await cache.get([K1], "reader") == [MISS]
    wire.replies.open()
    cache._timeout = PATIENCE
    assert await cache.get([K2], "reader") == [hit(at(6, K2))]
    assert await cache.get([K1], "reader") == [hit(at(5, K1))]
    await cache.close()


async def test_a_caller_who_gives_up_leaves_no_answer_for_the_next_one(redis_url: str, wire: Wire) -> None:
    cache = RedisCache(behind(wire, redis_url), timeout=60.0)
    await settle(cache, at(5, K1))
    await settle(cache, at(6, K2))
    wire.replies.close()
    asking = asyncio.create_task(cache.get([K1], "reader"))
    await wire.replies.arrivals()
    asking.cancel()
    await asyncio.wait([asking])
    wire.replies.open()
    assert await cache.get([K2], "reader") == [hit(at(6, K2))]
    assert await cache.get([K1], "reader") == [hit(at(5, K1))]
    await cache.close()


async def test_redis_that_forgot_our_scripts_is_told_again(cache: RedisCache, redis: Redis) -> None:
    await settle(cache, at(5))
    await redis.script_flush()
    assert await cache.get([K1], "reader") == [hit(at(5))]
    assert not cache.breaker.is_open


async def test_the_breaker_opens_after_failures_in_a_row_lets_one_through_a_pause_and_closes(
    redis_url: str, wire: Wire
) -> None:
    attempts: list[str] = []
    now = ManualClock()
    breaker = Breaker(threshold=3, pause=10.0, now=now)
    url = behind(wire, redis_url)
    cache = RedisCache(url, timeout=PATIENCE, breaker=breaker, failed=lambda: attempts.append("failed"))
    await settle(cache, at(5))
    await wire.cut()
    for _ in range(5):
        assert await cache.get([K1], "reader") == [MISS]
    assert (len(attempts), breaker.is_open) == (3, True)

    now.advance(10.0)
    for _ in range(5):
        assert await cache.get([K1], "reader") == [MISS]
    assert len(attempts) == 4

    await wire.mend()
    assert await cache.get([K1], "reader") == [MISS]  # not before the pause is over
    now.advance(10.0)
    assert await cache.get([K1], "reader") == [hit(at(5))]
    assert not breaker.is_open
    await cache.close()


async def test_while_the_breaker_is_open_writes_are_still_tried(redis_url: str) -> None:
    """Other servers may reach Redis, and would go on answering what was not replaced."""
    breaker = Breaker(threshold=1, pause=1e9, now=ManualClock())
    cache = RedisCache(redis_url, timeout=PATIENCE, breaker=breaker)
    breaker.failed()
    await cache.mark([K1], "writer")
    breaker.failed()
    await cache.settle([at(5)], "writer")
    breaker.failed()
    await cache.consume([at(6)])
    assert not breaker.is_open
    assert await cache.get([K1], "reader") == [hit(at(6))]
    await cache.close()


# Races, each shown with the remedy off first


class NaiveCache:
    """Cache-aside as it is usually written: SET what was loaded, DEL what was changed, on the same Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.values: dict[bytes, Snapshot] = {}

    async def get(self, keys: list[RouteKey], _owner: str) -> list[Lookup]:
        found = await self.redis.mget([f"naive:{key}" for key in keys])
        return [Lookup(self.values[bytes(value)]) if isinstance(value, bytes) else LEASED for value in found]

    async def fill(self, snapshots: list[Snapshot], _owner: str) -> None:
        for snapshot in snapshots:
            value = str(len(self.values)).encode()
            self.values[value] = snapshot
            await self.redis.set(f"naive:{snapshot.key}", value)

    async def mark(self, _keys: list[RouteKey], _owner: str) -> None:
        return None

    async def settle(self, snapshots: list[Snapshot], _owner: str) -> None:
        for snapshot in snapshots:
            await self.redis.delete(f"naive:{snapshot.key}")


class FencedCache(NaiveCache):
    """With the fence alone: an older value does not replace a newer one. But an empty key fences nothing."""

    async def fill(self, snapshots: list[Snapshot], owner: str) -> None:
        for snapshot in snapshots:
            (held,) = await self.get([snapshot.key], owner)
            if held.snapshot is None or held.snapshot.as_of < snapshot.as_of:
                await super().fill([snapshot], owner)

    async def settle(self, snapshots: list[Snapshot], owner: str) -> None:
        await self.fill(snapshots, owner)


class Raced(Protocol):
    """The part of RouteCache that races."""

    async def get(self, keys: list[RouteKey], owner: str, /) -> list[Lookup]: ...
    async def fill(self, snapshots: list[Snapshot], owner: str, /) -> None: ...
    async def mark(self, keys: list[RouteKey], owner: str, /) -> None: ...
    async def settle(self, snapshots: list[Snapshot], owner: str, /) -> None: ...


class Race(Protocol):
    """An interleaving; it returns what the last write left, and the cache may answer nothing older."""

    async def __call__(self, cache: Raced, redis: Redis) -> Snapshot: ...


async def write(cache: Raced, snapshot: Snapshot, owner: str = WRITER) -> None:
    await cache.mark([snapshot.key], owner)
    await cache.settle([snapshot], owner)


async def late_fill(cache: Raced, redis: Redis) -> Snapshot:
    """A reader misses and loads; a writer commits and invalidates; then the reader fills."""
    await cache.get([K1], "reader")
    await write(cache, at(6))
    await cache.fill([at(5)], "reader")
    return at(6)


async def late_fill_of_absence(cache: Raced, redis: Redis) -> Snapshot:
    """The reader found nothing, then the route was created."""
    await cache.get([K1], "reader")
    await write(cache, at(6))
    await cache.fill([absent(5)], "reader")
    return at(6)


async def delete_then_recreate(cache: Raced, redis: Redis) -> Snapshot:
    """The reader holds the first life of the route, and fills it into the second."""
    await cache.get([K1], "reader")
    await write(cache, absent(6), "deleter")
    await write(cache, at(7), "creator")
    await cache.fill([at(5)], "reader")
    return at(7)


async def fill_between_commit_and_settle(cache: Raced, redis: Redis) -> Snapshot:
    """A reader asks, loads and fills while a write is under way, and the writer dies before it settles."""
    await cache.mark([K1], "writer")
    await cache.get([K1], "reader")
    await cache.fill([at(5)], "reader")
    return at(6)


async def late_fill_after_a_flush(cache: Raced, redis: Redis) -> Snapshot:
    """As ``late_fill``, but Redis loses what would have fenced the fill off."""
    await cache.get([K1], "reader")
    await write(cache, at(6))
    await redis.flushdb()
    await cache.fill([at(5)], "reader")
    return at(6)


async def flush_while_writing(cache: Raced, redis: Redis) -> Snapshot:
    """Redis loses the mark; a reader fills from before the commit with a lease of its own; the writer settles."""
    await cache.mark([K1], "writer")
    await redis.flushdb()
    await cache.get([K1], "reader")
    await cache.settle([at(6)], "writer")
    await cache.fill([at(5)], "reader")
    return at(6)


BEATEN_BY: list[tuple[Race, type[NaiveCache]]] = [
    (late_fill, NaiveCache),
    (late_fill_of_absence, NaiveCache),
    (delete_then_recreate, NaiveCache),
    (fill_between_commit_and_settle, NaiveCache),
    (flush_while_writing, NaiveCache),
    (late_fill_after_a_flush, NaiveCache),
    (late_fill_after_a_flush, FencedCache),
    (fill_between_commit_and_settle, FencedCache),
]


async def answered(cache: Raced) -> int:
    """Ask as a new reader does; 0: nothing, ask the store."""
    (found,) = await cache.get([K1], "another")
    return found.snapshot.as_of if found.snapshot else 0


@pytest.mark.parametrize(("race", "naive"), BEATEN_BY)
async def test_a_plain_cache_answers_something_old_after(redis: Redis, race: Race, naive: type[NaiveCache]) -> None:
    cache = naive(redis)
    written = await race(cache, redis)
    assert await answered(cache) == 5 < written.as_of


@pytest.mark.parametrize("race", dict.fromkeys(race for race, _ in BEATEN_BY))
async def test_our_cache_answers_nothing_old_after(cache: RedisCache, redis: Redis, race: Race) -> None:
    written = await race(cache, redis)
    assert await answered(cache) in (0, written.as_of)


# Large writes


async def drop(harness: Harness, *keyed: tuple[RouteKey, int], owner: str = WRITER) -> None:
    keys, revisions = zip(*keyed, strict=True)
    await harness.cache.drop_older(keys, revisions, Clock("no-epoch", max(revisions)), owner)


async def test_a_large_write_marks_only_what_is_held_or_leased(harness: Harness) -> None:
    await harness.hold(at(1))
    assert await harness.get(K2) == LEASED
    await harness.cache.mark_held([K1, K2, K3], WRITER)
    assert await harness.get(K1) == await harness.get(K2) == MISS
    await harness.cache.fill([at(1, K2)], READER)
    assert await harness.get(K2) == MISS
    assert await harness.get(K3) == LEASED


async def test_a_large_write_drops_what_is_older_and_keeps_what_is_not(harness: Harness) -> None:
    await harness.hold(at(4), at(5, K2), at(6, K3))
    await harness.cache.mark_held([K1, K2, K3], WRITER)
    await drop(harness, (K1, 5), (K2, 5), (K3, 5))
    assert await harness.get(K1) == LEASED
    assert await harness.get(K2) == hit(at(5, K2))
    assert await harness.get(K3) == hit(at(6, K3))


async def test_what_was_filled_between_mark_and_commit_is_dropped(harness: Harness) -> None:
    await harness.cache.mark_held([K1], WRITER)
    await harness.hold(absent(4))
    await drop(harness, (K1, 5))
    assert await harness.get() == LEASED


async def test_a_load_from_before_a_large_write_cannot_be_filled_in_after_it(harness: Harness) -> None:
    await harness.cache.mark_held([K1], WRITER)
    assert await harness.get() == LEASED
    await drop(harness, (K1, 5))
    await harness.cache.fill([absent(4)], READER)
    assert await harness.get(owner="another") == LEASED


async def test_a_write_that_committed_before_a_large_one_and_settles_after_it_brings_nothing_back(
    harness: Harness,
) -> None:
    await harness.cache.mark([K1], "slow")
    await harness.cache.mark_held([K1], WRITER)
    await drop(harness, (K1, 5))
    await harness.cache.settle([at(4)], "slow")
    assert await harness.get() == LEASED


async def test_a_large_write_takes_its_marks_back_from_what_is_new_enough(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark_held([K1], WRITER)
    await harness.cache.mark([K1], "later")
    await drop(harness, (K1, 5))
    await harness.cache.settle([at(6)], "later")
    assert await harness.get() == hit(at(6))


async def test_thousands_of_keys_are_dropped_at_once(harness: Harness) -> None:
    keys = [K1._replace(service=f"s{number}") for number in range(1203)]
    await harness.hold(*(at(1, key) for key in keys[::100]))
    await harness.cache.mark_held(keys, WRITER)
    await drop(harness, *((key, 2 if number % 200 else 1) for number, key in enumerate(keys)))
    kept = [number for number in range(0, 1203, 100) if await harness.get(keys[number]) != LEASED]
    assert kept == list(range(0, 1203, 200))


# The connections that are kept for looking up


async def test_a_connection_that_was_lost_meanwhile_is_made_anew_without_a_miss(redis_url: str, wire: Wire) -> None:
    cache = RedisCache(behind(wire, redis_url), timeout=PATIENCE)
    await settle(cache, at(5))
    assert await cache.get([K1], "reader") == [hit(at(5))]
    await wire.cut()
    await wire.mend()
    (kept,) = cache._connections._idle
    async with asyncio.timeout(30):
        await kept._reader.read()  # its end
    assert await cache.get([K1], "reader") == [hit(at(5))]
    await cache.close()


async def test_lookups_at_the_same_time_do_not_take_each_others_answers(cache: RedisCache) -> None:
    keys = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(40)]
    for number, key in enumerate(keys, 1):
        await settle(cache, at(number, key))
    found = await asyncio.gather(*(cache.get([key], "reader") for key in keys))
    assert found == [[hit(at(number, key))] for number, key in enumerate(keys, 1)]


async def test_a_hit_brings_its_route_as_it_is_kept(cache: RedisCache) -> None:
    await settle(cache, at(5, labels={"tier": "gold", "team": "payments"}))
    (found,) = await cache.get([K1], "reader")
    assert found.snapshot
    assert found.snapshot.route
    assert route_pb2.Route.FromString(found.encoded) == route_to_message(found.snapshot.route)
