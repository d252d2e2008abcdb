"""The thread that closes: there when it is needed, and only then."""

import threading

import pytest

from pointsman.channels.reaper import Reaper
from tests.support.waiting import eventually

SECONDS = 20.0


class Work:
    """Returns what it is told to, and says that it was called."""

    def __init__(self, *pauses: float | None) -> None:
        self.pauses = list(pauses)
        self.calls = 0
        self.called = threading.Semaphore(0)

    def __call__(self) -> float | None:
        self.calls += 1
        self.called.release()
        return self.pauses.pop(0) if self.pauses else None


def test_it_works_when_woken_and_ends() -> None:
    work = Work()
    reaper = Reaper(work)
    assert reaper._thread is None
    for count in (1, 2):
        reaper.wake()
        assert work.called.acquire(timeout=SECONDS)
        assert eventually(lambda: reaper._thread is None)
        assert work.calls == count


def test_it_works_again_when_it_said_so() -> None:
    work = Work(0.001, 0.001)
    reaper = Reaper(work)
    reaper.wake()
    assert eventually(lambda: work.calls == 3 and reaper._thread is None)


def test_a_wake_ends_its_pause() -> None:
    work = Work(1000.0)
    reaper = Reaper(work)
    reaper.wake()
    assert work.called.acquire(timeout=SECONDS)
    reaper.wake()
    assert work.called.acquire(timeout=SECONDS)
    assert eventually(lambda: reaper._thread is None)


def test_a_wake_while_it_works_is_not_lost() -> None:
    inside, goes_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        inside.set()
        goes_on.wait(SECONDS)

    reaper = Reaper(work)
    reaper.wake()
    assert inside.wait(SECONDS)
    reaper.wake()
    goes_on.set()
    assert eventually(lambda: len(calls) == 2)


def test_what_fails_is_tried_again(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointsman.channels.reaper.RETRY_SECONDS", 0.001)
    failures = [OSError("this is a test")]

    def work() -> None:
        if failures:
            raise failures.pop()

    reaper = Reaper(work)
    reaper.wake()
    assert eventually(lambda: reaper._thread is None)
    assert "it is tried again" in caplog.text


def test_once_stopped_it_does_nothing() -> None:
    work = Work(1000.0)
    reaper = Reaper(work)
    reaper.wake()
    assert work.called.acquire(timeout=SECONDS)
    reaper.stop(SECONDS)
    assert reaper._thread is None
    reaper.wake()
    assert (reaper._thread, work.calls) == (None, 1)


def test_it_may_be_stopped_from_within() -> None:
    reaper = Reaper(lambda: reaper.stop(SECONDS))
    reaper.wake()
    assert eventually(lambda: reaper._stopped and reaper._thread is None)


def test_it_does_not_work_during_a_fork() -> None:
    work = Work(0.001, 0.001)
    reaper = Reaper(work)
    reaper.before_fork()
    reaper.hold()
    woken = threading.Thread(target=reaper.wake)
    woken.start()
    reaper.after_fork_in_parent()
    woken.join(SECONDS)
    assert eventually(lambda: work.calls == 3)
    reaper.before_fork()
    reaper.hold()
    reaper.after_fork_in_child()
    reaper.wake()
    assert eventually(lambda: work.calls == 4)
