"""What ``if_unused_for`` refuses, by the reads of two servers with one log."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.errors import PointsmanError, RouteInUse, UsageNotCounted, UsageUnavailable
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.ports.usage_log import Reads
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.unused import Condition, UnusedCheck
from pointsman_server.reads.usage import UsageRecorder
from tests.support.fakes import ManualClock
from tests.support.usage_log import MemoryUsageLog

V1 = RouteKey("team-a", "payments", "prod", "v1")
V2, V3 = V1._replace(version="v2"), V1._replace(version="v3")
WINDOW = 3600.0


class World:
    """A server that checks, and the log in which others have counted. The server's own clock is an hour ahead."""

    def __init__(self, window: float = WINDOW) -> None:
        self.now = ManualClock()
        self.log = MemoryUsageLog(self.now, WINDOW)
        self.log.since, self.log.kept = self.now() - 2 * WINDOW, self.now()
        self.counts = ReadCounts()
        self.recorder = UsageRecorder(self.counts, self.log, window=window, now=lambda: self.time(3600))
        self.routes: dict[RouteKey, Route] = {}
        self.check = UnusedCheck(self.recorder, self.load)

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        assert keys
        return [Snapshot(key, self.routes.get(key), 1) for key in keys]

    def create(self, key: RouteKey) -> None:
        self.routes[key] = Route(key, "https://a.internal", True, {}, 1, self.time(), self.time())

    def time(self, ahead: float = 0.0) -> datetime:
        return datetime.fromtimestamp(self.now() + ahead, UTC)

    async def read(self, key: RouteKey, subject: str) -> datetime:
        await self.log.add([Reads(key, subject, 1)])
        return self.time()

    async def refusal(self, key: RouteKey, seconds: float) -> PointsmanError | None:
        (refusal,) = await self.check.refusals([Condition(key, seconds)])
        return refusal


@pytest.fixture
def world() -> World:
    return World()


async def test_a_route_that_nobody_has_read_is_unused(world):
    assert await world.refusal(V1, WINDOW) is None


async def test_a_route_in_use_names_its_readers_the_latest_first(world):
    earlier = await world.read(V1, "jwt:cart")
    world.now.advance(30)
    later = await world.read(V1, "key:checkout")
    world.now.advance(30)

    refusal = await world.refusal(V1, 300)

    assert isinstance(refusal, RouteInUse)
    assert refusal.metadata == {
        "key": "team-a/payments/prod/v1",
        "readers": f"key:checkout {later:%Y-%m-%dT%H:%M:%SZ}, jwt:cart {earlier:%Y-%m-%dT%H:%M:%SZ}",
    }


async def test_only_reads_within_the_time_count_by_the_clock_of_the_log(world):
    await world.read(V1, "jwt:cart")
    world.now.advance(59)
    assert isinstance(await world.refusal(V1, 60), RouteInUse)
    world.now.advance(1)
    assert await world.refusal(V1, 60) is None


async def test_reads_of_this_server_count_before_they_are_in_the_log(world):
    world.counts.read(key_to_bytes(V1), "jwt:cart")

    assert isinstance(await world.refusal(V1, 15), RouteInUse)
    assert await world.refusal(V2, 15) is None


async def test_what_cannot_be_told_is_not_unused(world):
    world.log.down = True
    assert isinstance(await world.refusal(V1, 60), UsageUnavailable)


async def test_after_a_loss_only_what_is_known_since_counts(world):
    world.create(V1)
    world.now.advance(600)
    await world.recorder.flush()
    world.log.lose()
    assert isinstance(await world.refusal(V1, 15), UsageUnavailable)

    await world.recorder.flush()
    world.now.advance(40)
    refusal = await world.refusal(V1, 60)
    assert isinstance(refusal, UsageUnavailable)
    assert refusal.metadata == {"known": "40s"}
    assert "reads are known for the last 40 seconds only" in refusal.message
    assert await world.refusal(V1, 40) is None

    # A read is one, however little is known.
    await world.read(V1, "jwt:cart")
    assert isinstance(await world.refusal(V1, 60), RouteInUse)


async def test_a_route_that_is_younger_than_what_is_known_was_not_read_before(world):
    world.create(V1)
    world.now.advance(600)
    world.log.lose()
    await world.recorder.flush()
    world.create(V2)

    assert isinstance(await world.refusal(V1, 60), UsageUnavailable)
    assert await world.refusal(V2, 60) is None
    # One that does not exist is refused for that.
    assert await world.refusal(V3, 60) is None


async def test_reads_are_known_for_a_window_only(world):
    assert await world.refusal(V1, WINDOW) is None
    refusal = await world.refusal(V1, WINDOW + 0.5)
    assert isinstance(refusal, UsageNotCounted)
    assert refusal.metadata == {"window": "3600s"}


async def test_where_reads_are_not_counted_nothing_is_unused():
    world = World(window=0)
    refusal = await world.refusal(V1, 15)
    assert isinstance(refusal, UsageNotCounted)
    assert refusal.metadata == {"window": "0s"}


async def test_many_conditions_are_checked_each_for_its_own_route(world):
    await world.read(V2, "jwt:cart")
    world.now.advance(20)
    conditions = [Condition(V1, 60), Condition(V2, 60), Condition(V2, 15), Condition(V3, 2 * WINDOW)]

    refusals = await world.check.refusals(conditions)

    assert [type(refusal) for refusal in refusals] == [type(None), RouteInUse, type(None), UsageNotCounted]
    assert await world.check.refusals([]) == []


async def test_a_text_names_a_few_readers_and_how_many_more(world):
    for number in range(20):
        await world.read(V1, f"key:{number}")

    refusal = await world.refusal(V1, 60)

    assert refusal is not None
    assert refusal.message.count("key:") == 3
    assert refusal.message.endswith(" and 17 more")
    assert refusal.metadata["readers"].count("key:") == 16
