"""The feed: every change, in order, without a gap, from Kafka and from the history."""

import asyncio
from collections.abc import Sequence

import pytest

from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.events.feed import Feed
from pointsman_server.events.subscribers import Subscribers
from pointsman_server.ports.broker import BrokerUnavailable
from pointsman_server.ports.store import ChangeQuery, Clock, Intent
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Create, Update
from tests.support.fakes import ManualClock, MemoryCache, MemoryStore

KEY = RouteKey("team-a", "payments", "prod", "v1")
INTENT = Intent("tester")


class Stream:
    """A topic that says what the test tells it to: batches of changes, or an error. Empty when there is no more."""

    def __init__(self, *script: Sequence[Change] | Exception) -> None:
        self._script = list(script)
        self.waits: list[float] = []

    async def receive(self, seconds: float) -> Sequence[Change]:
        self.waits.append(seconds)
        await asyncio.sleep(0)
        step = self._script.pop(0) if self._script else ()
        if isinstance(step, Exception):
            raise step
        return step

    async def close(self) -> None:
        return


class Recorder:
    """A subscriber that records what it receives. ``log`` has every call but ``confirm``, in order."""

    def __init__(self) -> None:
        self.sets: list[list[int]] = []
        self.advanced: list[int] = []
        self.starts: list[Clock] = []
        self.confirmed: list[float] = []
        self.log: list[tuple[str, int]] = []
        self.changes: list[Change] = []

    @property
    def received(self) -> list[int]:
        return [revision for revisions in self.sets for revision in revisions]

    def start_over(self, clock: Clock) -> None:
        self.starts.append(clock)
        self.log.append(("start_over", clock.revision))

    def apply(self, changes: Sequence[Change]) -> None:
        self.sets.append([change.revision for change in changes])
        self.log += [("apply", change.revision) for change in changes]
        self.changes += changes

    def advance(self, revision: int) -> None:
        self.advanced.append(revision)
        self.log.append(("advance", revision))

    def confirm(self, moment: float) -> None:
        self.confirmed.append(moment)


class Fed(Recorder):
    """The only subscriber of ``feed``. Like the local cache, it does not need local writes unless asked for."""

    def __init__(self, store: MemoryStore, *script: Sequence[Change] | Exception, local_writes: bool = False) -> None:
        super().__init__()
        self.feed = Feed(store, Stream(*script), poll_seconds=0)
        self.feed.subscribe(self, local_writes=local_writes)


async def write(store: MemoryStore, count: int) -> list[Change]:
    """Make ``count`` changes; returns all of the history."""
    committer = GroupCommitter(store, MemoryCache(), lambda _: None)
    for _ in range(count):
        clock = await store.clock()
        if clock.revision == 0:
            await committer.create(Create(KEY, "https://a.internal", {}), INTENT)
        else:
            await committer.update(Update(KEY, f"https://a{clock.revision}.internal"), INTENT)
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
    assert fed.received == [3]


async def test_it_begins_at_the_clock_and_tells_nothing_from_before() -> None:
    store = MemoryStore()
    await write(store, 3)
    fed = Fed(store)

    await fed.feed.step()

    assert [clock.revision for clock in fed.starts] == [3]
    assert (fed.feed.revision, fed.received) == (3, [])


async def test_changes_come_in_order_however_the_topic_brings_them() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    one, two, three, four = await write(store, 4)
    fed.feed._stream = Stream([two, one, one], [four, three, two])

    await fed.feed.step()
    await fed.feed.step()

    assert fed.received == [1, 2, 3, 4]
    assert fed.advanced[-1] == fed.feed.revision == 4


async def test_a_gap_is_filled_from_the_history() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    changes = await write(store, 5)
    fed.feed._stream = Stream([changes[4]])

    await fed.feed.step()

    assert fed.received == [1, 2, 3, 4, 5]


