"""The feed: every change, in order, without a gap, from Kafka and from the history."""

import asyncio
from collections.abc import Sequence

import pytest

from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.events.feed import Feed
from pointsman_server.ports.broker import BrokerUnavailable
from pointsman_server.ports.store import Clock, Intent
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Create, Update
from tests.support.fakes import ManualClock, MemoryCache, MemoryStore

KEY = RouteKey("team-a", "payments", "prod", "v1")
INTENT = Intent("tester")


class Stream:
    """A topic that says what the test tells it to: batches of changes, or an error. Empty when there is no more."""

    def __init__(self, *script: Sequence[Change] | Exception) -> None:
        self._script = list(script)

    async def receive(self, seconds: float) -> Sequence[Change]:
        await asyncio.sleep(0)
        step = self._script.pop(0) if self._script else ()
        if isinstance(step, Exception):
            raise step
        return step

    async def close(self) -> None:
        return


class Fed:
    """A feed and what it has told."""

    def __init__(self, store: MemoryStore, *script: Sequence[Change] | Exception) -> None:
        self.told: list[int] = []
        self.advanced: list[int] = []
        self.starts: list[Clock] = []
        self.feed = Feed(
            store,
            Stream(*script),
            start_over=self.starts.append,
            apply=lambda change: self.told.append(change.revision),
            advance=self.advanced.append,
            poll_seconds=0,
        )


async def write(store: MemoryStore, count: int) -> list[Change]:
    """Make ``count`` changes; returns all of the history."""
    committer = GroupCommitter(store, MemoryCache(), lambda _: None)
    for _ in range(count):
        clock = await store.clock()
        if clock.revision == 0:
            await committer.create(Create(KEY, "https://a.internal", {}), INTENT)
        else:
            await committer.update(Update(KEY, f"https://a{clock.revision}.internal"), INTENT)
    from pointsman_server.ports.store import ChangeQuery

    return await store.list_changes(ChangeQuery(limit=10_000))


def restored() -> MemoryStore:
    """A store of another epoch."""
    store = MemoryStore()
    store.epoch = "another"
    return store


async def test_a_store_that_went_back_starts_over() -> None:
    store, older = MemoryStore(), restored()
    fed = Fed(store)
    await write(store, 4)
    await fed.feed.step()
    await write(older, 2)

    # Its history has nothing after revision 4: only the clock tells.
    fed.feed._history = older
    fed.feed.on_clock(await older.clock())
    await fed.feed.step()
    await write(older, 1)
    await fed.feed.step()

    assert [clock.revision for clock in fed.starts] == [4, 2]
    assert fed.told == [3]


async def test_it_begins_at_the_clock_and_tells_nothing_from_before() -> None:
    store = MemoryStore()
    await write(store, 3)
    fed = Fed(store)

    await fed.feed.step()

    assert [clock.revision for clock in fed.starts] == [3]
    assert (fed.feed.revision, fed.told) == (3, [])


async def test_changes_come_in_order_however_the_topic_brings_them() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    one, two, three, four = await write(store, 4)
    fed.feed._stream = Stream([two, one, one], [four, three, two])

    await fed.feed.step()
    await fed.feed.step()

    assert fed.told == [1, 2, 3, 4]
    assert fed.advanced[-1] == fed.feed.revision == 4


async def test_a_gap_is_filled_from_the_history() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    changes = await write(store, 5)
    fed.feed._stream = Stream([changes[4]])

    await fed.feed.step()

    assert fed.told == [1, 2, 3, 4, 5]


async def test_what_this_process_wrote_is_not_told_again() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    changes = await write(store, 5)
    epoch = (await store.clock()).epoch

    fed.feed.on_committed(Clock(epoch, 4), 2)  # 3 and 4
    assert fed.feed.revision == 0
    fed.feed._stream = Stream([changes[1], changes[0], changes[4]])
    await fed.feed.step()

    assert fed.told == [1, 2, 5]
    assert fed.advanced[-1] == fed.feed.revision == 5


async def test_what_this_process_wrote_next_is_known_at_once() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    await write(store, 3)

    fed.feed.on_committed(Clock((await store.clock()).epoch, 3), 3)

    assert (fed.advanced[-1], fed.feed.revision) == (3, 3)
    await fed.feed.step()
    assert fed.told == []


async def test_what_is_written_while_the_history_is_read_is_not_told_again() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    await write(store, 2)
    store.before_list.close()
    step = asyncio.create_task(fed.feed.step())
    await store.before_list.arrivals()
    fed.feed.on_committed(Clock((await store.clock()).epoch, 2), 2)
    store.before_list.open()
    await step

    assert (fed.told, fed.feed.revision) == ([], 2)


