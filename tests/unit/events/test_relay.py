import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import Change
from pointsman_server.events.relay import Relay
from pointsman_server.ports.broker import BrokerUnavailable, RelayState
from pointsman_server.runtime.backoff import Backoff
from tests.support.changes import make_change


class FakeLog:
    """The outbox, and the one leadership of it. ``faults``: what the next calls raise, first to last, None for fine."""

    def __init__(self, size: int = 0) -> None:
        self.changes = [make_change(revision) for revision in range(1, size + 1)]
        self.progress = 0
        self.history: list[int] = []
        self.faults: list[Exception | None] = []
        self.terms = 0
        self.held = False
        self.waiting = asyncio.Event()
        self.woken = asyncio.Event()
        self.waits: list[float] = []

    @asynccontextmanager
    async def lead(self) -> AsyncIterator["FakeLog"]:
        self._fault()
        assert not self.held
        self.terms, self.held = self.terms + 1, True
        try:
            yield self
        finally:
            self.held = False

    async def state(self) -> RelayState:
        return RelayState(self.progress, len(self.changes), 0.0)

    async def unpublished(self, limit: int, published: int = 0) -> list[Change]:
        self._fault()
        if published > self.progress:
            self.progress = published
            self.history.append(published)
        return self.changes[self.progress : self.progress + limit]

    async def published(self, revision: int) -> None:
        self._fault()
        assert self.held
        self.progress = revision
        self.history.append(revision)

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.waiting.set()
        await self.woken.wait()
        self.woken.clear()
        self.waiting.clear()

    def _fault(self) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault


class FakePublisher:
    """The broker. ``takes``: how many changes of the next batches it stores, None for all."""

    def __init__(self, *takes: int | None) -> None:
        self.stored: list[int] = []
        self.takes = list(takes)
        self.batches: list[int] = []
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()

    async def publish(self, changes: Sequence[Change]) -> int:
        self.entered.set()
        if self.gate:
            await self.gate.wait()
        take = self.takes.pop(0) if self.takes else None
        taken = changes if take is None else changes[:take]
        self.stored += [change.revision for change in taken]
        self.batches.append(len(changes))
        return len(taken)

    async def close(self) -> None:
        pass


