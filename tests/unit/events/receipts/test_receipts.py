"""When watchers are asked what they have applied, and what is made of their reports."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count

import pytest

from pointsman_server.domain.errors import InvalidField, StoreUnavailable
from pointsman_server.events.receipts import receipts as module
from pointsman_server.events.receipts.receipts import AGAIN_SECONDS, LONGEST_AGAIN_SECONDS, RENEW_SECONDS, Receipts
from pointsman_server.events.watch.filters import Filter
from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import OpenWatch, WatchName
from tests.support.fakes import ManualClock
from tests.support.waiting import becomes
from tests.support.watcher_registry import MemoryWatcherRegistry

ALL = Filter()
_numbers = count(1)


def watch(subject: str = "jwt:cache", tenant: str = "team-a") -> OpenWatch:
    name = WatchName(f"watcher-{next(_numbers):012d}", subject, tenant)
    return OpenWatch(name, "checkout", "ipv4:127.0.0.1:1", datetime.now(UTC))


class Hub:
    """Records what is asked of the streams."""

    def __init__(self) -> None:
        self.epoch = "e"
        self.requests: list[int] = []

    def request_progress(self, revision: int) -> None:
        self.requests.append(revision)


class Store:
    def __init__(self) -> None:
        self.current = Clock("e", 10)
        self.known = Clock("e", 10)
        self.down = False
        self.asked = 0

    async def clock(self) -> Clock:
        self.asked += 1
        if self.down:
            raise StoreUnavailable
        return self.current

    def known_clock(self) -> Clock:
        return self.known


class World:
    """Two servers, with one registry and one store."""

    def __init__(self) -> None:
        self.now = ManualClock()
        self.registry = MemoryWatcherRegistry(self.now)
        self.store = Store()
        self.reported = 0
        self.hub, self.other_hub = Hub(), Hub()
        self.receipts, self.other = self.make("a", self.hub), self.make("b", self.other_hub)

    def make(self, server: str, hub: Hub) -> Receipts:
        return Receipts(
            hub,
            self.registry,
            self.store.clock,
            self.store.known_clock,
            server=server,
            reported=self._count,
            now=self.now,
        )

    def _count(self) -> None:
        self.reported += 1

    async def step(self, seconds: float = 0.25) -> None:
        self.now.advance(seconds)
        await self.receipts.step()
        await self.other.step()

    async def counts(self, revision: int = 10, of: Filter = ALL, *, at: Receipts | None = None) -> tuple[int, int]:
        found = await (at or self.receipts).propagation(revision, of)
        return found.watchers, found.applied


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def opened(world: World) -> Iterator[OpenWatch]:
    """A watch at the first server."""
    one = watch()
    with world.receipts.watching(one):
        yield one


async def test_nobody_is_asked_before_somebody_wants_to_know(world, opened):
    for _ in range(10):
        await world.step()
    assert world.hub.requests == world.other_hub.requests == []


async def test_a_watcher_counts_once_it_has_reported(world, opened):
    found = await world.receipts.propagation(10, ALL)
    assert (found.watchers, found.applied, found.all_servers) == (1, 0, True)
    assert [laggard.watch for laggard in found.behind] == [opened]
    assert world.hub.requests == [10]

    await world.receipts.report(opened.name, Clock("e", 9))
    assert await world.counts() == (1, 0)
    await world.receipts.report(opened.name, Clock("e", 10))
    assert await world.counts() == (1, 1)
    assert world.reported == 2


async def test_it_counts_for_every_server_and_may_report_to_any(world, opened):
    await world.step()
    assert await world.counts(at=world.other) == (1, 0)
    assert world.hub.requests == []
    await world.step()
    assert (world.hub.requests, world.other_hub.requests) == ([10], [])

    await world.other.report(opened.name, Clock("e", 10))

    assert await world.counts(at=world.other) == (1, 1)
    assert await world.counts() == (1, 1)


async def test_no_other_subject_vouches_for_it_nor_takes_back_what_it_reported(world, opened):
    await world.step()
    mallory = opened.name._replace(subject="jwt:mallory")
    for server in (world.receipts, world.other):
        await server.report(mallory, Clock("e", 10))
    assert await world.counts() == (1, 0)

    await world.receipts.report(opened.name, Clock("e", 10))
    await world.receipts.report(mallory, Clock("e", 1))
    assert await world.counts() == await world.counts(at=world.other) == (1, 1)


async def test_those_who_have_applied_a_revision_of_another_epoch_have_not_applied_it(world, opened):
    await world.receipts.report(opened.name, Clock("e", 10))
    world.store.current = Clock("new", 7)
    world.hub.epoch = "new"

    assert await world.counts(7) == (1, 0)
    assert world.hub.requests == [7]
    await world.receipts.report(opened.name, Clock("e", 10))
    assert await world.counts(7) == (1, 0)
    await world.receipts.report(opened.name, Clock("new", 7))
    assert await world.counts(7) == (1, 1)


async def test_a_server_in_another_epoch_does_not_ask(world, opened):
    world.hub.epoch = "old"
    await world.counts()
    await world.step()
    assert world.hub.requests == []
    world.hub.epoch = "e"
    await world.step()
    assert world.hub.requests == [10]


async def test_a_report_of_a_revision_that_does_not_exist_is_refused(world, opened):
    with pytest.raises(InvalidField, match=r"applied.revision: must be a revision that exists: the last one is 10"):
        await world.receipts.report(opened.name, Clock("e", 11))
    world.store.current = Clock("e", 11)
    assert await world.counts(11) == (1, 0)
    await world.receipts.report(opened.name, Clock("e", 11))
    assert await world.counts(11) == (1, 1)


async def test_many_reports_of_a_revision_that_is_new_to_the_server_ask_the_store_once(world, opened):
    world.store.current = Clock("e", 11)
    reports = (world.receipts.report(opened.name, Clock("e", 11)) for _ in range(100))
    await asyncio.gather(*reports)
    assert world.store.asked == 1


async def test_an_inquiry_about_the_future_does_not_hide_one_about_the_present(world, opened):
    await world.step()
    assert await world.counts(1_000_000, at=world.other) == (1, 0)
    assert await world.counts(10, at=world.other) == (1, 0)
    await world.step()
    assert world.hub.requests == [10]


async def test_all_are_asked_once_for_a_revision_and_again_only_while_one_is_behind(world, opened):
    for _ in range(4):
        await world.counts()
        await world.step(AGAIN_SECONDS / 5)
    assert world.hub.requests == [10]

    await world.counts()
    await world.step(AGAIN_SECONDS)
    assert world.hub.requests == [10, 10]
    await world.counts()
    await world.step(AGAIN_SECONDS)
    assert world.hub.requests == [10, 10]

    await world.other.report(opened.name, Clock("e", 10))
    for _ in range(3):
        await world.registry.inquire(Clock("e", 10))
        await world.step(LONGEST_AGAIN_SECONDS)
    assert world.hub.requests == [10, 10]
    await world.counts(12)
    world.store.current = Clock("e", 12)
    await world.counts(12)
    assert world.hub.requests == [10, 10, 12]


async def test_a_second_inquiry_about_the_same_revision_asks_at_once(world, opened):
    await world.counts()
    await world.receipts.report(opened.name, Clock("e", 10))
    await world.step(60)
    with world.receipts.watching(watch()):
        assert await world.counts() == (2, 1)
    assert world.hub.requests == [10, 10]


async def test_many_watchers_are_not_asked_more_often_than_they_can_report(world, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_PER_WATCH", 1.0)
    with opened_watches(world, 10):
        await world.counts()
        world.store.current = Clock("e", 11)
        await world.counts(11)
        await world.step(5)
        assert world.hub.requests == [10]
        await world.counts(11)
        await world.step(5)
        assert world.hub.requests == [10, 11]


async def test_only_the_watchers_whose_filters_overlap_count(world, opened):
    with world.receipts.watching(watch(tenant="team-b")), world.receipts.watching(watch(tenant="")):
        assert [(await world.counts(of=Filter(tenant)))[0] for tenant in ("team-a", "team-b", "team-c", "")] == [
            2,
            2,
            1,
            3,
        ]


async def test_a_watch_that_has_ended_does_not_count(world):
    one = watch()
    with world.receipts.watching(one):
        await world.step()
    assert await world.counts() == (0, 0)
    assert await world.counts(at=world.other) == (1, 0)
    await world.step()
    assert await world.counts(at=world.other) == (0, 0)


async def test_the_watches_of_a_server_that_was_killed_vanish(world, opened):
    await world.step()
    world.now.advance(60)
    await world.other.step()
    assert await world.counts(at=world.other) == (0, 0)


async def test_watches_are_published_again_before_they_expire(world, opened):
    for _ in range(30):
        await world.step(RENEW_SECONDS)
        assert await world.counts(at=world.other) == (1, 0)


async def test_watches_that_the_registry_lost_are_published_again_and_asked_again(world, opened):
    await world.step()
    await world.counts(at=world.other)
    await world.step()
    await world.receipts.report(opened.name, Clock("e", 10))
    world.registry.lose_everything()
    # The renewal shows that they are lost, and the step after it publishes them.
    await world.step(RENEW_SECONDS)
    await world.step()
    assert (await world.counts(at=world.other))[0] == 1

    # What was reported to this server is known to it alone, and is reported again when the other one asks.
    assert await world.counts() == (1, 1)


async def test_a_change_that_was_not_published_is_published_later(world, opened):
    await world.step()
    world.registry.down = True
    with world.receipts.watching(watch()):
        with pytest.raises(module.RegistryUnavailable):
            await world.step()
        world.registry.down = False
        await world.step()
        assert await world.counts(at=world.other) == (2, 0)


async def test_without_the_registry_only_the_watchers_of_this_server_are_known(world, opened):
    world.registry.down = True
    found = await world.receipts.propagation(10, ALL)
    assert (found.watchers, found.applied, found.all_servers) == (1, 0, False)
    assert world.hub.requests == [10]
    await world.receipts.report(opened.name, Clock("e", 10))
    await world.other.report(opened.name, Clock("e", 10))

    found = await world.receipts.propagation(10, ALL)
    assert (found.watchers, found.applied, found.all_servers) == (1, 1, False)
    assert (await world.other.propagation(10, ALL)).watchers == 0


async def test_while_the_store_is_down_what_is_known_of_it_counts(world, opened):
    world.store.down = True
    await world.receipts.report(opened.name, Clock("e", 10))
    assert await world.counts() == (1, 1)
    with pytest.raises(StoreUnavailable):
        await world.receipts.report(opened.name, Clock("e", 11))
    world.store.known = Clock("", 0)
    with pytest.raises(StoreUnavailable):
        await world.counts()


async def test_it_runs_until_it_is_cancelled_and_takes_its_watches_away(world, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)
    running = asyncio.create_task(world.receipts.run())
    await asyncio.sleep(0.01)
    with world.receipts.watching(watch()):

        async def published() -> bool:
            return await world.counts(at=world.other) == (1, 0)

        assert await becomes(published)
        assert await becomes(lambda: _asked(world))
        running.cancel()
        await asyncio.wait([running])
        assert await world.counts(at=world.other) == (0, 0)


async def test_it_runs_on_when_the_registry_fails(world, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)
    world.registry.down = True
    running = asyncio.create_task(world.receipts.run())
    with world.receipts.watching(watch()):
        await asyncio.sleep(0.01)
        world.registry.down = False

        async def published() -> bool:
            return await world.counts(at=world.other) == (1, 0)

        assert await becomes(published)
    running.cancel()
    await asyncio.wait([running])


async def _asked(world: World) -> bool:
    return world.hub.requests == [10]


@contextmanager
def opened_watches(world: World, number: int) -> Iterator[None]:
    if not number:
        yield
        return
    with world.receipts.watching(watch()), opened_watches(world, number - 1):
        yield


async def test_another_hub_is_asked_too_and_knows_what_its_watches_have(world):
    """Clients that report by other ways than ReportProgress."""
    quiet = Hub()
    world.hub.epoch = ""
    world.receipts.ask_also(quiet)
    one = watch()
    world.receipts.open(one)
    assert await world.counts() == (1, 0)
    assert (world.hub.requests, quiet.requests) == ([], [10])
    assert not await world.receipts.note([one.name], Clock("e", 10)), "it is not published yet"
    assert await world.counts() == (1, 1)
    await world.step()
    assert await world.receipts.note([one.name], Clock("e", 10))
    assert await world.counts(at=world.other) == (1, 1)
    world.receipts.close(one)
    await world.step()
    assert await world.counts(at=world.other) == (0, 0)


async def test_without_the_registry_other_servers_do_not_know_what_is_noted(world, opened):
    world.registry.down = True
    assert not await world.receipts.note([opened.name], Clock("e", 10))
    assert await world.counts() == (1, 1)
