"""``ports.UsageLog``: every implementation. The clock of Redis cannot be set, so there windows are short or long."""

import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
import redis

from pointsman_server.adapters.redis.names import PARTS, KeyNames
from pointsman_server.adapters.redis.usage_log import PART, RedisUsageLog, estimate
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.usage_log import Reads, UsageLog, UsageUnavailable
from tests.support.usage_log import MemoryUsageLog
from tests.support.waiting import becomes

KEY = RouteKey("team-a", "payments", "prod", "v1")
OTHER = KEY._replace(version="v2")
Make = Callable[..., UsageLog]


@pytest.fixture(params=["memory", "redis", "cluster"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    if request.param == "memory":
        yield lambda **options: MemoryUsageLog(time.time, **options)
        return
    url, made = request.getfixturevalue(f"{request.param}_url"), []

    def on_redis(**options: float) -> RedisUsageLog:
        made.append(RedisUsageLog(url, timeout=5, **options))  # type: ignore[arg-type]  # bounds are ints
        return made[-1]

    yield on_redis
    for log in made:
        await log.close()


@pytest.fixture
def log(make: Make) -> UsageLog:
    # So long that no period ends while a test runs.
    return make(window=1e9)


async def counts(log: UsageLog, key: RouteKey = KEY) -> dict[str, int]:
    return {reader.subject: reader.count for reader in await log.readers(key, 100)}


async def test_reads_are_counted_by_key_and_subject(log):
    assert await log.add([Reads(KEY, "a", 3), Reads(OTHER, "a", 5), Reads(KEY, "ü b\n", 1)]) == 0
    assert await log.add([Reads(KEY, "a", 4)]) == 0

    assert await counts(log) == {"a": 7, "ü b\n": 1}
    assert await counts(log, OTHER) == {"a": 5}
    assert await counts(log, KEY._replace(env="dev")) == {}


async def test_those_who_read_last_come_first(log):
    for subject in ("a", "b", "c", "a"):
        await log.add([Reads(KEY, subject, 1)])
        await _next_millisecond()

    readers = await log.readers(KEY, 2)

    assert [reader.subject for reader in readers] == ["a", "c"]
    assert abs(readers[0].last - datetime.now(UTC)) < timedelta(seconds=10)


async def test_many_keys_are_asked_for_at_once_with_the_time_of_the_log(log):
    keys = [KEY._replace(tenant=f"team-{number}") for number in range(2 * PART + 1)]
    await log.add([Reads(key, "a", number + 1) for number, key in enumerate(keys)])
    asked = [*reversed(keys), OTHER, KEY]

    found = await log.readers_of(asked, 100)

    assert [[reader.count for reader in each.readers] for each in found] == [
        *([number] for number in range(len(keys), 0, -1)),
        [],
        [],
    ]
    assert all(abs(each.now - datetime.now(UTC)) < timedelta(seconds=10) for each in found)
    assert all(reader.last <= each.now for each in found for reader in each.readers)
    assert await log.readers_of([], 100) == []


async def test_a_log_says_since_when_it_is_complete(log):
    (found,) = await log.readers_of([KEY], 100)
    assert found.since == found.now, "it has not begun"

    await log.keep()
    await _next_millisecond()
    (begun,) = await log.readers_of([KEY], 100)
    assert begun.since < begun.now

    await log.add([Reads(KEY, "a", 1)])
    await log.keep()
    (kept,) = await log.readers_of([KEY], 100)
    assert kept.since == begun.since


async def test_a_log_ends_a_window_after_it_was_last_kept(make):
    log = make(window=0.2)
    await log.keep()

    async def over() -> bool:
        (found,) = await log.readers_of([KEY], 100)
        return found.since == found.now

    assert await becomes(over)


async def test_what_was_dropped_for_its_age_is_not_taken_for_unused(make):
    log = make(window=1e9, most_keys=1)
    await log.keep()
    (begun,) = await log.readers_of([KEY], 100)
    await _next_millisecond()
    await log.add([Reads(KEY, "a", 1)])
    await _next_millisecond()
    same_part = KEY._replace(version="v2")
    for version in range(200):
        await log.add([Reads(same_part._replace(version=f"v{version}"), "a", 1)])

    (found,) = await log.readers_of([KEY], 100)
    assert found.readers or found.since > begun.since


async def test_a_reader_vanishes_after_a_window_without_a_read(make):
    log = make(window=1.0)
    await log.add([Reads(KEY, "gone", 1), Reads(KEY, "there", 1), Reads(OTHER, "gone", 1)])

    async def gone() -> bool:
        await log.add([Reads(KEY, "there", 1)])
        return set(await counts(log)) == {"there"} and not await counts(log, OTHER)

    assert await becomes(gone)


async def test_counts_do_not_grow_for_ever(make):
    window = 0.5
    log = make(window=window)
    until, reads = time.monotonic() + 4 * window, 0
    while time.monotonic() < until:
        await log.add([Reads(KEY, "a", 1)])
        reads += 1

    [count] = (await counts(log)).values()

    # A fourth of them were within the window; that one counts them evenly where they were not costs some exactness.
    assert 0 < count < 0.75 * reads


# Three keys of one part: on Redis Cluster each part keeps as many keys as its share.
IN_CLUSTER = KeyNames("pointsman", clustered=True)
NUMBERED = (KEY._replace(version=f"v{number}") for number in range(1000))
ONE, TWO, THREE = islice((key for key in NUMBERED if IN_CLUSTER.head_of(key) == IN_CLUSTER.heads[0]), 3)


async def test_the_keys_that_were_not_read_for_longest_are_dropped(make, request: pytest.FixtureRequest):
    parts = PARTS if request.node.callspec.params["make"] == "cluster" else 1
    log = make(window=1e9, most_keys=2 * parts)
    for key in (ONE, TWO, ONE):
        await log.add([Reads(key, "a", 1)])
        await _next_millisecond()

    assert await log.add([Reads(THREE, "a", 1)]) == 1

    assert [await counts(log, key) for key in (ONE, TWO, THREE)] == [{"a": 2}, {}, {"a": 1}]


async def test_of_one_key_no_more_subjects_are_taken(make):
    log = make(window=1e9, most_subjects=2)
    await log.add([Reads(KEY, "a", 1), Reads(KEY, "b", 1)])

    assert await log.add([Reads(KEY, "c", 1), Reads(KEY, "a", 1), Reads(KEY, "d", 1)]) == 2

    assert await counts(log) == {"a": 2, "b": 1}


async def test_subjects_that_have_vanished_make_room(make):
    log = make(window=0.5, most_subjects=2)
    await log.add([Reads(KEY, "a", 1), Reads(KEY, "b", 1)])

    async def room() -> bool:
        return await log.add([Reads(KEY, "c", 1)]) == 0

    assert await becomes(room)


async def test_many_at_once(log):
    reads = [
        Reads(KEY._replace(version=f"v{number}"), subject, number + 1) for number in range(PART) for subject in "ab"
    ]
    assert await log.add(reads) == 0

    for number in (0, PART - 1):
        assert await counts(log, KEY._replace(version=f"v{number}")) == dict.fromkeys("ab", number + 1)
    assert await log.add([]) == 0


@pytest.mark.parametrize(
    ("periods", "current", "previous", "expected"),
    [(0, 10, 100, 110), (0.5, 10, 100, 60), (0.99, 10, 100, 11), (1, 10, 100, 10), (1.5, 10, 100, 5), (2, 10, 9, 1)],
)
def test_the_estimate_takes_reads_to_be_spread_evenly(periods, current, previous, expected):
    assert estimate(periods, current, previous) == expected


async def test_redis_that_is_away(unused_tcp_port: int):
    log = RedisUsageLog(f"redis://127.0.0.1:{unused_tcp_port}/0")
    for call in (log.add([Reads(KEY, "a", 1)]), log.readers(KEY, 1), log.readers_of([KEY], 1), log.keep()):
        with pytest.raises(UsageUnavailable):
            await call
    await log.close()


async def test_a_key_that_redis_has_evicted_is_not_taken_for_unused(redis_url: str):
    log = RedisUsageLog(redis_url, timeout=5, window=1000)
    await log.keep()
    await log.add([Reads(KEY, "a", 1), Reads(OTHER, "a", 1)])
    with redis.Redis.from_url(redis_url) as client:
        client.delete(f"pointsman:usage:{KEY}")
        await _next_millisecond()

        evicted, other = await log.readers_of([KEY, OTHER], 100)
        assert evicted.since == evicted.now
        assert other.since < other.now

        client.flushdb()
        (flushed,) = await log.readers_of([OTHER], 100)
        assert flushed.since == flushed.now
    await log.close()


async def test_everything_in_redis_expires(redis_url: str):
    log = RedisUsageLog(redis_url, timeout=5, window=1000)
    await log.keep()
    await log.add([Reads(KEY, "a", 1)])
    with redis.Redis.from_url(redis_url) as client:
        assert {client.pttl(name) > 0 for name in client.scan_iter()} == {True}
        client.hset(f"pointsman:usage:{KEY}", "b", "not ours")

    assert await counts(log) == {"a": 1}
    await log.close()


async def _next_millisecond() -> None:
    begun = time.time()
    while time.time() < begun + 0.002:
        pass
