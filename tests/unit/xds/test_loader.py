"""The loader: when there is a table, what it has, and what streams hear of it."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import Change, Route
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.events.feed import Feed
from pointsman_server.ports.store import Clock, RouteQuery
from pointsman_server.ports.store import Table as Scanned
from pointsman_server.runtime.backoff import Backoff
from pointsman_server.runtime.fair_share import FairShare, Window
from pointsman_server.writes.mutations import Activate, Deactivate, Delete, SetTraffic, Update
from pointsman_server.xds import loader as module
from pointsman_server.xds.loader import TableLoader
from pointsman_server.xds.names import root_name
from tests.support.fakes import Gate, MemoryStore
from tests.support.waiting import becomes
from tests.support.xds_history import HISTORIES, KEYS, ROOTS, History, content

V1, BIG_V1, V2 = KEYS[:3]
FAMILY = V1.family_key


class Stream:
    """A stream that watches every root, and what they led to whenever it took its news."""

    def __init__(self, loader: TableLoader) -> None:
        self.snapshot = loader.snapshot
        for root in ROOTS:
            self.snapshot.subscribe(root, self)
        self.seen: list[dict[str, Any]] = []
        self.roots: list[set[str]] = []

    def wake(self, window: Window) -> None:
        self.roots.append(set(self.snapshot.news(self) or ()))
        self.seen.append({root: self.snapshot.target(root) for root in ROOTS})


def upsert(key: Any, url: str) -> Update:
    return Update(key, url, allow_missing=True)


def boundaries(written: History) -> list[Any]:
    """Return what the store held after each change set."""
    again = History()
    table = again.table()
    states = [content(table)]
    for changes in written.sets:
        table.apply(changes)
        states.append(content(table))
    return states


@pytest.fixture
def written() -> History:
    return History()


@pytest.fixture
async def loader(written: History) -> AsyncIterator[TableLoader]:
    loader = TableLoader(written.store, backoff=Backoff(0.001, 0.002))
    running = asyncio.create_task(loader.run())
    yield loader
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    async def held() -> object:
        return holds()

    assert await becomes(held)


def clock(store: MemoryStore) -> Clock:
    return Clock(store.epoch, store.revision)


async def test_there_is_nothing_before_the_first_table(written: History, loader: TableLoader) -> None:
    await written.commit([upsert(V1, "https://one.internal"), upsert(V2, "https://two.internal")])
    await written.commit([SetTraffic(FAMILY, Division((Target("v1", 9_000), Target("v2", 1_000))))])
    written.store.before_scan.close()
    loading = asyncio.create_task(loader.loaded())
    loader.start_over(clock(written.store))
    await written.store.before_scan.arrivals()
    assert not loader.has_loaded
    assert not loading.done()
    written.store.before_scan.open()
    await loading
    assert loader.has_loaded
    assert loader.is_current
    assert content(loader.snapshot.table) == content(written.table())


async def test_before_the_first_table_it_is_as_of_nothing_and_shares_what_it_was_given(written: History) -> None:
    share = GatedShare()
    loader = TableLoader(written.store, share)
    assert (loader.snapshot.clock, len(loader.snapshot.table)) == (Clock("", 0), 0)
    share.gate.close()
    turn = asyncio.create_task(loader.snapshot.turn())
    await share.gate.arrivals()
    share.gate.open()
    await turn


def test_its_pauses_are_those_of_the_module(written: History, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[float, ...]] = []
    monkeypatch.setattr(module, "Backoff", lambda *pauses: made.append(pauses))
    TableLoader(written.store)
    assert made == [(module.FIRST_PAUSE_SECONDS, module.LONGEST_PAUSE_SECONDS)]


async def test_it_is_confirmed_while_it_is_current(written: History, loader: TableLoader) -> None:
    loader.confirm(1.0)
    loader.start_over(clock(written.store))
    await loader.loaded()
    assert loader.confirmed == -math.inf
    loader.confirm(2.0)
    assert loader.confirmed == 2.0


async def test_changes_while_it_loads_are_merged(written: History, loader: TableLoader) -> None:
    await written.commit([upsert(V1, "https://one.internal"), upsert(V2, "https://two.internal")])
    written.store.before_scan.close()
    loader.start_over(clock(written.store))
    await written.store.before_scan.arrivals()
    for mutations in (
        [upsert(V1, "https://later.internal"), Delete(V2)],
        [upsert(BIG_V1, "https://new.internal"), SetTraffic(FAMILY, Division((Target("v1", 10_000),), ("V1",)))],
    ):
        loader.apply(await written.commit(mutations))
    written.store.before_scan.open()
    await loader.loaded()
    assert content(loader.snapshot.table) == content(written.table())


async def test_a_table_that_is_ahead_of_the_feed_does_not_go_back(written: History, loader: TableLoader) -> None:
    """The feed repeats what the table has; without care the older change would replace the later one for a moment."""
    start = clock(written.store)
    await written.commit([upsert(V1, "https://one.internal"), upsert(V2, "https://two.internal")])
    await written.commit([upsert(V1, "https://later.internal")])
    loader.start_over(start)
    # The feed is in the middle of a set when the table is there.
    loader.apply(written.sets[0][:1])
    await loader.loaded()
    stream = Stream(loader)
    loader.apply(written.sets[0][1:])
    assert loader.snapshot.target(root_name(V1)).slots[0].url == "https://later.internal"
    assert loader.snapshot.clock == clock(written.store)
    loader.apply(written.sets[1])
    assert not loader.snapshot.has_news(stream)
    loader.apply(await written.commit([Deactivate(V1)]))
    assert loader.snapshot.has_news(stream)
    assert content(loader.snapshot.table) == content(written.table())


async def test_an_incomplete_set_waits_for_its_end(written: History, loader: TableLoader) -> None:
    loader.start_over(clock(written.store))
    await loader.loaded()
    stream = Stream(loader)
    first, second = await written.commit([upsert(V1, "https://one.internal"), upsert(V2, "https://two.internal")])
    loader.apply([first])
    assert not loader.snapshot.has_news(stream)
    assert loader.snapshot.clock.revision == 0
    loader.apply([second])
    assert set(loader.snapshot.news(stream) or ()) >= {root_name(V1), root_name(V2)}


@pytest.mark.parametrize("cause", ["gap", "epoch", "start"])
async def test_it_is_loaded_again_beside_the_one_before(written: History, loader: TableLoader, cause: str) -> None:
    store = written.store
    await written.commit([upsert(V1, "https://one.internal"), upsert(V2, "https://two.internal")])
    loader.start_over(clock(store))
    await loader.loaded()
    stream = Stream(loader)
    before = content(loader.snapshot.table)

    store.before_scan.close()
    changes = await written.commit([upsert(V1, "https://later.internal")])
    if cause == "gap":
        loader.apply(await written.commit([Activate(V1), upsert(V1, "https://last.internal")]))
    else:
        if cause == "epoch":
            store.epoch = "another"
        loader.start_over(clock(store))
    assert changes
    await store.before_scan.arrivals()
    assert content(loader.snapshot.table) == before
    assert (loader.has_loaded, loader.is_current) == (True, False)
    assert not stream.roots
    store.before_scan.open()
    await until(lambda: loader.is_current)
    await until(lambda: stream.roots)
    # Differences alone: the other version is as it was.
    assert root_name(V1) in stream.roots[0]
    assert root_name(V2) not in stream.roots[0]
    assert loader.snapshot.target(root_name(V1)) == content(written.table())[2][root_name(V1)]  # type: ignore[index]
    assert loader.snapshot.clock.epoch == store.epoch


async def test_a_feed_that_starts_over_where_it_was_changes_nothing(written: History, loader: TableLoader) -> None:
    await written.commit([upsert(V1, "https://one.internal")])
    loader.start_over(clock(written.store))
    await loader.loaded()
    written.store.before_scan.close()
    loader.start_over(clock(written.store))
    assert loader.is_current
    # Also in the middle of a set.
    first, second = await written.commit([upsert(V1, "https://a.internal"), upsert(V2, "https://b.internal")])
    loader.apply([first])
    loader.start_over(Clock(first.epoch, first.revision))
    loader.apply([second])
    assert content(loader.snapshot.table) == content(written.table())


@pytest.mark.parametrize("failure", [StoreUnavailable(), RuntimeError("broken")])
async def test_a_store_that_cannot_be_reached_withdraws_nothing(written: History, failure: Exception) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    loader = TableLoader(written.store, backoff=Backoff(1, 8, sleep=sleep))
    running = asyncio.create_task(loader.run())
    await written.commit([upsert(V1, "https://one.internal")])
    loader.start_over(clock(written.store))
    await loader.loaded()
    before = content(loader.snapshot.table)
    stream = Stream(loader)
    written.store.failure = failure
    loader.start_over(Clock("another", 1))
    await until(lambda: len(pauses) > 5)
    assert content(loader.snapshot.table) == before
    assert not stream.roots
    # Each is shortened by up to half.
    assert [pause > bound / 2 for pause, bound in zip(pauses, (1, 2, 4, 8, 8), strict=False)] == [True] * 5
    written.store.failure, written.store.epoch = None, "another"
    await until(lambda: loader.is_current)
    assert loader.snapshot.clock.epoch == "another"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_store_that_was_restored_to_an_older_state(written: History, loader: TableLoader) -> None:
    """The feed notices later than the loader reads: what was loaded of another epoch is not served before that."""
    await written.commit([upsert(V1, "https://one.internal")])
    await written.commit([Deactivate(V1), upsert(V2, "https://two.internal")])
    older = History()
    await older.commit([upsert(V1, "https://one.internal")])
    older.store.epoch = "restored"
    loader.start_over(clock(written.store))
    await loader.loaded()
    stream = Stream(loader)
    reads = 0
    scan = older.store.scan

    @asynccontextmanager
    async def counted(query: RouteQuery) -> AsyncIterator[Scanned]:
        nonlocal reads
        reads += 1
        async with scan(query) as scanned:
            yield scanned

    older.store.scan = counted  # type: ignore[method-assign]
    loader._store = older.store
    loader._begin_again(clock(written.store))
    await until(lambda: reads > 2)
    assert not loader.is_current
    assert loader.snapshot.clock == clock(written.store)
    loader.start_over(clock(older.store))
    await until(lambda: loader.is_current)
    await until(lambda: stream.roots)
    assert content(loader.snapshot.table) == content(older.table())
    assert root_name(V2) in stream.roots[0]


@pytest.mark.parametrize(("epoch", "more"), [("another", 0), ("", 1)])
async def test_a_table_of_another_epoch_or_an_earlier_revision_than_the_feed_has_is_not_served(
    written: History, epoch: str, more: int
) -> None:
    await written.commit([upsert(V1, "https://one.internal")])
    loader = TableLoader(written.store)
    loader.start_over(Clock(epoch or written.store.epoch, written.store.revision + more))
    assert not await loader.load()
    assert not loader.has_loaded


async def test_a_subscriber_that_raises_is_loaded_again(written: History) -> None:
    store = written.store
    loader = TableLoader(store, backoff=Backoff(0.001, 0.002))
    feed = Feed(store, None, poll_seconds=0)
    feed.subscribe(loader)
    running = asyncio.create_task(loader.run())
    await feed.step()
    await loader.loaded()
    apply = loader.snapshot.apply

    def broken(changes: Sequence[Change]) -> None:
        apply(changes[:1])
        raise RuntimeError("broken")

    loader.snapshot.apply = broken  # type: ignore[method-assign]
    await written.commit([upsert(V1, "https://one.internal"), upsert(V2, "https://two.internal")])
    await feed.step()
    loader.snapshot.apply = apply  # type: ignore[method-assign]
    await until(lambda: loader.is_current)
    assert content(loader.snapshot.table) == content(written.table())
    await written.commit([Deactivate(V1)])
    await feed.step()
    assert content(loader.snapshot.table) == content(written.table())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class CountedShare(FairShare):
    """A fair share that counts the turns."""

    turns = 0

    async def take(self) -> None:
        self.turns += 1
        await super().take()


async def test_it_takes_turns_with_other_work(written: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 1)
    share = CountedShare()
    await written.commit([upsert(key, "https://one.internal") for key in KEYS])
    loader = TableLoader(written.store, share)
    loader.start_over(clock(written.store))
    assert await loader.load()
    assert share.turns == len(KEYS)


async def test_it_takes_turns_while_it_catches_up(written: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 1)
    share = CountedShare()
    loader = TableLoader(written.store, share)
    written.store.before_scan.close()
    loader.start_over(clock(written.store))
    loading = asyncio.create_task(loader.load())
    await written.store.before_scan.arrivals()
    loader.apply(await written.commit([upsert(key, "https://one.internal") for key in KEYS]))
    written.store.before_scan.open()
    assert await loading
    assert share.turns == len(KEYS) - 1


class SlowStore(MemoryStore):
    """One whose scan can be stopped between batches, too."""

    def __init__(self) -> None:
        super().__init__()
        self.between = Gate()

    @asynccontextmanager
    async def scan(self, query: RouteQuery) -> AsyncIterator[Scanned]:
        async with super().scan(query) as scanned:

            async def batches() -> AsyncIterator[Sequence[Route]]:
                async for batch in scanned.batches:
                    await self.between.passing()
                    yield batch

            yield Scanned(scanned.clock, batches(), scanned.traffic)


# What may happen between two steps of the event loop: a commit, a piece of the feed, a start over, a gap.
STEPS = st.lists(
    st.sampled_from(["commit", "feed", "feed", "feed", "turn", "turn", "start", "gap", "stop", "go"]), max_size=40
)


@given(HISTORIES, STEPS, st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_a_stream_sees_whole_sets_alone_in_any_interleaving(history, steps, piece) -> None:  # type: ignore[no-untyped-def]
    asyncio.run(interleave(history, steps, piece))


class Interleaving:
    """A loader, a stream, and what happens to them in some order."""

    def __init__(self, history: Any, piece: int) -> None:
        self.store = SlowStore()
        self.written = History(self.store)
        self.loader = TableLoader(self.store, backoff=Backoff(1, 1, sleep=lambda _: asyncio.sleep(0)))
        self.pending = list(history)
        self.piece = piece
        self.changes: list[Change] = []
        self.fed = 0
        self.stream: Stream | None = None
        self.loader.start_over(Clock(self.store.epoch, 0))

    async def take(self, step: str) -> None:
        await getattr(self, f"_{step}")()
        if self.loader.has_loaded and self.stream is None:
            self.stream = Stream(self.loader)

    async def _commit(self) -> None:
        if self.pending:
            self.changes += await self.written.commit(self.pending.pop(0))

    async def _feed(self) -> None:
        if some := self.changes[self.fed : self.fed + self.piece]:
            self.loader.apply(some)
            self.fed += len(some)

    async def _turn(self) -> None:
        await asyncio.sleep(0)

    async def _start(self) -> None:
        """As after another subscriber raised, or a restart of the feed: at any revision from where it is."""
        self.fed = len(self.changes) if len(self.changes) % 2 else self.fed
        self.loader.start_over(Clock(self.store.epoch, self.fed))

    async def _gap(self) -> None:
        if some := self.changes[self.fed + 1 : self.fed + 2]:
            self.loader.apply(some)
            self.fed += 1 + len(some)

    async def _stop(self) -> None:
        self.store.between.close()

    async def _go(self) -> None:
        self.store.between.open()


async def interleave(history: Any, steps: Sequence[str], piece: int) -> None:
    case = Interleaving(history, piece)
    running = asyncio.create_task(case.loader.run())
    for step in [*steps, *["commit"] * len(history), "go", *["feed"] * 60]:
        await case.take(step)
    await until(lambda: case.loader.is_current)
    assert content(case.loader.snapshot.table) == content(case.written.table())
    if case.stream is not None:
        check_order([state[2] for state in boundaries(case.written)], case.stream.seen)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def check_order(states: Sequence[Any], seen: Sequence[Any]) -> None:
    """Check that each thing seen is a state at the end of a set, and none older than the one before."""
    at = 0
    for one in seen:
        places = [number for number, state in enumerate(states) if state == one]
        assert places, "a stream saw a part of a set"
        assert places[-1] >= at, "a stream saw an older state after a newer one"
        at = next(place for place in places if place >= at)


class GatedShare(FairShare):
    """A fair share whose turns a test can stop."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    async def take(self) -> None:
        await self.gate.passing()
        await super().take()