async def test_what_this_process_wrote_is_not_told_again() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    changes = await write(store, 5)

    fed.feed.on_committed(changes[2:4])
    assert fed.feed.revision == 0
    fed.feed._stream = Stream([changes[1], changes[0], changes[4]])
    await fed.feed.step()

    assert fed.received == [1, 2, 5]
    assert fed.advanced[-1] == fed.feed.revision == 5


async def test_what_this_process_wrote_next_is_known_at_once() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()

    fed.feed.on_committed(await write(store, 3))

    assert (fed.advanced[-1], fed.feed.revision) == (3, 3)
    await fed.feed.step()
    assert fed.received == []


async def test_what_is_written_while_the_history_is_read_is_not_told_again() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    changes = await write(store, 2)
    store.before_list.close()
    step = asyncio.create_task(fed.feed.step())
    await store.before_list.arrivals()
    fed.feed.on_committed(changes)
    store.before_list.open()
    await step

    assert (fed.received, fed.feed.revision) == ([], 2)


async def test_what_was_written_in_another_epoch_counts_for_nothing() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    await write(store, 2)

    fed.feed.on_committed(await write(restored(), 2))
    await fed.feed.step()

    assert fed.received == [1, 2]


@pytest.mark.parametrize("silence", [[()], [BrokerUnavailable("gone")]], ids=["silent", "gone"])
async def test_without_kafka_the_history_alone_feeds(silence: list[Sequence[Change] | Exception]) -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    await write(store, 1200)
    fed.feed._stream = Stream(*silence)

    await fed.feed.step()

    assert fed.received == list(range(1, 1201))


async def test_no_stream_at_all_is_a_silent_one() -> None:
    store, recorder = MemoryStore(), Recorder()
    feed = Feed(store, None, poll_seconds=0)
    feed.subscribe(recorder)
    await feed.step()
    await write(store, 2)

    await feed.step()

    assert recorder.received == [1, 2]


async def test_it_never_advances_past_what_it_has_told() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    changes = await write(store, 6)
    fed.feed._stream = Stream(changes[:2], [changes[5]])

    await fed.feed.step()
    await fed.feed.step()

    assert [entry for entry in fed.log if entry[0] == "apply"] == [("apply", number) for number in range(1, 7)]
    applied = 0
    for what, revision in fed.log:
        assert what != "advance" or revision == applied
        applied = revision


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
    assert fed.received == []


async def test_changes_of_another_epoch_on_the_topic_are_not_told() -> None:
    store, other = MemoryStore(), restored()
    fed = Fed(store)
    await fed.feed.step()
    fed.feed._stream = Stream(await write(other, 2))

    await fed.feed.step()

    assert fed.received == []


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

    assert fed.received == [1, 2, 3]


async def test_it_confirms_the_moment_before_the_history_had_nothing_more() -> None:
    store, clock, recorder = MemoryStore(), ManualClock(), Recorder()
    feed = Feed(store, None, poll_seconds=0, now=clock)
    feed.subscribe(recorder)
    await write(store, 3)
    before = clock()
    store.before_list.close()
    step = asyncio.create_task(feed.step())
    await store.before_list.arrivals()
    clock.advance(7)
    assert recorder.confirmed == []
    store.before_list.open()
    await step

    assert recorder.confirmed == [before]


class FailingTwice(Recorder):
    """A subscriber that fails at its first change, and at the first attempt to start over after that."""

    def __init__(self) -> None:
        super().__init__()
        self._failing = ["apply", "start_over"]

    def start_over(self, clock: Clock) -> None:
        if self._failing == ["start_over"]:
            self._failing.clear()
            raise ValueError
        super().start_over(clock)

    def apply(self, changes: Sequence[Change]) -> None:
        if "apply" in self._failing:
            self._failing.remove("apply")
            raise ValueError
        super().apply(changes)


