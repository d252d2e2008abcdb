import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import Change
from pointsman_server.events.consumer import Consumer
from pointsman_server.ports.broker import BrokerUnavailable, Delivery, Poison
from pointsman_server.ports.cache import CacheUnavailable
from pointsman_server.runtime.backoff import Backoff
from tests.support.changes import make_change


def make_poison(offset: int) -> Poison:
    return Poison("route-events", 0, offset, "no protobuf RouteChange", b"secret")


class FakeSource:
    """One partition. ``faults``: what the next receives and commits raise, None for fine."""

    def __init__(self, *messages: Change | Poison, batch: int = 2) -> None:
        self.messages = messages
        self.batch = batch
        self.position = 0
        self.committed = 0
        self.receive_faults: list[Exception | None] = []
        self.commit_faults: list[Exception | None] = []
        self.drained = asyncio.Event()
        self.waits: list[float] = []

    async def receive(self, seconds: float) -> Delivery:
        self.waits.append(seconds)
        self._fault(self.receive_faults)
        if self.position == len(self.messages):
            self.drained.set()
            await asyncio.Event().wait()
        taken = self.messages[self.position : self.position + self.batch]
        self.position += len(taken)
        poison = [message for message in taken if isinstance(message, Poison)]
        return Delivery([message for message in taken if isinstance(message, Change)], poison)

    async def commit(self) -> None:
        self._fault(self.commit_faults)
        self.committed = self.position

    async def rewind(self) -> None:
        self.position = self.committed

    async def lag(self) -> int:
        return len(self.messages) - self.position

    async def close(self) -> None:
        pass

    def _fault(self, faults: list[Exception | None]) -> None:
        fault = faults.pop(0) if faults else None
        if fault is not None:
            raise fault


class Recorder:
    """A handler, or a place for poison. ``faults``: what the next calls raise after they did half of the work."""

    def __init__(self, *faults: Exception | None) -> None:
        self.seen: list[Any] = []
        self.faults = list(faults)

    async def handle(self, changes: Sequence[Change]) -> None:
        self.seen += [change.revision for change in changes]
        self._fault()

    async def set_aside(self, poison: Poison) -> None:
        self.seen.append(poison.offset)
        self._fault()

    def _fault(self) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault


async def no_wait(_seconds: float) -> None:
    await asyncio.sleep(0)


async def drain(source: FakeSource, handler: Recorder, aside: Recorder | None = None) -> Consumer:
    """Consume until nothing is left, then stop."""
    set_aside = (aside or Recorder()).set_aside
    consumer = Consumer("test", source, handler.handle, set_aside, backoff=Backoff(sleep=no_wait))
    task = asyncio.create_task(consumer.run())
    async with asyncio.timeout(5):
        await source.drained.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert source.committed == len(source.messages)
    return consumer


async def test_handles_everything_in_order_then_commits() -> None:
    handler = Recorder()
    consumer = await drain(FakeSource(*map(make_change, range(1, 6))), handler)
    assert handler.seen == [1, 2, 3, 4, 5]
    assert (consumer.handled, consumer.poisoned, consumer.error) == (5, 0, None)


@pytest.mark.parametrize("fault", [CacheUnavailable(), StoreUnavailable(), RuntimeError("a bug")], ids=repr)
async def test_what_failed_comes_again_and_is_never_skipped(fault: Exception) -> None:
    handler = Recorder(None, fault, fault)
    consumer = await drain(FakeSource(*map(make_change, range(1, 6))), handler)
    assert handler.seen == [1, 2, 3, 4, 3, 4, 3, 4, 5]
    assert (consumer.handled, consumer.error) == (5, None)


async def test_what_could_not_be_committed_comes_again() -> None:
    source, handler = FakeSource(*map(make_change, range(1, 4))), Recorder()
    source.commit_faults = [BrokerUnavailable("away")]
    await drain(source, handler)
    assert handler.seen == [1, 2, 1, 2, 3]


async def test_goes_on_when_the_broker_is_back() -> None:
    source, handler = FakeSource(make_change(1)), Recorder()
    source.receive_faults = [BrokerUnavailable("away"), BrokerUnavailable("away")]
    await drain(source, handler)
    assert handler.seen == [1]


async def test_poison_is_set_aside_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    handler, aside = Recorder(), Recorder()
    consumer = await drain(FakeSource(make_change(1), make_poison(1), make_poison(2), make_change(4)), handler, aside)
    assert (handler.seen, aside.seen) == ([1, 4], [1, 2])
    assert consumer.poisoned == 2
    assert "route-events[0]@1: no protobuf RouteChange" in caplog.text
    assert "secret" not in caplog.text


async def test_poison_is_not_lost_when_it_cannot_be_set_aside() -> None:
    aside = Recorder(BrokerUnavailable("away"))
    consumer = await drain(FakeSource(make_poison(0)), Recorder(), aside)
    assert (aside.seen, consumer.poisoned) == ([0, 0], 1)


async def test_poison_is_set_aside_once_however_often_the_handler_fails() -> None:
    aside = Recorder()
    await drain(FakeSource(make_change(1), make_poison(1)), Recorder(*[CacheUnavailable()] * 5), aside)
    assert aside.seen == [1]


async def test_says_what_is_wrong_once_per_outage(caplog: pytest.LogCaptureFixture) -> None:
    await drain(FakeSource(make_change(1)), Recorder(*[CacheUnavailable("Redis is away")] * 5))
    assert caplog.text.count("the consumer test waits: Redis is away") == 1


async def test_stopping_in_the_middle_of_the_work_commits_nothing() -> None:
    source, entered = FakeSource(make_change(1)), asyncio.Event()

    async def hang(_changes: Sequence[Change]) -> None:
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Consumer("test", source, hang, Recorder().set_aside).run())
    await entered.wait()
    task.cancel()
    await asyncio.wait({task})
    assert source.committed == 0


async def test_before_it_runs_nothing_is_wrong() -> None:
    consumer = Consumer("test", FakeSource(), Recorder().handle, Recorder().set_aside)
    assert (consumer.error, consumer.handled, consumer.poisoned) == (None, 0, 0)


async def test_it_waits_for_messages_as_long_as_it_was_told_to() -> None:
    source = FakeSource()
    consumer = Consumer("test", source, Recorder().handle, Recorder().set_aside, receive_seconds=0.25)
    task = asyncio.create_task(consumer.run())
    await source.drained.wait()
    task.cancel()
    await asyncio.wait({task})
    assert source.waits == [0.25]


@pytest.mark.parametrize("error", [StoreUnavailable(), RuntimeError("a bug")])
async def test_the_error_shows_until_it_works_again_which_is_logged_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    source, errors = FakeSource(*map(make_change, range(1, 6))), []

    async def sleep(_seconds: float) -> None:
        errors.append(consumer.error)

    handler = Recorder(None, error)
    consumer = Consumer("test", source, handler.handle, Recorder().set_aside, backoff=Backoff(sleep=sleep))
    task = asyncio.create_task(consumer.run())
    await source.drained.wait()
    task.cancel()
    await asyncio.wait({task})
    assert errors == [error]
    assert consumer.error is None
    assert caplog.text.count("the consumer test works again") == 1


async def test_a_consumer_that_is_given_no_backoff_has_one() -> None:
    source, handler = FakeSource(make_change(1)), Recorder(CacheUnavailable())
    consumer = Consumer("test", source, handler.handle, Recorder().set_aside)
    task = asyncio.create_task(consumer.run())
    async with asyncio.timeout(10):
        await source.drained.wait()
    task.cancel()
    await asyncio.wait({task})
    assert handler.seen == [1, 1]
