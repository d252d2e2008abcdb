"""app.supervisor: which workers run, when one is started again, and how all of them end."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pointsman_server.app import supervisor
from pointsman_server.config.settings import Settings
from pointsman_server.embedded.tied import tied_to_this_process
from pointsman_server.telemetry import logs
from pointsman_server.telemetry.log_level import SIGNAL, SWITCHED_AT_START, LogLevel
from tests.support.fakes import ManualClock
from tests.support.settings import DATABASE_URL

EVERYTHING = "api,relay,cache,audit"


class FakeWorker:
    """A process that ends when the test says so, or after ``end_on`` signals."""

    def __init__(self, pid: int, environ: dict[str, str], clock: ManualClock) -> None:
        self.pid, self.environ = pid, environ
        self.returncode: int | None = None
        self.ends_with: int | None = 0
        self.signals: list[str] = []
        self.patience: list[float] = []
        self._clock = clock

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.signals.append("TERM")
        if self.returncode is None:
            self.returncode = self.ends_with

    def send_signal(self, name: signal.Signals) -> None:
        self.signals.append(name.name.removeprefix("SIG"))

    def kill(self) -> None:
        self.signals.append("KILL")
        self.returncode = -signal.SIGKILL

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            assert timeout is not None, "it would wait without end"
            self.patience.append(timeout)
            self._clock.advance(timeout)
            raise subprocess.TimeoutExpired("worker", timeout)
        return self.returncode


class Scene:
    """A supervisor on a clock of the test: at each pause the next step is done, and after the last it is stopped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = ManualClock()
        self.workers: list[FakeWorker] = []
        self.pauses: list[float] = []
        self.dead: list[int] = []
        self.metrics: list[str] = []
        self.affinities: dict[int, set[int]] = {}
        self._handlers: dict[int, Callable[..., Any]] = {}
        self._steps: list[Callable[[], None]] = []
        monkeypatch.setattr(subprocess, "Popen", self._start)
        monkeypatch.setattr(supervisor, "time", SimpleNamespace(sleep=self.sleep, monotonic=self.clock))
        monkeypatch.setattr(supervisor.signal, "signal", self._handlers.__setitem__)
        monkeypatch.setattr(supervisor, "mark_process_dead", self._mark_dead)
        monkeypatch.setattr(supervisor.os, "sched_getaffinity", lambda _pid: {4, 2})
        monkeypatch.setattr(supervisor.os, "sched_setaffinity", self.affinities.__setitem__)

    def run(self, *steps: Callable[[], None], **values: Any) -> int:
        self._steps = list(steps)
        return supervisor.run(
            Settings(**{"workers": 2, "listen": "127.0.0.1:50051", **values}), LogLevel("info", "json")
        )

    def _mark_dead(self, pid: int, *, path: str) -> None:
        assert path == self.metrics[0]
        self.dead.append(pid)

    def stop(self, name: signal.Signals = signal.SIGTERM) -> None:
        self._handlers[name](name, None)

    def switch_log_level(self) -> None:
        self._handlers[SIGNAL](SIGNAL, None)

    def _start(self, command: list[str], *, env: dict[str, str], start_new_session: bool) -> FakeWorker:
        assert command == tied_to_this_process([sys.executable, "-m", "pointsman_server", "serve"])
        assert start_new_session
        self.metrics.append(env["PROMETHEUS_MULTIPROC_DIR"])
        assert Path(self.metrics[-1]).is_dir()
        worker = FakeWorker(100 + len(self.workers), env, self.clock)
        self.workers.append(worker)
        return worker

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)
        if seconds != supervisor.POLL_SECONDS:
            return
        if self._steps:
            self._steps.pop(0)()
        else:
            self.stop()

    def dies(self, number: int, *, after: float) -> Callable[[], None]:
        """Make the step in which a worker dies ``after`` so many seconds."""

        def step() -> None:
            self.clock.advance(after)
            self.workers[number].returncode = 1

        return step


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_the_first_worker_has_every_role_and_the_others_the_api(scene: Scene) -> None:
    assert scene.run(workers=3, roles=EVERYTHING, database_url=DATABASE_URL) == 0

    environments = [worker.environ for worker in scene.workers]
    assert [environ.get("POINTSMAN_ROLES") for environ in environments] == [EVERYTHING, "api", "api"]
    assert [environ[supervisor.MARKER] for environ in environments] == ["0", "1", "2"]
    assert {environ["DATABASE_URL"] for environ in environments} == {DATABASE_URL}


@pytest.mark.parametrize(("roles", "others"), [("api,xds,relay", "api,xds"), ("xds,relay", "xds"), ("relay", "api")])
def test_every_worker_does_what_is_called(scene: Scene, roles: str, others: str) -> None:
    assert scene.run(workers=2, roles=roles, database_url=DATABASE_URL) == 0
    first, second = [set(worker.environ["POINTSMAN_ROLES"].split(",")) for worker in scene.workers]
    assert (first, second) == (set(roles.split(",")), set(others.split(",")))