async def test_catching_up_starts_a_failed_subscriber_over_at_the_clock_reached() -> None:
    store, failing = MemoryStore(), FailingTwice()
    feed = Feed(store, None, poll_seconds=0)
    feed.subscribe(failing)
    await feed.step()
    await write(store, 2)
    await feed.step()

    assert failing.starts == [Clock(store.epoch, 0), Clock(store.epoch, 2)]
    assert (failing.received, failing.advanced) == ([], [])
    await write(store, 1)
    await feed.step()
    assert failing.received == [3]


async def test_a_stream_that_is_never_silent_does_not_keep_it_from_confirming() -> None:
    store, clock, recorder = MemoryStore(), ManualClock(), Recorder()
    changes = await write(store, 1)
    feed = Feed(store, Stream(), poll_seconds=1, now=clock)
    feed.subscribe(recorder)
    await feed.step()
    assert recorder.confirmed == [clock()]
    for _ in range(3):
        changes = await write(store, 1)
        feed._stream = Stream([changes[-1]])
        clock.advance(0.4)
        await feed.step()

    assert recorder.confirmed == [1000.0, 1000.8]


async def test_a_history_that_became_another_while_it_was_read_confirms_nothing() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    fed.confirmed.clear()
    store.before_list.close()
    step = asyncio.create_task(fed.feed.step())
    await store.before_list.arrivals()
    fed.feed.on_clock(Clock("another", 0))
    store.before_list.open()
    await step

    assert fed.confirmed == []


async def test_an_epoch_that_ended_while_it_waited_for_kafka_confirms_nothing() -> None:
    """The revision it has reached is of the old epoch: the history after it may be empty, and prove nothing."""
    store = MemoryStore()
    await write(store, 3)

    class Ending(Stream):
        async def receive(self, seconds: float) -> Sequence[Change]:
            feed.on_clock(Clock("another", 1))
            return await super().receive(seconds)

    feed, recorder = Feed(store, Ending(), poll_seconds=0), Recorder()
    feed.subscribe(recorder)
    await feed.step()

    assert (recorder.confirmed, recorder.starts) == ([], [Clock(store.epoch, 3)])


def not_due(store: MemoryStore, *script: Sequence[Change] | Exception) -> tuple[Feed, Recorder]:
    """A feed that need not read the history for a long time after the first read."""
    feed, recorder = Feed(store, Stream(*script), poll_seconds=100, now=ManualClock()), Recorder()
    feed.subscribe(recorder)
    return feed, recorder


async def test_before_it_began_it_knows_nothing() -> None:
    feed = Feed(MemoryStore(), None)
    assert (feed.revision, feed.connected) == (0, False)


async def test_a_gap_is_filled_at_once_also_when_there_was_progress() -> None:
    store = MemoryStore()
    feed, recorder = not_due(store)
    await feed.step()
    changes = await write(store, 3)
    feed._stream = Stream([changes[0], changes[2]])
    await feed.step()
    assert recorder.sets == [[1], [2, 3]]


async def test_silence_is_a_reason_to_read_the_history_and_progress_is_none() -> None:
    store = MemoryStore()
    feed, recorder = not_due(store)
    await feed.step()
    changes = await write(store, 2)
    feed._stream = Stream(changes[:1], ())
    await feed.step()
    assert recorder.received == [1]
    await feed.step()
    assert recorder.received == [1, 2]
    assert len(recorder.confirmed) == 2


async def test_the_first_step_reads_the_history_even_if_kafka_brings_changes() -> None:
    changes = await write(MemoryStore(), 2)
    feed, recorder = not_due(MemoryStore(), changes)
    await feed.step()
    assert (recorder.received, len(recorder.confirmed)) == ([1, 2], 1)


async def test_what_was_handed_over_is_not_held_again() -> None:
    store = MemoryStore()
    feed, recorder = not_due(store)
    await feed.step()
    changes = await write(store, 2)
    feed._stream = Stream(changes, changes[1:])
    await feed.step()
    await feed.step()
    assert recorder.received == [1, 2]
    assert feed._pending == {}


