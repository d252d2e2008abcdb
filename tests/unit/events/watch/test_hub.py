"""The hub: what it hands to streams, in which order, and when it follows the feed."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from pointsman.v1.watch_pb2 import Checkpoint, WatchResponse
from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import Change
from pointsman_server.events.watch import change_set
from pointsman_server.events.watch import hub as module
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.hub import BEATS, LINGER_SECONDS, WatchHub
from pointsman_server.events.watch.watcher import Interrupted, Watcher
from pointsman_server.ports.store import Clock
from pointsman_server.runtime import fair_share
from pointsman_server.runtime.fair_share import WOKEN_IN_A_TURN, FairShare
from tests.support.changes import make_change, make_traffic_change
from tests.support.fakes import ManualClock

START = Clock("e1", 10)


class Source:
    """A feed at START that notes its subscribers."""

    def __init__(self) -> None:
        self.subscribers: list[Any] = []
        self.calls: list[str] = []

    def subscribe(self, subscriber: Any) -> None:
        self.calls.append("subscribe")
        self.subscribers.append(subscriber)
        subscriber.start_over(START)

    def unsubscribe(self, subscriber: Any) -> None:
        self.calls.append("unsubscribe")
        self.subscribers.remove(subscriber)


class Hub(WatchHub):
    """A hub on a feed that a test drives."""

    def __init__(self, **options: Any) -> None:
        self.now = ManualClock()
        self.share = FairShare()
        super().__init__(self.share, now=self.now, **options)
        self.source = Source()
        self.use(self.source)
        self.enter()
        self.confirm(self.now())

    def watch(self, wanted: Filter | None = None, position: Clock = START) -> Watcher:
        watcher = Watcher(wanted or Filter(), position)
        self.attach(watcher)
        return watcher


def changes(*revisions: int, end: int = 0) -> Sequence[Change]:
    """Make the changes of one set, or of several without ``end``."""
    return [replace(make_change(revision), change_set_end=end or revision) for revision in revisions]


async def taken(watcher: Watcher) -> list[WatchResponse]:
    return [WatchResponse.FromString(event) for event in await watcher.take()]


async def received(watcher: Watcher) -> list[int]:
    """Return the revisions of changes, and of checkpoints, negative."""
    found: list[int] = []
    for event in await taken(watcher):
        found += [change.revision for change in event.changes.changes]
        found += [-event.checkpoint.as_of.revision] if event.HasField("checkpoint") else []
    return found


async def checkpoint_of(watcher: Watcher) -> Checkpoint:
    return (await taken(watcher))[-1].checkpoint


@pytest.fixture
def hub() -> Hub:
    return Hub()


class TestChanges:
    async def test_a_stream_begins_with_a_checkpoint(self, hub: Hub) -> None:
        assert await received(hub.watch()) == [-10]

    async def test_each_set_is_handed_over_when_it_is_complete(self, hub: Hub) -> None:
        watcher = hub.watch()
        hub.apply(changes(11))
        hub.apply(changes(12, end=13))
        await hub.step()
        assert await received(watcher) == [-10, 11]
        hub.apply(changes(13, end=13))
        await hub.step()
        [event] = await taken(watcher)
        assert [change.revision for change in event.changes.changes] == [12, 13]
        assert event.changes.as_of.revision == 13

    async def test_changes_that_come_together_are_the_sets_that_were_made(self, hub: Hub) -> None:
        watcher = hub.watch()
        await watcher.take()
        hub.apply([*changes(11), *changes(12, 13, end=13), *changes(14)])
        await hub.step()
        sets = [[change.revision for change in event.changes.changes] for event in await taken(watcher)]
        assert sets == [[11], [12, 13], [14]]

    async def test_only_streams_whose_filter_matches_are_handed_a_set(self, hub: Hub) -> None:
        mine, other = hub.watch(Filter("acme", "pay")), hub.watch(Filter("acme", "ship"))
        hub.apply([make_change(11, "pay")])
        await hub.step()
        assert await received(mine) == [-10, 11]
        assert await received(other) == [-10]

    async def test_a_set_of_traffic_moves_those_that_did_not_ask_for_it(self, hub: Hub) -> None:
        asking, other = hub.watch(Filter(traffic=True)), hub.watch()
        hub.apply([replace(make_change(11), change_set_end=12), replace(make_traffic_change(12), change_set_end=12)])
        hub.apply([make_traffic_change(13)])
        await hub.step()
        assert await received(asking) == [-10, 11, 12, 13]
        assert await received(other) == [-10, 11]
        for _ in range(BEATS):
            await hub.beat()
        assert (await checkpoint_of(other)).as_of.revision == 13
        # And where they resume from memory.
        assert await received(hub.watch(position=Clock("e1", 11))) == [11, -13]
        assert await received(hub.watch(Filter(traffic=True), Clock("e1", 12))) == [13, -13]

    async def test_a_stream_that_was_behind_gets_what_is_in_memory(self, hub: Hub) -> None:
        hub.apply([*changes(11), *changes(12), *changes(13)])
        await hub.step()
        assert await received(hub.watch(position=Clock("e1", 11))) == [12, 13, -13]

    async def test_one_that_has_ended_is_forgotten(self, hub: Hub) -> None:
        watcher, other = hub.watch(), hub.watch(Filter("acme"))
        hub.detach(watcher)
        hub.detach(watcher)
        assert hub.watchers == 1
        hub.detach(other)
        assert hub.watchers == 0
        assert list(hub._index.matching(make_change(1).key)) == []
        with pytest.raises(Interrupted):
            await watcher.take()

    async def test_streams_are_woken_a_few_at_a_time(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fair_share, "WOKEN_IN_A_TURN", 2)
        watchers = [hub.watch() for _ in range(7)]
        turns = 0
        take = hub.share.take

        async def counted() -> None:
            nonlocal turns
            turns += 1
            await take()

        monkeypatch.setattr(hub.share, "take", counted)
        hub.apply(changes(11))
        await hub.step()
        assert turns == 3
        assert [await received(watcher) for watcher in watchers] == [[-10, 11]] * 7

    async def test_a_failure_interrupts_streams_and_does_not_end_the_task(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sending = asyncio.create_task(hub.send_changes())
        watcher = hub.watch()
        with monkeypatch.context() as patched:
            patched.setattr(change_set.encoding, "change", lambda _change: 1 / 0)
            hub.apply(changes(11))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        with pytest.raises(Interrupted):
            await watcher.take()
        assert hub.clock == Clock("e1", 11)
        again = hub.watch(position=Clock("e1", 11))
        hub.apply(changes(12))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await received(again) == [-11, 12]
        sending.cancel()


class TestRaces:
    """Each fails without what it names."""

    async def stop_within(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> tuple[Watcher, Watcher, Any]:
        """Stop handing over a set between two streams; returns them, and what goes on."""
        monkeypatch.setattr(fair_share, "WOKEN_IN_A_TURN", 1)
        first, second = hub.watch(), hub.watch()
        await first.take()
        await second.take()
        reached, go_on = asyncio.Event(), asyncio.Event()
        take = hub.share.take

        async def gated() -> None:
            reached.set()
            await go_on.wait()
            await take()

        monkeypatch.setattr(hub.share, "take", gated)
        hub.apply(changes(11))
        sending = asyncio.create_task(hub.step())
        await reached.wait()

        async def finish() -> None:
            go_on.set()
            await sending

        return first, second, finish

    async def beats(self, hub: Hub) -> asyncio.Task[None]:
        async def all_of_them() -> None:
            for _ in range(BEATS):
                await hub.beat()

        beating = asyncio.create_task(all_of_them())
        for _ in range(BEATS):
            await asyncio.sleep(0)
        return beating

    @pytest.mark.parametrize("remedy", [True, False])
    async def test_a_checkpoint_does_not_overtake_a_set(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch, remedy: bool
    ) -> None:
        if not remedy:
            monkeypatch.setattr(hub, "_handing_over", _NoLock())
        first, second, finish = await self.stop_within(hub, monkeypatch)
        beating = await self.beats(hub)
        await finish()
        await beating
        assert (await received(first))[0] == 11
        assert (11 in await received(second)) is remedy

    @pytest.mark.parametrize("remedy", [True, False])
    async def test_a_stream_that_attaches_meanwhile_gets_the_set_once(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch, remedy: bool
    ) -> None:
        if not remedy:
            monkeypatch.setattr(Watcher, "put_changes", lambda self, events, _revision: self._put(events))
        reached, go_on = asyncio.Event(), asyncio.Event()
        pick = change_set.ChangeSet.pick

        async def gated(self: change_set.ChangeSet, *arguments: Any) -> Any:
            reached.set()
            await go_on.wait()
            return await pick(self, *arguments)

        monkeypatch.setattr(change_set.ChangeSet, "pick", gated)
        hub.apply(changes(11))
        sending = asyncio.create_task(hub.step())
        await reached.wait()
        watcher = hub.watch()
        go_on.set()
        await sending
        assert ((await received(watcher)).count(11) == 1) is remedy

    @pytest.mark.parametrize("remedy", [True, False])
    async def test_a_stream_that_attaches_when_the_streams_are_known_misses_nothing(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch, remedy: bool
    ) -> None:
        if not remedy:
            # Into memory only once all streams have been handed the set.
            monkeypatch.setattr(hub.recent, "append", lambda _changes: None)
        _, _, finish = await self.stop_within(hub, monkeypatch)
        late = hub.watch()
        await finish()
        assert (11 in await received(late)) is remedy

    @pytest.mark.parametrize("remedy", [True, False])
    async def test_changes_of_the_epoch_before_do_not_reach_streams_of_the_next(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch, remedy: bool
    ) -> None:
        if not remedy:
            monkeypatch.setattr(hub, "_is_next", lambda _changes: not hub._sets.clear())
        encoding_, go_on = asyncio.Event(), asyncio.Event()
        encode = change_set.ChangeSet.encode

        async def gated(self: change_set.ChangeSet, *arguments: Any) -> None:
            encoding_.set()
            await go_on.wait()
            await encode(self, *arguments)

        monkeypatch.setattr(change_set.ChangeSet, "encode", gated)
        hub.apply(changes(11))
        sending = asyncio.create_task(hub.step())
        await encoding_.wait()
        hub.start_over(Clock("e2", 3))
        watcher = hub.watch(position=Clock("e2", 3))
        go_on.set()
        await asyncio.gather(sending, return_exceptions=True)
        assert (11 not in await received(watcher)) is remedy

    @pytest.mark.parametrize("remedy", [True, False])
    async def test_nothing_is_confirmed_before_streams_have_it(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch, remedy: bool
    ) -> None:
        _, second, finish = await self.stop_within(hub, monkeypatch)
        if not remedy:
            hub._handed_over = 11
        hub.now.advance(7)
        hub.confirm(hub.now())
        late = hub.watch()
        assert ((await checkpoint_of(late)).age.ToSeconds() == 7) is remedy
        await finish()
        assert (await checkpoint_of(hub.watch())).age.ToSeconds() == 0
        assert await received(second) == [11]


class _NoLock:
    async def __aenter__(self) -> None:
        return

    async def __aexit__(self, *_: object) -> None:
        return


class TestCheckpoints:
    async def test_each_stream_receives_one_in_a_round_of_beats(self, hub: Hub) -> None:
        watchers = [hub.watch() for _ in range(2 * BEATS + 3)]
        for watcher in watchers:
            await watcher.take()
        due = []
        for _ in range(BEATS):
            await hub.beat()
            due.append(sum(bool(watcher._events) for watcher in watchers))
        assert due[-1] == len(watchers)
        assert max(now - before for before, now in zip([0, *due], due, strict=False)) == 3

    async def test_the_age_grows_while_the_feed_confirms_nothing(self, hub: Hub) -> None:
        hub.now.advance(2.5)
        assert (await checkpoint_of(hub.watch())).age.ToMilliseconds() == 2_500
        hub.confirm(hub.now() - 1)
        assert (await checkpoint_of(hub.watch())).age.ToMilliseconds() == 1_000

    async def test_it_confirms_while_sets_wait(self, hub: Hub) -> None:
        hub.now.advance(5)
        hub.apply(changes(11))
        hub.confirm(hub.now())
        hub.apply(changes(12))
        await hub._send(hub._sets[0])
        assert len(hub._sets) == 1
        assert (await checkpoint_of(hub.watch())).age.ToSeconds() == 0

    async def test_a_set_that_is_not_complete_is_not_confirmed(self, hub: Hub) -> None:
        hub.apply(changes(11, end=12))
        hub.now.advance(3)
        hub.confirm(hub.now())
        await hub.step()
        checkpoint = await checkpoint_of(hub.watch())
        assert (checkpoint.as_of.revision, checkpoint.age.ToSeconds()) == (10, 3)

    async def test_streams_are_asked_to_report_once_they_have_a_revision(self, hub: Hub) -> None:
        watcher = hub.watch()
        await watcher.take()
        hub.request_progress(11)
        await hub.step()
        assert await hub.ask_some() == 0
        hub.apply(changes(11))
        await hub.step()
        assert await hub.ask_some() == 1
        change, checkpoint = await taken(watcher)
        assert change.HasField("changes")
        assert checkpoint.checkpoint.report_progress
        await hub.step()
        assert await hub.ask_some() == 0
        await self.test_each_stream_receives_one_in_a_round_of_beats(hub)

    async def test_many_streams_are_asked_some_at_a_time_and_each_once(self, hub: Hub) -> None:
        watchers = [hub.watch() for _ in range(WOKEN_IN_A_TURN + 3)]
        for watcher in watchers:
            await watcher.take()
        hub.request_progress(10)
        await hub.step()
        assert await hub.ask_some() == WOKEN_IN_A_TURN
        hub.detach(watchers.pop())
        assert await hub.ask_some() == 2
        assert [len(await taken(watcher)) for watcher in watchers] == [1] * len(watchers)

    async def test_a_revision_of_an_epoch_that_is_over_is_not_waited_for(self, hub: Hub) -> None:
        hub.request_progress(1_000)
        hub.start_over(Clock("e2", 5))
        hub.confirm(hub.now())
        watcher = hub.watch(position=Clock("e2", 5))
        await watcher.take()
        hub.request_progress(5)
        await hub.step()
        assert await hub.ask_some() == 1

    async def test_the_task_asks_for_progress(self, hub: Hub) -> None:
        asking = asyncio.create_task(hub.send_requests())
        watcher = hub.watch()
        await watcher.take()
        hub.request_progress(10)
        await hub.step()
        assert (await checkpoint_of(watcher)).report_progress
        asking.cancel()

    async def test_the_task_sends_them(self) -> None:
        hub = Hub(checkpoint_seconds=0.001)
        watcher = hub.watch()
        await watcher.take()
        beating = asyncio.create_task(hub.send_checkpoints())
        assert await received(watcher) == [-10]
        beating.cancel()


class TestTheFeed:
    async def test_it_is_followed_while_there_are_streams_and_some_time_longer(self, hub: Hub) -> None:
        assert hub.source.calls == ["subscribe"]
        hub.enter()
        hub.leave()
        hub.now.advance(LINGER_SECONDS + 1)
        await hub.beat()
        hub.leave()
        hub.now.advance(LINGER_SECONDS - 1)
        await hub.beat()
        assert hub.source.calls == ["subscribe"]
        hub.now.advance(2)
        await hub.beat()
        assert hub.source.calls == ["subscribe", "unsubscribe"]
        assert hub.clock == Clock("", 0)
        hub.enter()
        assert hub.source.calls == ["subscribe", "unsubscribe", "subscribe"]
        assert hub.clock == START

    async def test_nobody_watches_nothing_is_subscribed(self) -> None:
        hub = WatchHub(FairShare())
        source = Source()
        hub.use(source)
        for _ in range(BEATS):
            await hub.beat()
        assert source.calls == []

    async def test_streams_wait_until_the_feed_has_confirmed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "START_SECONDS", 0.01)
        hub = WatchHub(FairShare())
        hub.use(Source())
        hub.enter()
        with pytest.raises(StoreUnavailable):
            await hub.ready()
        hub.confirm(1.0)
        await hub.ready()

    async def test_a_start_that_missed_something_interrupts_every_stream(self, hub: Hub) -> None:
        watcher = hub.watch()
        hub.apply(changes(11))
        hub.start_over(Clock("e1", 15))
        with pytest.raises(Interrupted):
            await watcher.take()
        assert (hub.watchers, hub.clock) == (0, Clock("e1", 15))
        await hub.step()
        hub.confirm(hub.now())
        later = hub.watch(position=Clock("e1", 15))
        hub.apply(changes(16))
        await hub.step()
        assert await received(later) == [-15, 16]

    async def test_a_start_that_missed_nothing_does_not(self, hub: Hub) -> None:
        watcher = hub.watch()
        hub.apply(changes(11))
        hub.start_over(Clock("e1", 11))
        await hub.step()
        assert await received(watcher) == [-10, 11]

    async def test_the_same_revision_of_another_epoch_is_another(self, hub: Hub) -> None:
        watcher = hub.watch()
        hub.start_over(Clock("e2", 10))
        with pytest.raises(Interrupted):
            await watcher.take()
        assert not hub.covers(START)

    async def test_what_is_covered(self) -> None:
        hub = Hub(recent_changes=2)
        for revision in (11, 12, 13):
            hub.apply(changes(revision))
        await hub.step()
        assert not hub.covers(Clock("e1", 10))
        assert hub.covers(Clock("e1", 11))
        assert hub.covers(Clock("e1", 13))
        assert not hub.covers(Clock("e2", 13))
