"""``pointsman-server`` in its own process, as operators run it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.waiting import eventually

BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 120.0


class ServerProcess:
    """A running ``pointsman-server`` and its output."""

    def __init__(self, arguments: tuple[str, ...], environ: Mapping[str, str]) -> None:
        self._output = tempfile.TemporaryFile("w+")
        self._errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pointsman_server", *arguments],
            env={**clean_environ(), "POINTSMAN_LOG_FORMAT": "json", **environ},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        """Everything on stdout so far."""
        return _read(self._output)

    @property
    def errors(self) -> str:
        """Everything on stderr so far."""
        return _read(self._errors)

    def log(self, event: str) -> list[dict[str, Any]]:
        """The log lines of ``event`` so far."""
        return [line for line in self.log_lines() if line["event"] == event]

    def log_lines(self) -> list[dict[str, Any]]:
        """Every log line so far."""
        return [json.loads(line) for line in self.errors.splitlines() if line.startswith("{") and line.endswith("}")]

    def wait_for_log(self, event: str, times: int = 1) -> dict[str, Any]:
        """Wait for the ``times``-th log line of ``event``, and return the last one."""
        assert eventually(lambda: len(self.log(event)) >= times or self.ended, PATIENCE_SECONDS), self.errors
        found = self.log(event)
        assert len(found) >= times, self.errors
        return found[-1]

    def wait_for_output(self, pattern: str) -> re.Match[str]:
        """Wait until stdout matches ``pattern``."""
        assert eventually(lambda: re.search(pattern, self.output) or self.ended, PATIENCE_SECONDS), self.errors
        match = re.search(pattern, self.output)
        assert match, self.errors
        return match

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def stop(self, name: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code. Raises TimeoutExpired after PATIENCE_SECONDS."""
        if not self.ended:
            self.process.send_signal(name)
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired as error:
            error.add_note(f"it does not end; the end of its log: {self.errors[-4000:]}")
            raise

    def close(self) -> None:
        """Terminate the process where it still runs, kill it where that takes too long, and close its files."""
        if not self.ended:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._output.close()
        self._errors.close()


@contextmanager
def server_process(*arguments: str, **environ: str) -> Iterator[ServerProcess]:
    """Run ``pointsman-server`` with ``arguments`` until the block ends, also by an error."""
    process = ServerProcess(arguments, environ)
    try:
        yield process
    finally:
        process.close()


@contextmanager
def serve(*arguments: str, **environ: str) -> Iterator[tuple[ServerProcess, str, str]]:
    """Run ``pointsman-server serve`` on ephemeral ports; gives it, its gRPC address and its HTTP URL."""
    listening = ["POINTSMAN_LISTEN", "POINTSMAN_HTTP_LISTEN"]
    if "xds" in " ".join((*arguments, environ.get("POINTSMAN_ROLES", ""))):
        # The release before does not know it.
        listening.append("POINTSMAN_XDS_LISTEN")
    ports = dict.fromkeys(listening, "127.0.0.1:0")
    with server_process("serve", *arguments, **(ports | environ)) as process:
        line = process.wait_for_log("serving")
        yield process, f"127.0.0.1:{line['grpc_port']}", f"http://127.0.0.1:{line['http_port']}"


def run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``pointsman`` or ``pointsman-server`` to its end."""
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        env={**clean_environ(), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def clean_environ() -> dict[str, str]:
    """Return this process's environment without Pointsman's settings."""
    ours = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")
    return {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_") and name not in ours}


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def get_json(url: str) -> tuple[int, dict[str, Any]]:
    """GET a JSON document, also with an error status. Returns the status and the document."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def get_text(url: str) -> str:
    """GET a text, also with an error status."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def get_metric(url: str, pattern: str) -> float | None:
    """Read one sample from ``/metrics`` whose name and labels match ``pattern``; None when there is none."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE_SECONDS) as response:
        text = response.read().decode()
    match = re.search(rf"^{pattern} (\S+)$", text, re.MULTILINE)
    return float(match[1]) if match else None


def _read(file: Any) -> str:
    # pread: parent and child share the file offset, which must stay at the end.
    return os.pread(file.fileno(), 1 << 24, 0).decode(errors="replace")