async def test_what_waits_behind_a_gap_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointsman_server.events.feed.MAX_PENDING", 2)
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    changes = await write(store, 4)
    fed.feed._stream = Stream(changes[1:3], changes[3:])
    store.failure = StoreUnavailable()
    held = []
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await fed.feed.step()
        held.append(len(fed.feed._pending))
    store.failure = None
    await fed.feed.step()
    assert held == [2, 0]
    assert fed.received == [1, 2, 3, 4]


async def test_the_history_is_read_in_pages() -> None:
    queries: list[ChangeQuery] = []

    class Recording(MemoryStore):
        async def list_changes(self, query: ChangeQuery) -> list[Change]:
            queries.append(query)
            return await super().list_changes(query)

    store = Recording()
    fed = Fed(store)
    await fed.feed.step()
    await write(store, 501)
    queries.clear()
    await fed.feed.step()
    assert queries == [ChangeQuery(after_revision=after, limit=500) for after in (0, 500)]


async def test_an_outage_of_kafka_shows_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gone = BrokerUnavailable("cannot reach Kafka")
    stream = Stream((), (), gone, gone, ())
    feed = Feed(MemoryStore(), stream, poll_seconds=0)
    connected = []
    for _ in range(5):
        await feed.step()
        connected.append(feed.connected)
    assert connected == [True, True, False, False, True]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "the feed is connected"),
        ("WARNING", "the feed is disconnected: cannot reach Kafka"),
        ("INFO", "the feed is connected"),
    ]
    assert stream.waits == [0] * 5


async def test_commits_of_a_new_epoch_at_lower_revisions_are_kept_as_they_were_made() -> None:
    store, other = MemoryStore(), restored()
    await write(store, 4)
    fed = Fed(store, local_writes=True)
    await fed.feed.step()
    changes = await write(other, 4)
    fed.feed._history = other
    fed.feed.on_clock(Clock(other.epoch, 4))
    fed.feed.on_committed(changes[1:3])
    fed.feed.on_committed(changes[3:])
    other.revision = 1
    await fed.feed.step()
    assert fed.sets == [[2, 3], [4]]


async def test_a_commit_of_a_new_epoch_waits_for_the_new_beginning() -> None:
    store, other = MemoryStore(), restored()
    await write(store, 4)
    fed = Fed(store, local_writes=True)
    await fed.feed.step()
    changes = await write(other, 5)
    fed.feed._history = other
    fed.feed.on_clock(Clock(other.epoch, 5))
    # The next revision of the old epoch, and of the new one.
    fed.feed.on_committed(changes[4:])
    assert fed.sets == []
    other.revision = 4
    await fed.feed.step()
    assert fed.sets == [[5]]
    assert fed.changes == changes[4:]


