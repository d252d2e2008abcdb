"""The caller's side: start a keeper, hold its pipe, close it."""

import json
import select
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from pointsman_server.embedded.engines import EngineError

ENGINES = ("postgres", "redis", "kafka")
START_SECONDS = 120.0
STOP_SECONDS = 30.0


class Engines:
    """Running engines. They stop with ``stop``, at the end of the block, or with this process.

    ``urls`` maps the names of environment variables to addresses: DATABASE_URL, REDIS_URL, KAFKA_BOOTSTRAP_SERVERS.
    ``pids`` maps the names of engines to processes; Kafka lives in the process of the ``keeper``.
    """

    def __init__(self, keeper: subprocess.Popen[bytes], urls: dict[str, str], pids: dict[str, int]) -> None:
        self._keeper = keeper
        self.urls = urls
        self.pids = pids

    def stop(self) -> None:
        """Stop the engines in good order and wait until they are gone. Does nothing the second time."""
        _release(self._keeper)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(data: Path, engines: Collection[str] = ENGINES, *, fresh: bool = False, durable: bool = True) -> Engines:
    """Start ``engines`` on the directory ``data``, which is made if need be, and wait until they answer.

    ``fresh`` drops what earlier runs left in ``data``. Without ``durable`` a crash of the machine may lose data.
    Raises EngineError when an engine does not start, or when ``data`` is in use.
    """
    options = [f"--data={data.absolute()}", f"--engines={','.join(engines)}"]
    options += ["--fresh"] * fresh + ["--not-durable"] * (not durable)
    # In a session of its own the keeper gets no Ctrl-C from the terminal: the server drains, then closes the pipe.
    keeper = subprocess.Popen(
        [sys.executable, "-m", "pointsman_server.embedded", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        report = _report(keeper, data)
    except BaseException:
        _release(keeper)
        raise
    return Engines(keeper, report["urls"], report["pids"])


def _report(keeper: subprocess.Popen[bytes], data: Path) -> dict[str, Any]:
    """Wait for the one line that the keeper prints."""
    output = cast("IO[bytes]", keeper.stdout)
    answered, _, _ = select.select([output], [], [], START_SECONDS)
    line = output.readline() if answered else b""
    if not line:
        raise EngineError(
            f"the embedded engines did not start, and printed no error: see {data / 'logs' / 'keeper.log'}"
        )
    report: dict[str, Any] = json.loads(line)
    if "error" in report:
        raise EngineError(report["error"])
    return report


def _release(keeper: subprocess.Popen[bytes]) -> None:
    for pipe in (keeper.stdin, keeper.stdout):
        if pipe is not None:
            pipe.close()
    try:
        keeper.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        keeper.kill()  # the engines go with it
        keeper.wait()
