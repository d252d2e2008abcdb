"""What of the counts reaches the log, and what is answered from both."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.usage_log import Reader, Reads
from pointsman_server.reads import usage
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.usage import MOST_READERS, Usage, UsageRecorder
from tests.support.fakes import ManualClock
from tests.support.usage_log import MemoryUsageLog
from tests.support.waiting import becomes

KEY = RouteKey("team-a", "payments", "prod", "v1")
BYTES = key_to_bytes(KEY)
WINDOW = 1e6


class World:
    """Two servers with one log."""

    def __init__(self) -> None:
        self.now = ManualClock()
        self.log = MemoryUsageLog(self.now, WINDOW)
        self.dropped: list[int] = []
        self.counts, self.other_counts = ReadCounts(), ReadCounts()
        self.recorder, self.other = self.make(self.counts), self.make(self.other_counts)

    def make(self, counts: ReadCounts, window: float = WINDOW) -> UsageRecorder:
        return UsageRecorder(counts, self.log, window=window, dropped=self.dropped.append, now=self.time)

    def time(self) -> datetime:
        return datetime.fromtimestamp(self.now(), UTC)

    def reader(self, subject: str, count: int, age: float = 0.0) -> Reader:
        return Reader(subject, count, self.time() - timedelta(seconds=age))


@pytest.fixture
def world() -> World:
    return World()


async def test_the_reads_of_all_servers_are_known_once_they_are_flushed(world):
    world.counts.read(BYTES, "a")
    world.other_counts.read(BYTES, "b")
    assert await world.recorder.usage(KEY) == Usage([world.reader("a", 1)], all_servers=True)

    await world.other.flush()
    await world.recorder.flush()

    found = await world.recorder.usage(KEY)
    assert {(reader.subject, reader.count) for reader in found.readers} == {("a", 1), ("b", 1)}
    assert world.dropped == []


async def test_what_is_not_flushed_yet_is_added_and_comes_first(world):
    for subject in "ab":
        world.counts.read(BYTES, subject)
        await world.recorder.flush()
        world.now.advance(10)
    world.counts.read(BYTES, "a")

    assert await world.recorder.usage(KEY) == Usage(
        [world.reader("a", 2), world.reader("b", 1, age=10)], all_servers=True
    )


async def test_without_the_log_only_what_this_server_has_counted_is_known_and_nothing_is_lost(world):
    world.log.down = True
    world.counts.read(BYTES, "a")
    await world.recorder.flush()
    world.counts.read(BYTES, "a")
    assert await world.recorder.usage(KEY) == Usage([world.reader("a", 2)], all_servers=False)

    world.log.down = False
    await world.recorder.flush()

    assert await world.other.usage(KEY) == Usage([world.reader("a", 2)], all_servers=True)


async def test_a_large_flush_that_fails_in_the_middle_keeps_the_rest(world, monkeypatch):
    monkeypatch.setattr(usage, "PART", 2)
    keys = [KEY._replace(version=f"v{number}") for number in range(5)]
    world.counts.read_many(list(map(key_to_bytes, keys)), "a")
    add = world.log.add

    async def add_and_fail(reads: list[Reads]) -> int:
        world.log.down = reads[0].key == keys[2]
        return await add(reads)

    monkeypatch.setattr(world.log, "add", add_and_fail)
    await world.recorder.flush()
    world.log.down = False

    assert [len((await world.other.usage(key)).readers) for key in keys] == [1, 1, 0, 0, 0]
    monkeypatch.setattr(world.log, "add", add)
    await world.recorder.flush()
    assert [[reader.count for reader in (await world.other.usage(key)).readers] for key in keys] == [[1]] * 5


async def test_what_near_caches_report_is_counted(world):
    world.recorder.add([Reads(KEY, "a", 70), Reads(KEY, "a", 7)])
    await world.recorder.flush()
    assert await world.other.usage(KEY) == Usage([world.reader("a", 77)], all_servers=True)


async def test_at_most_a_hundred_readers_are_told(world):
    for number in range(MOST_READERS + 5):
        world.counts.read(BYTES, f"reader-{number}")
    assert len((await world.recorder.usage(KEY)).readers) == MOST_READERS
    await world.recorder.flush()
    assert len((await world.recorder.usage(KEY)).readers) == MOST_READERS


async def test_what_is_dropped_is_counted(world):
    world.log.most_subjects = 1
    world.counts.read(BYTES, "a")
    world.counts.read(BYTES, "b")
    world.counts.dropped = 7
    await world.recorder.flush()
    await world.recorder.flush()
    assert world.dropped == [8]


async def test_where_it_is_off_nothing_is_counted_and_nothing_known(world):
    recorder = world.make(ReadCounts(on=False), window=0)
    recorder.add([Reads(KEY, "a", 1)])
    assert await recorder.usage(KEY) == Usage((), all_servers=False)


async def test_it_flushes_again_and_again_and_at_the_end(world, monkeypatch):
    monkeypatch.setattr(usage, "FLUSH_SECONDS", 0.001)
    world.counts.read(BYTES, "a")
    running = asyncio.create_task(world.recorder.run())

    async def flushed() -> bool:
        return bool((await world.other.usage(KEY)).readers)

    assert await becomes(flushed)
    monkeypatch.setattr(usage, "FLUSH_SECONDS", 1000)
    await asyncio.sleep(0.01)
    world.counts.read(BYTES, "a")

    running.cancel()
    await asyncio.wait([running])

    assert [reader.count for reader in (await world.other.usage(KEY)).readers] == [2]
    assert cast("bool", running.cancelled())


async def test_a_server_begins_the_log_when_it_starts_though_nothing_is_read(world):
    assert (await world.other.readers_of([KEY]))[0].since == world.time()
    running = asyncio.create_task(world.recorder.run())

    async def begun() -> bool:
        return world.log.since is not None

    assert await becomes(begun)
    world.now.advance(60)

    (found,) = await world.other.readers_of([KEY])
    assert (found.since, found.now) == (world.time() - timedelta(seconds=60), world.time())
    running.cancel()


async def test_what_is_not_in_the_log_yet_is_read_now_by_its_clock(world):
    world.counts.read(BYTES, "jwt:cart")
    world.other_counts.read(BYTES, "jwt:cart")
    await world.other.flush()
    world.now.advance(10)

    found, nobody = await world.recorder.readers_of([KEY, KEY._replace(version="v2")])

    assert found.readers == [Reader("jwt:cart", 2, world.time())]
    assert nobody.readers == []
