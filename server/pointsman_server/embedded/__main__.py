"""The keeper: starts engines, prints where they answer, and stops them when its stdin ends or on a signal."""

import argparse
import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pointsman_server.embedded.engines import KINDS, Engine, EngineError, Site

READY_SECONDS = 60.0
POLL_SECONDS = 0.01


class Leash:
    """How long the keeper runs: until its stdin ends, or SIGTERM, SIGINT or SIGHUP arrives."""

    def __init__(self) -> None:
        self._signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def released(self, seconds: float | None = None) -> bool:
        """Wait at most ``seconds`` for that; return whether it happened."""
        ready, _, _ = select.select([0, self._signals], [], [], seconds)
        return self._signals in ready or (0 in ready and not os.read(0, 4096))


class Lock:
    """The lock on the data directory: held while any process that inherited the descriptor lives."""

    def __init__(self, data: Path) -> None:
        self._file = (data / "lock").open("a+")
        self._wait(data)
        self._write(f"{os.getpid()} {os.getppid()}\n")

    def fileno(self) -> int:
        return self._file.fileno()

    def leaving(self) -> None:
        """Note in the file that this keeper is stopping: the next one waits for the lock."""
        self._write("")

    def _wait(self, data: Path) -> None:
        begin = time.monotonic()
        while not _locked(self._file):
            self._file.seek(0)
            keeper, _, owner = self._file.read().strip().partition(" ")
            # The engines of a keeper that has died, or is stopping, are on their way out.
            patience = 1 if keeper and _alive(int(keeper)) else 15
            if time.monotonic() - begin > patience:
                who = f"by the process {owner} (its engines by {keeper})" if keeper else "by engines that do not stop"
                raise EngineError(f"{data} is in use {who}: end it first, or choose another directory")
            time.sleep(POLL_SECONDS)

    def _write(self, text: str) -> None:
        self._file.truncate(0)
        self._file.write(text)
        self._file.flush()


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def _stopped_at_the_end(engines: list[Engine], lock: Lock) -> Iterator[None]:
    try:
        yield
    finally:
        lock.leaving()
        for engine in reversed(engines):
            engine.stop()


def _wait_until_ready(engines: list[Engine], leash: Leash) -> dict[str, str]:
    """Collect the addresses of all ``engines``, or of fewer when the keeper is released before."""
    urls: dict[str, str] = {}
    waiting = list(engines)
    deadline = time.monotonic() + READY_SECONDS
    while waiting:
        for engine in list(waiting):
            if answer := engine.ready():
                urls |= [answer]
                waiting.remove(engine)
        if waiting and leash.released(POLL_SECONDS):
            break
        if waiting and time.monotonic() > deadline:
            raise waiting[0].failure(f"did not answer within {READY_SECONDS:.0f} seconds")
    return urls


def _prepare_logs(data: Path) -> None:
    """Set the logs of the last run aside, and let what this process prints be one of the new ones."""
    logs = data / "logs"
    logs.mkdir(exist_ok=True)
    for log in logs.glob("*.log"):
        log.replace(log.with_suffix(".log.last"))
    with (logs / "keeper.log").open("ab") as mine:
        os.dup2(mine.fileno(), 2)


def keep(data: Path, names: list[str], leash: Leash, *, fresh: bool, durable: bool) -> None:
    """Run engines until released. Raises EngineError."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = Lock(data)
    _prepare_logs(data)
    site = Site(data, lock.fileno(), fresh=fresh, durable=durable)
    engines: list[Engine] = []
    with _stopped_at_the_end(engines, lock):
        # In the order of KINDS, the slowest is followed by one that is busy by itself. They are started by the main
        # thread because the kernel takes the end of the *thread* that started them for the end of their parent.
        for kind in (kind for name, kind in KINDS.items() if name in names):
            engines.append(kind(site))
            engines[-1].start()
        urls = _wait_until_ready(engines, leash)
        if len(urls) == len(engines):
            pids = {engine.name: engine.process.pid if engine.process else os.getpid() for engine in engines}
            _print({"urls": urls, "pids": pids | {"keeper": os.getpid()}})
            leash.released()


def _print(report: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(report).encode() + b"\n")


def main() -> int:
    """Read the options, keep, and report what goes wrong."""
    parser = argparse.ArgumentParser(prog="python -m pointsman_server.embedded", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory that keeps data and logs")
    parser.add_argument("--engines", default=",".join(KINDS), help="some of %(default)s")
    parser.add_argument("--fresh", action="store_true", help="drop the data of earlier runs")
    parser.add_argument("--not-durable", action="store_true", help="faster, but a crash of the machine may lose data")
    options = parser.parse_args()
    leash = Leash()
    names = options.engines.split(",")
    if unknown := set(names) - KINDS.keys():
        parser.error(f"unknown engines: {', '.join(sorted(unknown))}")
    try:
        keep(options.data.absolute(), names, leash, fresh=options.fresh, durable=not options.not_durable)
    except (EngineError, OSError, subprocess.SubprocessError) as error:
        _print({"error": str(error) if isinstance(error, EngineError) else f"embedded engines: {error}"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
