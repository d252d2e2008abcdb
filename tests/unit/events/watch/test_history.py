"""What streams missed, from the store."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pointsman_server.domain.errors import EpochChanged, RevisionCompacted
from pointsman_server.domain.routes import Change
from pointsman_server.events.watch import history as module
from pointsman_server.events.watch.change_set import ChangeSet
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.history import History, Retention
from pointsman_server.events.watch.recent import RecentChanges
from pointsman_server.ports.store import ChangeQuery, Clock
from pointsman_server.runtime.fair_share import FairShare
from tests.support.changes import BEGINNING, make_change
from tests.support.fakes import MemoryStore

# Change sets: one change, three, two of an unknown set, two.
ENDS = {1: 1, 2: 4, 3: 4, 4: 4, 5: 0, 6: 0, 7: 8, 8: 8}
SETS = [[1], [2, 3, 4], [5], [6], [7, 8]]
NOW = BEGINNING + timedelta(seconds=60)


def make_store() -> MemoryStore:
    store = MemoryStore()
    store.changes = [
        replace(make_change(revision, "pay" if revision % 2 else "ship"), change_set_end=end)
        for revision, end in ENDS.items()
    ]
    store.epoch, store.revision = "e1", 8
    return store


def make_history(store: MemoryStore, retention: Retention | None = None) -> History:
    return History(store, FairShare(), retention or Retention(), now=lambda: NOW)


def make_recent(revision: int = 8, most: int = 100) -> RecentChanges:
    recent = RecentChanges(most)
    recent.start_over(revision)
    return recent


async def revisions(history: History, wanted: Filter, after: int) -> list[tuple[int, int]]:
    """Return the end of each set, and how many changes of it match."""
    return [(changes.clock.revision, len(changes)) async for changes in history.missed(wanted, Clock("e1", after))]


@pytest.mark.parametrize("page", [1, 2, 3, 4, 8, 100])
async def test_pages_are_put_together_to_sets(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", page)
    history = make_history(make_store())
    assert await revisions(history, Filter(), 0) == [(1, 1), (4, 3), (5, 1), (6, 1), (8, 2)]
    assert await revisions(history, Filter(), 4) == [(5, 1), (6, 1), (8, 2)]
    assert await revisions(history, Filter("", "pay"), 0) == [(1, 1), (4, 1), (5, 1), (8, 1)]
    assert await revisions(history, Filter("nobody"), 0) == []


@pytest.mark.parametrize(
    ("retention", "oldest"),
    [(Retention(3, 0), 6), (Retention(0, 0), 1), (Retention(0, 56 / 3600), 5), (Retention(8, 1), 1), (Retention(1), 8)],
)
async def test_what_is_compacted_is_refused(retention: Retention, oldest: int) -> None:
    history = make_history(make_store(), retention)
    for revision in range(8):
        if revision + 1 >= oldest:
            await history.check_kept(revision, Clock("e1", 8))
        else:
            with pytest.raises(RevisionCompacted):
                await history.check_kept(revision, Clock("e1", 8))
    await history.check_kept(8, Clock("e1", 8))


async def test_what_is_not_there_is_refused() -> None:
    store = make_store()
    del store.changes[:3]
    with pytest.raises(RevisionCompacted):
        await make_history(store).check_kept(2, Clock("e1", 8))
    await make_history(store).check_kept(3, Clock("e1", 8))
    store.changes.clear()
    with pytest.raises(RevisionCompacted):
        await make_history(store).check_kept(3, Clock("e1", 8))


async def test_changes_of_another_epoch_are_not_what_was_missed() -> None:
    """The database was restored meanwhile, or the token is of no revision that its epoch had."""
    store, recent = make_store(), make_recent()
    store.changes[4:] = [replace(change, epoch="e2") for change in store.changes[4:]]
    history = make_history(store)
    with pytest.raises(EpochChanged):
        await revisions(history, Filter(), 1)
    with pytest.raises(EpochChanged):
        await history.recall(recent, Clock("e1", 1))
    assert recent.count == 0
    with pytest.raises(RevisionCompacted):
        await history.check_kept(1, Clock("e2", 8))
    await history.check_kept(4, Clock("e2", 8))


@pytest.mark.parametrize("epoch", ["e1", "e2"])
async def test_half_a_set_is_not_given_when_the_rest_went_away(epoch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    store = make_store()
    read = []
    async with aclosing(make_history(store).missed(Filter(), Clock("e1", 0))) as sets:
        with pytest.raises(EpochChanged):  # noqa: PT012
            async for changes in sets:
                read.append(changes.clock.revision)
                # The database is restored to an older state; two changes of the next set have been read.
                del store.changes[1:]
                store.epoch, store.revision = epoch, 1
    assert read == [1]


async def test_what_streams_missed_is_read_into_memory() -> None:
    recent = make_recent()
    assert await make_history(make_store()).recall(recent, Clock("e1", 1))
    assert recent.complete_from == 1
    assert [changes.clock.revision for changes in recent.after(1)] == [4, 5, 6, 8]
    assert all(changes.events_of(Filter()) for changes in recent.after(1))


async def test_it_is_read_once_for_streams_that_resume_together() -> None:
    store, recent = make_store(), make_recent()
    history = make_history(store)
    store.before_list.close()
    resuming = [asyncio.create_task(history.recall(recent, Clock("e1", 4))) for _ in range(20)]
    await store.before_list.arrivals()
    await asyncio.sleep(0)
    assert store.before_list.waiting == 1
    store.before_list.open()
    assert await asyncio.gather(*resuming) == [True] * 20
    assert recent.count == 4


async def test_it_is_not_read_into_memory_when_it_is_too_much_or_ends_within_a_set() -> None:
    history = make_history(make_store())
    assert not await history.recall(make_recent(most=6), Clock("e1", 1))
    assert not await history.recall(make_recent(revision=7), Clock("e1", 1))
    assert not await history.recall(make_recent(revision=3), Clock("e1", 1))


async def test_it_is_not_put_before_the_changes_of_another_epoch() -> None:
    store, recent = make_store(), make_recent()
    store.before_list.close()
    recalling = asyncio.create_task(make_history(store).recall(recent, Clock("e1", 4)))
    await store.before_list.arrivals()
    recent.start_over(8)
    store.before_list.open()
    assert not await recalling
    assert recent.count == 0


async def test_only_a_few_pages_are_read_at_once() -> None:
    store = make_store()
    history = make_history(store)
    store.before_list.close()

    async def read() -> list[ChangeSet]:
        return [changes async for changes in history.sets(ChangeQuery(), "e1")]

    reading = [asyncio.create_task(read()) for _ in range(50)]
    await store.before_list.arrivals(module.READS)
    await asyncio.sleep(0)
    store.before_list.open()
    await asyncio.gather(*reading)
    assert store.before_list.peak == module.READS


def test_a_change_is_kept_up_to_its_age_and_count() -> None:
    change: Change = make_change(5)
    age = timedelta(hours=2)
    now = change.occur_time.astimezone(UTC) + age
    assert Retention(10, 2.1).keeps(change, 14, now)
    assert not Retention(10, 2.1).keeps(change, 15, now)
    assert not Retention(10, 1.9).keeps(change, 14, now)
    assert Retention(0, 0).keeps(change, 1_000_000, datetime(2999, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("wanted", [Filter(), Filter("", "pay")])
async def test_a_compaction_between_two_pages_leaves_no_gap(wanted: Filter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    store = make_store()
    history = make_history(store)
    async with aclosing(history.missed(wanted, Clock("e1", 0))) as sets:
        await anext(sets)
        store.compacted_revision = 6
        del store.changes[:6]
        with pytest.raises(RevisionCompacted):
            _ = [changes async for changes in sets]
