"""Debian's PgBouncer in front of a PostgreSQL."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.debian import PACKAGES
from tests.support.processes import free_port

PACKAGE = PACKAGES["pgbouncer"]
PATIENCE_SECONDS = 30.0
SETTINGS = """
[databases]
* = host=127.0.0.1 port={server} user=pointsman
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
{more}
"""


@contextmanager
def pgbouncer(server: int, mode: str = "session", more: str = "") -> Iterator[int]:
    """Run PgBouncer before the PostgreSQL at the port ``server``, and give its own port.

    ``mode`` is its ``pool_mode``; ``more`` are further lines of its settings.
    """
    program = PACKAGE.find()
    assert program
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as directory:
        settings, log = Path(directory) / "pgbouncer.ini", Path(directory) / "log"
        settings.write_text(SETTINGS.format(server=server, port=port, mode=mode, more=more))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, *user, settings],
                env=PACKAGE.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            give_up = time.monotonic() + PATIENCE_SECONDS
            while "process up" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < give_up, log.read_text()
                time.sleep(0.02)
            yield port
        finally:
            process.kill()
            process.wait()