class TestRaces:
    """What happens while a table is loaded: each fails without its remedy."""

    async def test_an_older_change_of_what_the_table_has_is_not_applied(
        self, written: History, loader: TableLoader
    ) -> None:
        start = clock(written.store)
        await written.commit([upsert(V1, "https://one.internal")])
        await written.commit([upsert(V1, "https://later.internal")])
        written.store.before_scan.close()
        loader.start_over(start)
        await written.store.before_scan.arrivals()
        loader.apply(written.sets[0])
        written.store.before_scan.open()
        await loader.loaded()
        assert content(loader.snapshot.table) == content(written.table())

    async def test_changes_of_an_epoch_that_ended_are_not_applied(self, written: History, loader: TableLoader) -> None:
        written.store.before_scan.close()
        loader.start_over(clock(written.store))
        await written.store.before_scan.arrivals()
        for _ in range(3):
            loader.apply(await written.commit([upsert(V1, f"https://lost-{written.store.revision}.internal")]))
        restored = History()
        await restored.commit([upsert(V1, "https://one.internal")])
        restored.store.epoch = "another"
        loader._store = restored.store
        loader.start_over(clock(restored.store))
        written.store.before_scan.open()
        await loader.loaded()
        assert content(loader.snapshot.table) == content(restored.table())

    async def test_a_change_of_what_was_compared_already(self, written: History) -> None:
        share = GatedShare()
        loader = TableLoader(written.store, share)
        await written.commit([upsert(V1, "https://one.internal")])
        loader.start_over(clock(written.store))
        assert await loader.load()
        stream = Stream(loader)
        await written.commit([upsert(V2, "https://two.internal")])
        loader.start_over(clock(written.store))
        await self.stop_in_compare(loader, share)
        # Compared as it was before this.
        loader.apply(await written.commit([upsert(V1, "https://later.internal")]))
        await self.go_on(share)
        assert loader.is_current
        assert set(loader.snapshot.news(stream) or ()) >= {root_name(V1), root_name(V2)}
        assert {root: loader.snapshot.target(root) for root in ROOTS} == content(written.table())[2]

    async def test_what_was_compared_is_not_looked_at_again(
        self, written: History, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loader = TableLoader(written.store)
        loader.start_over(clock(written.store))
        assert await loader.load()
        Stream(loader)
        replaced: list[Any] = []
        monkeypatch.setattr(loader.snapshot, "replace", lambda _table, compared: replaced.append(compared))
        await written.commit([upsert(V1, "https://one.internal")])
        loader.start_over(clock(written.store))
        assert await loader.load()
        assert [set(each) for each in replaced] == [set(ROOTS)]

    async def test_a_gap_while_it_compares(self, written: History) -> None:
        share = GatedShare()
        loader = TableLoader(written.store, share)
        await written.commit([upsert(V1, "https://one.internal")])
        loader.start_over(clock(written.store))
        assert await loader.load()
        Stream(loader)
        loader._begin_again(clock(written.store))
        await self.stop_in_compare(loader, share)
        await written.commit([upsert(V2, "https://lost.internal")])
        loader.apply(await written.commit([upsert(V1, "https://later.internal")]))
        await self.go_on(share)
        assert not loader.is_current
        assert not self.loading.result()
        assert await loader.load()
        assert content(loader.snapshot.table) == content(written.table())

    async def stop_in_compare(self, loader: TableLoader, share: GatedShare) -> None:
        compare = loader.snapshot.compare

        async def stopped(table: Any) -> Any:
            compared = await compare(table)
            share.gate.close()
            await share.take()
            return compared

        loader.snapshot.compare = stopped  # type: ignore[method-assign]
        self.loading = asyncio.create_task(loader.load())
        await share.gate.arrivals()
        loader.snapshot.compare = compare  # type: ignore[method-assign]

    async def go_on(self, share: GatedShare) -> None:
        share.gate.open()
        await asyncio.wait([self.loading])
