"""The backends of a test: one process, which is stopped by its own handle."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.xds_clients import programs

PATIENCE_SECONDS = 30.0


class Backends:
    """Servers that answer their id, in a process of their own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lock = threading.Lock()

    def open(self, name: str, address: str = "127.0.0.1:0", tls: "tuple[Path, Path] | None" = None) -> int:
        """Start the backend ``name``, with a certificate and its key where ``tls`` names them; return its port."""
        cert, key = map(str, tls) if tls else ("", "")
        return self._ask({"do": "open", "id": name, "address": address, "cert": cert, "key": key})

    def close(self, name: str) -> None:
        """Stop the backend ``name``: its connections end at once, and further ones are refused."""
        self._ask({"do": "close", "id": name})

    def wait_until_held(self, name: str) -> None:
        """Wait for a call at the backend ``name`` that is to be held: ``Probe.hold``."""
        self._ask({"do": "held", "id": name})

    def release(self, name: str) -> None:
        """Let the backend ``name`` answer the calls that it holds."""
        self._ask({"do": "release", "id": name})

    def _ask(self, command: dict[str, str]) -> int:
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        assert line, "the process of the backends has ended"
        return int(json.loads(line)["port"])


@contextmanager
def backends() -> Iterator[Backends]:
    """Run the process of backends until the block ends."""
    process = subprocess.Popen(programs.backend(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield Backends(process)
        finally:
            process.kill()
