"""Native calls end once: with an answer, a refusal, the default deadline, or without one when cancelled."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from grpc import StatusCode

from pointsman_server.rpc.fastpath.call_ends import DeadlinePassed
from pointsman_server.rpc.fastpath.fast_path import DECLINED, FastPath
from pointsman_server.rpc.fastpath.pending import PendingResolve
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport import native_calls
from pointsman_server.rpc.transport.native_calls import NativeCalls, NativeContext

METADATA = (("a", "b"),)
REFUSAL = Refusal(StatusCode.NOT_FOUND, "no such route", (("x", "y"),))


class Pending(PendingResolve):
    """A call that waits until the test ends its load; ``finish`` returns what the load brought."""

    __slots__ = ("cancelled", "finished", "on_result")

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.on_result: Callable[[Any], None] | None = None
        self.finished: list[Any] = []
        self.cancelled = 0

    def start(self, on_result: Callable[[Any], None]) -> None:
        self.on_result = on_result

    def finish(self, outcome: Any) -> bytes | Refusal:
        self.finished.append(outcome)
        return cast("bytes | Refusal", REFUSAL if isinstance(outcome, BaseException) else outcome)

    def cancel(self) -> None:
        self.cancelled += 1

    def load(self, outcome: Any) -> None:
        assert self.on_result
        self.on_result(outcome)


class Responder:
    def __init__(self) -> None:
        self.ended: list[tuple[Any, ...]] = []

    def respond(self, call_id: int, payload: bytes) -> bool:
        self.ended.append((call_id, payload))
        return True

    def fail(self, call_id: int, code: int, message: str, trailing_metadata: Any = None) -> bool:
        self.ended.append((call_id, code, message, trailing_metadata))
        return True


class Fixture:
    """Native calls of a fast path whose outcomes the test gives."""

    def __init__(self) -> None:
        self.outcome: Any = DECLINED
        self.responder = Responder()
        self.contexts: list[NativeContext] = []
        self.calls = NativeCalls(cast("FastPath", self))

    def resolve(self, request: bytes, context: NativeContext) -> Any:
        assert request == b"request"
        self.contexts.append(context)
        return self.outcome

    def take(self, call_id: int, outcome: Any) -> bool:
        self.outcome = outcome
        return self.calls.take(call_id, b"request", (METADATA, "peer", None), self.responder)

    @property
    def ended(self) -> list[tuple[Any, ...]]:
        return self.responder.ended


@pytest.fixture
async def fixture() -> Fixture:
    return Fixture()


async def test_what_needs_no_load_ends_at_once(fixture: Fixture) -> None:
    assert fixture.take(1, b"response")
    assert fixture.take(2, REFUSAL)
    assert fixture.ended == [(1, b"response"), (2, 5, "no such route", [("x", "y")])]
    assert len(fixture.calls) == 0


async def test_what_is_declined_is_not_taken(fixture: Fixture) -> None:
    assert not fixture.take(1, DECLINED)
    assert fixture.ended == []


async def test_what_waits_ends_once_with_its_load(fixture: Fixture) -> None:
    one, other = Pending(), Pending()
    assert fixture.take(1, one)
    assert fixture.take(2, other)
    assert len(fixture.calls) == 2
    assert fixture.ended == []

    other.load(ValueError())
    one.load(b"response")
    one.load(b"again")

    assert fixture.ended == [(2, 5, "no such route", [("x", "y")]), (1, b"response")]
    assert one.finished == [b"response"]
    assert len(fixture.calls) == 0


async def test_a_cancelled_call_is_not_answered_by_its_load(fixture: Fixture) -> None:
    pending = Pending()
    fixture.take(1, pending)
    assert fixture.calls.cancel(1)
    assert not fixture.calls.cancel(1)
    pending.load(b"response")
    assert (fixture.ended, pending.finished, pending.cancelled) == ([], [], 1)


async def test_a_load_of_an_old_call_does_not_end_a_new_one_with_its_number(fixture: Fixture) -> None:
    old, new = Pending(), Pending()
    fixture.take(1, old)
    fixture.calls.cancel(1)
    fixture.take(1, new)
    old.load(b"old")
    assert fixture.ended == []
    new.load(b"new")
    assert fixture.ended == [(1, b"new")]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the clock of the event loop has to advance
            await asyncio.sleep(0.001)


async def test_calls_without_a_deadline_end_with_the_default_one_in_their_order(fixture: Fixture) -> None:
    first, gone, last, patient = Pending(0.01), Pending(0.01), Pending(0.03), Pending()
    for number, pending in enumerate((first, gone, last, patient), start=1):
        fixture.take(number, pending)
    fixture.calls.cancel(2)

    await until(lambda: len(fixture.ended) == 2)

    assert [ended[0] for ended in fixture.ended] == [1, 3]
    for pending, seconds in ((first, 0.01), (last, 0.03)):
        (outcome,) = pending.finished
        assert isinstance(outcome, DeadlinePassed)
        assert outcome.seconds == seconds
    assert (gone.finished, patient.finished, len(fixture.calls)) == ([], [], 1)


async def test_the_timer_starts_again_for_later_calls(fixture: Fixture) -> None:
    for number in (1, 2):
        fixture.take(number, Pending(0.001))
        await until(lambda number=number: len(fixture.ended) == number)  # type: ignore[misc]
    assert [ended[0] for ended in fixture.ended] == [1, 2]


def test_the_context_counts_down_what_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(native_calls.time, "perf_counter", lambda: now)
    context = NativeContext((METADATA, "peer", 5.0))
    now = 103.0
    assert (context.invocation_metadata(), context.peer(), context.time_remaining()) == (METADATA, "peer", 2.0)
    assert NativeContext((METADATA, "peer", None)).time_remaining() is None