@pytest.mark.parametrize("error", [StoreUnavailable(), RuntimeError("a bug")])
async def test_running_goes_on_after_an_error(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    store, received = MemoryStore(), asyncio.Event()
    fed = Fed(store)
    fed.apply = lambda _: received.set()  # type: ignore[method-assign]
    await fed.feed.step()
    changes = await write(store, 1)
    fed.feed._stream = Stream(error, changes)
    task = asyncio.create_task(fed.feed.run())
    async with asyncio.timeout(10):
        await received.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert ("the feed failed" in caplog.text) is isinstance(error, RuntimeError)


# Local writes


async def test_a_subscriber_receives_the_writes_of_this_process() -> None:
    store = MemoryStore()
    fed = Fed(store, local_writes=True)
    await fed.feed.step()
    committer = GroupCommitter(store, MemoryCache(), lambda _: None, fed.feed.on_committed)

    await committer.create(Create(KEY, "https://a.internal", {}), INTENT)
    await committer.update(Update(KEY, "https://b.internal"), INTENT)

    assert fed.changes == store.changes
    assert fed.log == [("start_over", 0), ("apply", 1), ("advance", 1), ("apply", 2), ("advance", 2)]
    fed.feed._stream = Stream(store.changes)  # Kafka brings them again
    await fed.feed.step()
    assert fed.received == [1, 2]


async def test_a_commit_of_this_process_is_one_set_and_alone_in_it() -> None:
    store = MemoryStore()
    fed = Fed(store, local_writes=True)
    await fed.feed.step()
    changes = await write(store, 9)

    fed.feed.on_committed(changes[3:6])  # waits for 1 to 3, of another process
    fed.feed.on_committed(changes[6:8])
    # Kafka brings parts of it, mixed with others.
    fed.feed._stream = Stream(changes[1:5], changes[:1], changes[5:])
    await fed.feed.step()
    await fed.feed.step()
    await fed.feed.step()

    assert fed.sets == [[1, 2, 3], [4, 5, 6], [7, 8], [9]]
    assert fed.changes == changes


async def test_a_page_of_the_history_does_not_split_a_commit_of_this_process() -> None:
    store = MemoryStore()
    fed = Fed(store, local_writes=True)
    await fed.feed.step()
    changes = await write(store, 700)

    fed.feed.on_committed(changes[398:600])
    await fed.feed.step()

    assert fed.sets[1] == list(range(399, 601))
    assert [fed.sets[0][0], fed.sets[0][-1], fed.sets[2][0], fed.sets[-1][-1]] == [1, 398, 601, 700]
    assert fed.received == list(range(1, 701))


@pytest.mark.parametrize("count", [1, 1200])
async def test_an_import_of_this_process_is_read_from_the_history_as_one_set(count: int) -> None:
    store = MemoryStore()
    fed = Fed(store, local_writes=True)
    await fed.feed.step()
    changes = await write(store, count + 2)

    fed.feed.on_imported(store.epoch, 2, count + 1)
    fed.feed._stream = Stream(changes[:3])
    await fed.feed.step()

    assert fed.sets == [[1], list(range(2, count + 2)), [count + 2]]
    assert fed.changes == changes
    assert fed.feed._pending == {}


async def test_an_import_that_is_next_is_read_without_waiting_for_a_silent_stream() -> None:
    store, clock = MemoryStore(), ManualClock()
    recorder = Recorder()
    feed = Feed(store, Stream(), poll_seconds=100, now=clock)
    feed.subscribe(recorder)
    await feed.step()
    changes = await write(store, 3)

    feed.on_imported(store.epoch, 2, 3)
    feed._stream = Stream(changes[:1])
    await feed.step()

    assert recorder.sets == [[1], [2, 3]]


async def test_kafka_alone_completes_an_import_of_this_process() -> None:
    store = MemoryStore()
    fed = Fed(store, local_writes=True)
    await fed.feed.step()
    changes = await write(store, 3)
    fed.feed.on_imported(store.epoch, 1, 3)
    fed.feed._history = MemoryStore()  # has nothing
    fed.feed._stream = Stream(changes)

    await fed.feed.step()

    assert fed.sets == [[1, 2, 3]]


async def test_without_a_subscriber_that_needs_local_writes_an_import_is_not_read() -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    await write(store, 3)

    fed.feed.on_imported(store.epoch, 1, 3)

    assert (fed.sets, fed.advanced[-1]) == ([], 3)


async def test_of_a_commit_that_is_partly_reached_the_rest_is_handed_over_together() -> None:
    store = MemoryStore()
    fed = Fed(store, local_writes=True)
    await fed.feed.step()
    changes = await write(store, 5)
    fed.feed._stream = Stream(changes[:2])
    store.before_list.close()
    fed.feed._read_at = float("inf")  # no look into the history
    await fed.feed.step()
    assert fed.sets == [[1, 2]]

    fed.feed.on_committed(changes[1:5])
    fed.feed.on_committed(changes[:2])  # reached altogether

    assert fed.sets == [[1, 2], [3, 4, 5]]
    assert fed.feed._local == {}


async def test_what_is_committed_before_the_feed_began_is_a_set_or_before_the_beginning() -> None:
    store = MemoryStore()
    changes = await write(store, 6)
    fed = Fed(store, local_writes=True)
    other = await write(restored(), 2)
    fed.feed.on_committed(other)
    fed.feed.on_committed(changes[:2])
    fed.feed.on_committed(changes[2:4])
    fed.feed.on_committed(changes[4:])
    store.revision = 3

    await fed.feed.step()

    assert [clock.revision for clock in fed.starts] == [3]
    assert fed.sets == [[4], [5, 6]]
    assert fed.feed._held_changes == 0


async def test_too_many_changes_are_not_held_but_read_from_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointsman_server.events.feed.MAX_PENDING", 4)
    store = MemoryStore()
    fed = Fed(store, local_writes=True)
    await fed.feed.step()
    changes = await write(store, 9)

    for first, last in ((1, 4), (4, 6), (6, 8), (8, 9)):
        fed.feed.on_committed(changes[first:last])
    assert [bool(commit.changes) for commit in fed.feed._local.values()] == [True, False, False, True]
    await fed.feed.step()

    assert fed.sets == [[1], [2, 3, 4], [5, 6], [7, 8], [9]]
    assert fed.feed._held_changes == 0


async def test_too_many_commits_come_as_those_of_other_processes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointsman_server.events.feed.MAX_PENDING", 1)
    store = MemoryStore()
    fed = Fed(store, local_writes=True)
    await fed.feed.step()
    changes = await write(store, 5)

    fed.feed.on_committed(changes[1:3])
    fed.feed.on_committed(changes[3:4])
    await fed.feed.step()

    assert fed.sets == [[1], [2, 3], [4, 5]]
    assert fed.feed._local == {}


# Subscribers


class Failing(Recorder):
    """Raises ``error`` once per entry of ``fails``: the name of the method that raises next."""

    def __init__(self, *fails: str) -> None:
        super().__init__()
        self.fails = list(fails)

    def start_over(self, clock: Clock) -> None:
        self._fail("start_over")
        super().start_over(clock)

    def apply(self, changes: Sequence[Change]) -> None:
        self._fail("apply")
        super().apply(changes)

    def advance(self, revision: int) -> None:
        self._fail("advance")
        super().advance(revision)

    def confirm(self, moment: float) -> None:
        self._fail("confirm")
        super().confirm(moment)

    def _fail(self, method: str) -> None:
        if self.fails[:1] == [method]:
            self.fails.pop(0)
            raise RuntimeError(f"a bug in {method}")


async def test_every_subscriber_receives_the_same_in_the_order_of_subscription() -> None:
    store = MemoryStore()
    calls: list[tuple[str, int]] = []

    class Named(Recorder):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def apply(self, changes: Sequence[Change]) -> None:
            super().apply(changes)
            calls.append((self.name, changes[0].revision))

    one, two = Named("one"), Named("two")
    feed = Feed(store, Stream(), poll_seconds=0)
    feed.subscribe(one)
    feed.subscribe(two)
    await feed.step()
    changes = await write(store, 3)
    feed._stream = Stream(changes[:1])
    feed.on_committed(changes[1:])
    await feed.step()

    assert one.log == two.log
    assert one.sets == [[1], [2, 3]]
    assert one.confirmed == two.confirmed
    assert calls == [("one", 1), ("two", 1), ("one", 2), ("two", 2)]


async def test_local_writes_go_to_those_who_need_them_and_all_advance() -> None:
    store, watch = MemoryStore(), Recorder()
    fed = Fed(store)
    fed.feed.subscribe(watch)
    await fed.feed.step()
    changes = await write(store, 3)

    fed.feed.on_committed(changes[:2])
    fed.feed._stream = Stream(changes[2:])
    await fed.feed.step()

    assert (watch.sets, watch.advanced[:2]) == ([[1, 2], [3]], [2, 3])
    assert (fed.sets, fed.advanced[:2]) == ([[3]], [2, 3])


async def test_a_late_subscriber_starts_at_the_revision_that_the_feed_has_reached() -> None:
    store, late = MemoryStore(), Recorder()
    fed = Fed(store)
    await fed.feed.step()
    changes = await write(store, 4)
    fed.feed.on_committed(changes[:2])
    fed.feed.on_imported(store.epoch, 4, 4)  # not needed so far

    fed.feed.subscribe(late)
    assert late.starts == [Clock(store.epoch, 2)]
    fed.feed._stream = Stream(changes[2:3])
    await fed.feed.step()

    assert late.sets == [[3], [4]]


async def test_a_subscriber_added_by_another_one_starts_after_the_changes_in_hand() -> None:
    store, late = MemoryStore(), Recorder()

    class Adding(Recorder):
        def apply(self, changes: Sequence[Change]) -> None:
            super().apply(changes)
            if len(self.sets) == 1:
                feed.subscribe(late)

    feed = Feed(store, Stream(), poll_seconds=0)
    feed.subscribe(Adding())
    await feed.step()
    changes = await write(store, 3)
    feed.on_committed(changes[:2])
    feed.on_committed(changes[2:])

    assert late.log == [("start_over", 2), ("apply", 3), ("advance", 3)]


async def test_another_epoch_starts_all_over() -> None:
    store, other = MemoryStore(), restored()
    watch = Recorder()
    fed = Fed(store)
    fed.feed.subscribe(watch)
    await fed.feed.step()
    fed.feed.on_committed((await write(store, 4))[2:])  # waits for 1 and 2, and is void
    changes = await write(other, 3)
    fed.feed._history = other

    fed.feed.on_clock(Clock(other.epoch, 3))
    fed.feed.on_committed(changes[2:])  # before the feed has begun anew
    other.revision = 2
    await fed.feed.step()

    assert watch.starts == fed.starts == [Clock(store.epoch, 0), Clock(other.epoch, 2)]
    assert watch.changes == changes[2:]
    assert fed.feed._local == {}


@pytest.mark.parametrize("method", ["apply", "advance"])
async def test_a_subscriber_that_raises_starts_over_and_does_not_stop_the_others(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, failing = MemoryStore(), Failing(method)
    fed, healthy = Fed(store, local_writes=True), Recorder()
    fed.feed._subscribers = Subscribers()
    for subscriber in (fed, failing, healthy):
        fed.feed.subscribe(subscriber)
    await fed.feed.step()
    changes = await write(store, 5)

    fed.feed.on_committed(changes[:2])
    assert failing.starts == [Clock(store.epoch, 0), Clock(store.epoch, 2)]
    fed.feed.on_committed(changes[2:4])
    await fed.feed.step()

    assert healthy.sets == fed.sets == [[1, 2], [3, 4], [5]]
    assert failing.sets[-2:] == [[3, 4], [5]]
    assert "the subscriber Failing failed and starts over" in caplog.text
    assert f"a bug in {method}" in caplog.text


async def test_a_history_with_a_hole_starts_over_and_confirms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    fed = Fed(store)
    await fed.feed.step()
    fed.confirmed.clear()
    await write(store, 4)
    del store.changes[1]

    await fed.feed.step()
    assert fed.confirmed == []
    assert "the history lacks revision 2" in caplog.text
    await fed.feed.step()

    assert [clock.revision for clock in fed.starts] == [0, 4]
    assert fed.received == [1]


async def test_local_changes_are_not_read_or_held_once_nobody_needs_them() -> None:
    store = MemoryStore()
    fed = Fed(store)
    watching = Recorder()
    await fed.feed.step()
    fed.feed.subscribe(watching)
    (first,) = await write(store, 1)
    fed.feed.on_committed([first])
    fed.feed.unsubscribe(watching)
    _, second = await write(store, 1)
    fed.feed.on_committed([second])
    fed.feed.on_imported(store.epoch, 3, 10_000)
    assert (watching.received, fed.received) == ([1], [])
    assert fed.advanced[-1] == 10_000
    # The import was not read from the history.
    assert fed.feed.revision == 10_000
