"""Several workers on one port: each is a process, and is started again when it dies.

Workers are spawned, not forked, and from a process that has loaded neither grpc nor Kafka: both start threads that
do not survive a fork. The kernel spreads connections over them (SO_REUSEPORT).
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from pointsman_server.config.environment import as_environ
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import CALLED, ServerRole
from pointsman_server.embedded.tied import tied_to_this_process
from pointsman_server.telemetry import log_level
from pointsman_server.telemetry.log_level import LogLevel
from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)

MARKER = "POINTSMAN_INTERNAL_WORKER"
RESTARTED = "POINTSMAN_INTERNAL_RESTARTED"
POLL_SECONDS = 0.1
# After a life shorter than this, perhaps one that never served, the next start waits.
SHORT_LIFE_SECONDS = 5.0
RESTART_PAUSE_SECONDS = 1.0


def is_worker() -> bool:
    """Say whether this process was started by a supervisor."""
    return MARKER in os.environ


def was_restarted() -> bool:
    """Say whether this process was started in the place of a worker that died."""
    return RESTARTED in os.environ


def run(settings: Settings, level: LogLevel) -> int:
    """Run the workers until SIGTERM or SIGINT, then drain them. Returns the exit code.

    The signal that switches ``level`` is blocked, and is passed on to each worker.
    """
    metrics = tempfile.mkdtemp(prefix="pointsman-metrics-")
    try:
        return Supervisor(settings, metrics, level).run()
    finally:
        shutil.rmtree(metrics, ignore_errors=True)


class Supervisor:
    """Keeps ``settings.workers`` workers alive. The first does every role of the settings, the others those that are
    called: they share the ports.
    """

    def __init__(self, settings: Settings, metrics: str, level: LogLevel) -> None:
        self._settings = settings
        self._level = level
        self._metrics = metrics
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = {}
        # One thread of a worker runs Python at a time, so a second core gains nothing and moving between cores costs.
        self._cores = sorted(os.sched_getaffinity(0)) if settings.pin_workers else []
        self._stopping = False

    def run(self) -> int:
        """Start the workers and keep them running until a signal, then drain them. Returns the exit code."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        signal.signal(log_level.SIGNAL, self._switch_level)
        for number in range(self._settings.workers):
            self._start(number)
        log.info("supervising", workers=self._settings.workers)
        while not self._stopping:
            for number, worker in list(self._workers.items()):
                if worker.poll() is not None:
                    self._restart(number, worker)
            self._pause()
        return self._drain()

    def _pause(self) -> None:
        # Only here: a worker that starts inherits that the signal is blocked, and takes it once it can.
        log_level.unblock()
        time.sleep(POLL_SECONDS)
        log_level.block()

    def _start(self, number: int, *, restarted: bool = False) -> None:
        environment = os.environ | as_environ(self._settings)
        environment |= {MARKER: str(number), "PROMETHEUS_MULTIPROC_DIR": self._metrics}
        if restarted:
            environment[RESTARTED] = "1"
        if number:
            environment["POINTSMAN_ROLES"] = ",".join(sorted(self._settings.roles & CALLED or {ServerRole.API}))
        if self._level.switched:
            environment[log_level.SWITCHED_AT_START] = "1"
        # In its own process group: Ctrl-C then reaches it once, through this process.
        worker = self._workers[number] = subprocess.Popen(
            tied_to_this_process([sys.executable, "-m", "pointsman_server", "serve"]),
            env=environment,
            start_new_session=True,
        )
        if self._cores:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(worker.pid, {self._cores[number % len(self._cores)]})
        self._started[number] = time.monotonic()

    def _restart(self, number: int, worker: subprocess.Popen[bytes]) -> None:
        mark_process_dead(worker.pid, path=self._metrics)  # type: ignore[no-untyped-call]
        log.error("a worker died, starting another", worker=number, exit_code=worker.returncode)
        if time.monotonic() - self._started[number] < SHORT_LIFE_SECONDS:
            time.sleep(RESTART_PAUSE_SECONDS)
        if not self._stopping:
            self._start(number, restarted=True)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _switch_level(self, _signal: int, _frame: FrameType | None) -> None:
        self._level.switch()
        for worker in self._workers.values():
            worker.send_signal(log_level.SIGNAL)

    def _drain(self) -> int:
        for worker in self._workers.values():
            worker.terminate()
        give_up = time.monotonic() + self._settings.lame_duck_seconds + self._settings.drain_seconds + 10
        codes = [_wait(worker, give_up) for worker in self._workers.values()]
        return 0 if all(code == 0 for code in codes) else 1


def _wait(worker: subprocess.Popen[bytes], give_up: float) -> int:
    try:
        return worker.wait(max(0.1, give_up - time.monotonic()))
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()