async def test_what_was_written_in_another_epoch_counts_for_nothing() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    await write(store, 2)

    fed.feed.on_committed(Clock("another", 2), 2)
    await fed.feed.step()

    assert fed.told == [1, 2]


@pytest.mark.parametrize("silence", [[()], [BrokerUnavailable("gone")]], ids=["silent", "gone"])
async def test_without_kafka_the_history_alone_feeds(silence: list[Sequence[Change] | Exception]) -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    await write(store, 1200)
    fed.feed._stream = Stream(*silence)

    await fed.feed.step()

    assert fed.told == list(range(1, 1201))


async def test_no_stream_at_all_is_a_silent_one() -> None:
    store = MemoryStore()
    told: list[int] = []
    feed = Feed(
        store,
        None,
        start_over=lambda _: None,
        apply=lambda change: told.append(change.revision),
        advance=lambda _: None,
        poll_seconds=0,
    )
    await feed.step()
    await write(store, 2)

    await feed.step()

    assert told == [1, 2]


async def test_it_never_advances_past_what_it_has_told() -> None:
    store = MemoryStore()
    fed = Fed(store)
    order: list[tuple[str, int]] = []
    fed.feed._apply = lambda change: order.append(("told", change.revision))
    fed.feed._advance = lambda revision: order.append(("advanced", revision))
    await fed.feed.step()
    changes = await write(store, 6)
    fed.feed._stream = Stream(changes[:2], [changes[5]])

    await fed.feed.step()
    await fed.feed.step()

    seen = 0
    for what, revision in order:
        if what == "told":
            assert revision == seen + 1
            seen = revision
        else:
            assert revision <= seen


async def test_another_epoch_starts_over() -> None:
    store, other = MemoryStore(), restored()
    fed = Fed(store)
    await write(store, 4)
    await fed.feed.step()
    await write(other, 6)

    fed.feed._history = other
    await fed.feed.step()
    await fed.feed.step()

    assert [clock.revision for clock in fed.starts] == [4, 6]
    assert fed.starts[0].epoch != fed.starts[1].epoch
    assert fed.told == []


async def test_changes_of_another_epoch_on_the_topic_are_not_told() -> None:
    store, other = MemoryStore(), restored()
    fed = Fed(store)
    await fed.feed.step()
    fed.feed._stream = Stream(await write(other, 2))

    await fed.feed.step()

    assert fed.told == []


async def test_an_outage_of_the_store_delays_and_loses_nothing() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    changes = await write(store, 3)

    class Away(MemoryStore):
        async def list_changes(self, query: object) -> list[Change]:
            raise StoreUnavailable

    fed.feed._history, fed.feed._stream = Away(), Stream([changes[2]])
    with pytest.raises(StoreUnavailable):
        await fed.feed.step()
    fed.feed._history = store
    await fed.feed.step()

    assert fed.told == [1, 2, 3]


async def test_it_confirms_the_moment_before_the_history_had_nothing_more() -> None:
    store, clock = MemoryStore(), ManualClock()
    confirmed: list[float] = []
    feed = Feed(
        store,
        None,
        start_over=lambda _: None,
        apply=lambda _: None,
        advance=lambda _: None,
        confirm=confirmed.append,
        poll_seconds=0,
        now=clock,
    )
    await write(store, 3)
    before = clock()
    store.before_list.close()
    step = asyncio.create_task(feed.step())
    await store.before_list.arrivals()
    clock.advance(7)
    assert confirmed == []
    store.before_list.open()
    await step

    assert confirmed == [before]


async def test_a_stream_that_is_never_silent_does_not_keep_it_from_confirming() -> None:
    store, clock = MemoryStore(), ManualClock()
    confirmed: list[float] = []
    changes = await write(store, 1)
    feed = Feed(
        store,
        Stream(),
        start_over=lambda _: None,
        apply=lambda _: None,
        advance=lambda _: None,
        confirm=confirmed.append,
        poll_seconds=1,
        now=clock,
    )
    await feed.step()
    assert confirmed == [clock()]
    for _ in range(3):
        changes = await write(store, 1)
        feed._stream = Stream([changes[-1]])
        clock.advance(0.4)
        await feed.step()

    assert confirmed == [1000.0, 1000.8]


async def test_a_history_that_became_another_while_it_was_read_confirms_nothing() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    store.before_list.close()
    step = asyncio.create_task(fed.feed.step())
    await store.before_list.arrivals()
    fed.feed.on_clock(Clock("another", 0))
    store.before_list.open()
    await step

    assert fed.advanced == [0]
