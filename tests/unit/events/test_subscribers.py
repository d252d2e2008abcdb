"""events.subscribers: what each subscriber is called with, and what happens when one raises."""

from collections.abc import Sequence

import pytest

from pointsman_server.domain.routes import Change
from pointsman_server.events.subscribers import Subscribers
from pointsman_server.ports.store import Clock
from tests.support.changes import make_change

CALLS = ["start_over", "apply", "advance", "confirm"]


class Recorder:
    """Writes each call to ``log``, with ``name``. Raises once per entry of ``fails``: the method that raises next."""

    def __init__(self, log: list[tuple[object, ...]], name: str = "one", *fails: str) -> None:
        self.log = log
        self.name = name
        self.fails = list(fails)

    def start_over(self, clock: Clock) -> None:
        self._called("start_over", clock.revision)

    def apply(self, changes: Sequence[Change]) -> None:
        self._called("apply", *(change.revision for change in changes))

    def advance(self, revision: int) -> None:
        self._called("advance", revision)

    def confirm(self, moment: float) -> None:
        self._called("confirm", moment)

    def _called(self, method: str, *arguments: object) -> None:
        if self.fails[:1] == [method]:
            self.fails.pop(0)
            raise RuntimeError(f"a bug in {method}")
        self.log.append((self.name, method, *arguments))


@pytest.fixture
def log() -> list[tuple[object, ...]]:
    return []


def clock(revision: int) -> Clock:
    return Clock("e1", revision)


def started(*recorders: Recorder, local_writes: bool = True) -> Subscribers:
    """Add the subscribers at revision 0, and forget that they were called."""
    subscribers = Subscribers()
    for recorder in recorders:
        subscribers.add(recorder, clock(0), local_writes=local_writes)
        recorder.log.clear()
    return subscribers


def test_all_are_called_in_the_order_in_which_they_were_added(log: list[tuple[object, ...]]) -> None:
    subscribers = started(Recorder(log, "one"), Recorder(log, "two"))
    subscribers.hand_over([make_change(1), make_change(2)], clock(2), local=False)
    subscribers.confirm(7.5, clock(2))
    subscribers.start_over(clock(9))
    assert log == [
        ("one", "apply", 1, 2),
        ("one", "advance", 2),
        ("two", "apply", 1, 2),
        ("two", "advance", 2),
        ("one", "confirm", 7.5),
        ("two", "confirm", 7.5),
        ("one", "start_over", 9),
        ("two", "start_over", 9),
    ]


@pytest.mark.parametrize(("at", "expected"), [(clock(3), [("one", "start_over", 3)]), (None, [])])
def test_a_new_one_starts_at_the_clock_or_with_the_others(
    log: list[tuple[object, ...]], at: Clock | None, expected: list[tuple[object, ...]]
) -> None:
    Subscribers().add(Recorder(log), at, local_writes=True)
    assert log == expected


def test_local_changes_are_applied_only_by_those_that_need_them(log: list[tuple[object, ...]]) -> None:
    subscribers = started(Recorder(log, "direct"), local_writes=False)
    assert not subscribers.need_local_writes
    subscribers.add(Recorder(log, "watch"), None, local_writes=True)
    assert subscribers.need_local_writes
    subscribers.hand_over([make_change(1)], clock(1), local=True)
    subscribers.hand_over([make_change(2)], clock(2), local=False)
    assert [call for call in log if call[0] == "direct"] == [
        ("direct", "advance", 1),
        ("direct", "apply", 2),
        ("direct", "advance", 2),
    ]
    assert ("watch", "apply", 1) in log


def test_a_local_commit_whose_changes_nobody_needs_only_advances(log: list[tuple[object, ...]]) -> None:
    started(Recorder(log)).hand_over([], clock(4), local=True)
    assert log == [("one", "advance", 4)]