class Waits:
    """Stands for sleeping, and counts."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


async def settle(log: FakeLog, relay: Relay) -> None:
    """Run the relay until it has nothing to do, then stop it."""
    task = asyncio.create_task(relay.run())
    async with asyncio.timeout(5):
        await log.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def make_relay(log: FakeLog, publisher: FakePublisher, waits: Waits | None = None, batch: int = 2) -> Relay:
    return Relay(log, publisher, batch=batch, backoff=Backoff(1, 8, sleep=waits or Waits()))


async def test_publishes_everything_in_order_and_in_batches() -> None:
    log, publisher, waits = FakeLog(5), FakePublisher(), Waits()
    await settle(log, make_relay(log, publisher, waits))
    assert publisher.stored == [1, 2, 3, 4, 5]
    assert publisher.batches == [2, 2, 1]
    assert log.history == [2, 4, 5]
    assert waits.seconds == []


async def test_publishes_what_is_committed_while_it_waits() -> None:
    log, publisher = FakeLog(), FakePublisher()
    relay = make_relay(log, publisher)
    task = asyncio.create_task(relay.run())
    await log.waiting.wait()
    assert relay.leader
    log.changes.append(make_change(1))
    log.woken.set()
    await publisher.entered.wait()
    await asyncio.sleep(0)
    await log.waiting.wait()
    assert (publisher.stored, log.progress) == ([1], 1)
    task.cancel()
    await asyncio.wait({task})
    assert (relay.leader, log.held) == (False, False)


async def test_what_is_set_back_while_it_waits_is_published_again() -> None:
    log, publisher = FakeLog(3), FakePublisher()
    task = asyncio.create_task(make_relay(log, publisher, batch=4).run())
    await log.waiting.wait()
    log.progress = 1
    publisher.entered.clear()
    log.woken.set()
    await publisher.entered.wait()
    await asyncio.sleep(0)
    await log.waiting.wait()
    assert (publisher.stored, log.progress) == ([1, 2, 3, 2, 3], 3)
    task.cancel()
    await asyncio.wait({task})


async def test_progress_is_the_acknowledged_front_and_the_rest_comes_again_in_order() -> None:
    log, publisher = FakeLog(6), FakePublisher(1, 0, 2)
    relay = make_relay(log, publisher, batch=4)
    await settle(log, relay)
    assert publisher.stored == [1, 2, 3, 4, 5, 6]
    assert log.history == [1, 3, 6]
    # It stepped down after each failure, so that another server could have taken over.
    assert log.terms == 4
    assert relay.error is None


async def test_nothing_is_recorded_when_the_broker_takes_nothing() -> None:
    log, publisher = FakeLog(2), FakePublisher(0, 0, 0)
    await settle(log, make_relay(log, publisher))
    assert log.history == [2]


async def test_backs_off_longer_and_longer_up_to_a_bound_and_starts_over_after_success() -> None:
    log, publisher, waits = FakeLog(1), FakePublisher(*[0] * 6), Waits()
    relay = make_relay(log, publisher, waits)
    await settle(log, relay)
    bounds = [1, 2, 4, 8, 8, 8]
    assert len(waits.seconds) == len(bounds)
    assert all(bound / 2 <= seconds <= bound for seconds, bound in zip(waits.seconds, bounds, strict=True))
    log.changes.append(make_change(2))
    log.waiting.clear()
    publisher.takes = [0]
    await settle(log, relay)
    assert waits.seconds[-1] <= 1


@pytest.mark.parametrize("where", range(4))
async def test_goes_on_after_the_store_was_away(where: int) -> None:
    log, publisher = FakeLog(3), FakePublisher()
    log.faults = [None] * where + [StoreUnavailable()]
    await settle(log, make_relay(log, publisher))
    assert log.progress == 3
    # At worst twice, never in another order: the first of each revision are in order.
    assert list(dict.fromkeys(publisher.stored)) == [1, 2, 3]


async def test_not_even_a_bug_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    log, publisher = FakeLog(1), FakePublisher()
    log.faults = [None, RuntimeError("a bug")]
    relay = make_relay(log, publisher)
    await settle(log, relay)
    assert log.progress == 1
    assert "the relay failed" in caplog.text


async def test_before_it_runs_it_leads_nothing_and_nothing_is_wrong() -> None:
    relay = Relay(FakeLog(), FakePublisher())
    assert relay.leader is False
    assert relay.error is None


async def test_it_looks_for_changes_as_often_as_it_was_told_to() -> None:
    log = FakeLog()
    await settle(log, Relay(log, FakePublisher(), idle_seconds=0.75))
    assert log.waits == [0.75]


@pytest.mark.parametrize("error", [StoreUnavailable(), RuntimeError("a bug")])
async def test_the_error_shows_until_it_works_again_which_is_logged_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    log, publisher = FakeLog(3), FakePublisher()
    log.faults = [None, error]
    errors: list[Exception | None] = []

    async def sleep(seconds: float) -> None:
        errors.append(relay.error)

    relay = Relay(log, publisher, batch=1, backoff=Backoff(1, 8, sleep=sleep))
    await settle(log, relay)
    assert errors == [error]
    assert relay.error is None
    assert caplog.text.count("the relay works again") == 1


async def test_says_what_is_wrong_once_per_outage(caplog: pytest.LogCaptureFixture) -> None:
    log, publisher = FakeLog(1), FakePublisher(0, 0, 0)
    await settle(log, make_relay(log, publisher))
    assert caplog.text.count("the relay waits: the broker took 0 of 1 changes") == 1


async def test_stopping_lets_a_batch_arrive_and_records_it() -> None:
    log, publisher = FakeLog(4), FakePublisher(1)
    publisher.gate = asyncio.Event()
    task = asyncio.create_task(make_relay(log, publisher).run())
    await publisher.entered.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    assert log.held
    publisher.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (publisher.stored, log.history, log.held) == ([1], [1], False)


async def test_stopping_does_not_wait_for_a_broker_that_hangs() -> None:
    log, publisher = FakeLog(4), FakePublisher()
    publisher.gate = asyncio.Event()
    task = asyncio.create_task(Relay(log, publisher, grace_seconds=0.01).run())
    await publisher.entered.wait()
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({task})
    assert task.cancelled()
    assert (log.history, log.held) == ([], False)


async def test_stopping_ends_a_batch_that_hangs_before_it_gives_up_leadership() -> None:
    """Otherwise the next leader could publish while this one still does."""
    log = FakeLog(4)
    held: list[bool] = []

    class Hanging(FakePublisher):
        async def publish(self, changes: Sequence[Change]) -> int:
            self.entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                held.append(log.held)
            return 0

    publisher = Hanging()
    task = asyncio.create_task(Relay(log, publisher, grace_seconds=0).run())
    await publisher.entered.wait()
    task.cancel()
    await asyncio.wait({task})
    assert held == [True]
    assert (log.history, log.held) == ([], False)


async def test_a_batch_that_fails_while_it_is_stopped_is_not_recorded() -> None:
    log = FakeLog(4)
    gate = asyncio.Event()

    class Failing(FakePublisher):
        async def publish(self, changes: Sequence[Change]) -> int:
            self.entered.set()
            await gate.wait()
            raise BrokerUnavailable("gone")

    publisher = Failing()
    task = asyncio.create_task(make_relay(log, publisher).run())
    await publisher.entered.wait()
    task.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (log.history, log.held) == ([], False)


async def test_stopping_ends_a_recording_that_hangs_before_it_gives_up_leadership() -> None:
    held: list[bool] = []

    class Hanging(FakeLog):
        async def published(self, revision: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                held.append(self.held)

    log, publisher = Hanging(4), FakePublisher()
    publisher.gate = asyncio.Event()
    task = asyncio.create_task(Relay(log, publisher, grace_seconds=0.01).run())
    await publisher.entered.wait()
    task.cancel()
    await asyncio.sleep(0)
    publisher.gate.set()
    await asyncio.wait({task})
    assert (held, log.held) == ([True], False)