def test_a_process_is_a_worker_when_a_supervisor_started_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not supervisor.is_worker()
    scene.run()
    monkeypatch.setattr(os, "environ", scene.workers[1].environ)
    assert supervisor.is_worker()
    assert not supervisor.was_restarted()


def test_a_process_knows_that_it_replaces_one_that_died(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.run(scene.dies(1, after=supervisor.SHORT_LIFE_SECONDS))
    monkeypatch.setattr(os, "environ", scene.workers[2].environ)
    assert supervisor.was_restarted()


def test_the_workers_share_a_directory_for_metrics_which_is_removed_at_the_end(scene: Scene) -> None:
    scene.run()

    (directory,) = set(scene.metrics)
    assert not Path(directory).exists()


def test_a_worker_that_dies_is_started_again_at_once_with_its_number(scene: Scene) -> None:
    scene.run(scene.dies(1, after=supervisor.SHORT_LIFE_SECONDS))

    assert [worker.environ[supervisor.MARKER] for worker in scene.workers] == ["0", "1", "1"]
    assert [supervisor.RESTARTED in worker.environ for worker in scene.workers] == [False, False, True]
    assert set(scene.pauses) == {supervisor.POLL_SECONDS}
    assert scene.dead == [scene.workers[1].pid]


def test_after_a_short_life_the_next_one_waits(scene: Scene) -> None:
    # Less by the pause in which the step is done.
    scene.run(scene.dies(1, after=supervisor.SHORT_LIFE_SECONDS - 2 * supervisor.POLL_SECONDS))

    assert len(scene.workers) == 3
    assert scene.pauses.count(supervisor.RESTART_PAUSE_SECONDS) == 1


def test_a_worker_that_keeps_dying_is_started_as_often(scene: Scene) -> None:
    scene.run(*(scene.dies(number, after=0) for number in (1, 2, 3)))

    assert [worker.environ[supervisor.MARKER] for worker in scene.workers] == ["0", "1", "1", "1", "1"]
    assert scene.pauses.count(supervisor.RESTART_PAUSE_SECONDS) == 3


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_every_worker_and_starts_none(scene: Scene, name: signal.Signals) -> None:
    def die_and_stop() -> None:
        scene.dies(1, after=60)()
        scene.stop(name)

    assert scene.run(die_and_stop, workers=3) == 1
    assert len(scene.workers) == 3
    assert all(worker.signals == ["TERM"] for worker in scene.workers)


def test_who_was_told_to_stop_in_the_pause_after_a_short_life_starts_none(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_in_the_long_one(seconds: float) -> None:
        scene.sleep(seconds)
        if seconds == supervisor.RESTART_PAUSE_SECONDS:
            scene.stop()

    monkeypatch.setattr(supervisor.time, "sleep", stop_in_the_long_one)
    scene.run(scene.dies(1, after=0))
    assert len(scene.workers) == 2


def test_a_switch_of_the_log_level_reaches_every_worker_and_those_that_start_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The log of this process is that of the other tests, too.
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    scene.run(scene.switch_log_level, scene.dies(1, after=60))

    first, second, third = scene.workers
    assert (first.signals, second.signals, third.signals) == (["USR2", "TERM"], ["USR2"], ["TERM"])
    assert [SWITCHED_AT_START in worker.environ for worker in scene.workers] == [False, False, True]


@pytest.mark.parametrize(("codes", "expected"), [([0, 0], 0), ([0, 1], 1), ([-15, 0], 1)])
def test_the_exit_code_is_0_only_when_every_worker_ended_with_0(scene: Scene, codes: list[int], expected: int) -> None:
    def set_codes() -> None:
        for worker, code in zip(scene.workers, codes, strict=True):
            worker.ends_with = code

    assert scene.run(set_codes) == expected


def test_a_worker_that_does_not_end_is_killed_after_its_grace(scene: Scene) -> None:
    def hang() -> None:
        for worker in scene.workers:
            worker.ends_with = None

    assert scene.run(hang, lame_duck_seconds=5, drain_seconds=20) == 1
    assert [worker.signals for worker in scene.workers] == [["TERM", "KILL"]] * 2
    # Together, and not one after the other.
    assert [worker.patience for worker in scene.workers] == [[pytest.approx(35)], [pytest.approx(0.1)]]


@pytest.mark.parametrize(("pin", "cores"), [(True, [{2}, {4}, {2}]), (False, [])])
def test_pinned_workers_take_the_cores_in_turn(scene: Scene, pin: bool, cores: list[set[int]]) -> None:
    scene.run(workers=3, pin_workers=pin)
    assert list(scene.affinities.values()) == cores