def test_one_that_is_added_by_a_call_is_not_called_with_what_is_in_hand(log: list[tuple[object, ...]]) -> None:
    late = Recorder(log, "late")

    class Adding(Recorder):
        def advance(self, revision: int) -> None:
            subscribers.add(late, clock(revision), local_writes=True)

    subscribers = started(Adding(log))
    subscribers.hand_over([make_change(1)], clock(1), local=False)
    assert log == [("one", "apply", 1), ("late", "start_over", 1)]


@pytest.mark.parametrize("method", ["apply", "advance"])
def test_one_that_raises_starts_over_and_the_others_are_not_affected(
    log: list[tuple[object, ...]], method: str, caplog: pytest.LogCaptureFixture
) -> None:
    other: list[tuple[object, ...]] = []
    subscribers = started(Recorder(log, "one", method), Recorder(other, "two"))
    subscribers.hand_over([make_change(1)], clock(1), local=False)
    subscribers.hand_over([make_change(2)], clock(2), local=False)
    assert log[-3:] == [("one", "start_over", 1), ("one", "apply", 2), ("one", "advance", 2)]
    assert [call[1:] for call in other] == [("apply", 1), ("advance", 1), ("apply", 2), ("advance", 2)]
    assert "the subscriber Recorder failed and starts over" in caplog.text
    assert f"a bug in {method}" in caplog.text


def test_one_that_cannot_confirm_starts_over_at_once(log: list[tuple[object, ...]]) -> None:
    subscribers = started(Recorder(log, "one", "confirm"))
    subscribers.confirm(1.0, clock(2))
    subscribers.confirm(2.0, clock(2))
    assert log == [("one", "start_over", 2), ("one", "confirm", 2.0)]


def test_one_that_cannot_start_over_receives_nothing_until_it_can(
    log: list[tuple[object, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    failing = Recorder(log, "one", "apply", "start_over", "start_over", "start_over")
    subscribers = started(failing)
    subscribers.hand_over([make_change(1)], clock(1), local=False)
    subscribers.hand_over([make_change(2)], clock(2), local=False)
    assert (log, failing.fails) == ([], ["start_over"])
    subscribers.confirm(1.0, clock(2))
    assert (log, failing.fails) == ([], [])
    subscribers.confirm(2.0, clock(2))
    subscribers.hand_over([make_change(3)], clock(3), local=False)
    assert log == [("one", "start_over", 2), ("one", "apply", 3), ("one", "advance", 3)]
    assert caplog.text.count("the subscriber Recorder failed to start over") == 3


def test_a_hand_over_starts_it_over_too_and_the_changes_in_hand_are_not_received(
    log: list[tuple[object, ...]],
) -> None:
    subscribers = started(Recorder(log, "one", "apply", "start_over"))
    subscribers.hand_over([make_change(1)], clock(1), local=False)
    subscribers.hand_over([make_change(2)], clock(2), local=False)
    assert log == [("one", "start_over", 2)]


def test_starting_all_over_is_enough(log: list[tuple[object, ...]]) -> None:
    subscribers = started(Recorder(log, "one", "apply", "start_over"))
    subscribers.hand_over([make_change(1)], clock(1), local=False)
    subscribers.start_over(clock(0))
    subscribers.confirm(1.0, clock(0))
    assert log == [("one", "start_over", 0), ("one", "confirm", 1.0)]


def test_one_that_was_removed_is_not_called(log: list[tuple[object, ...]]) -> None:
    one, two = Recorder(log, "one"), Recorder(log, "two")
    subscribers = Subscribers()
    subscribers.add(one, None, local_writes=True)
    subscribers.add(two, None, local_writes=False)
    subscribers.remove(one)
    subscribers.remove(one)
    assert not subscribers.need_local_writes
    subscribers.hand_over([make_change(1)], clock(1), local=False)
    subscribers.confirm(1.0, clock(1))
    subscribers.start_over(clock(2))
    assert log == [("two", "apply", 1), ("two", "advance", 1), ("two", "confirm", 1.0), ("two", "start_over", 2)]
