"""PgBouncer of the distribution, unpacked beside the other tools without installing it.

``python -m tests.support.pgbouncer`` (``make tools``) fetches it where apt-get and dpkg-deb are there. Elsewhere the
tests of poolers run on ``tests.support.pooler`` alone, which refuses what PgBouncer refuses.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import free_port
from tests.support.tools import BIN

ROOT = BIN.parent / "pgbouncer"
FETCH_SECONDS = 120
PATIENCE_SECONDS = 30.0
SETTINGS = """
[databases]
* = host=127.0.0.1 port={server} user=pointsman
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = session
"""


def find() -> Path | None:
    """Return the program: the one that was unpacked here, or one that is installed."""
    here = ROOT / "usr/sbin/pgbouncer"
    installed = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return here if here.exists() else Path(installed) if installed else None


def fetch() -> str | None:
    """Unpack the package and the libraries that it names into ROOT; return what went wrong."""
    if find() is not None or not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    depends = _run("apt-cache", "depends", "pgbouncer").stdout.split()
    libraries = [name for name in depends if name.startswith(("libcares", "libc-ares", "libevent"))]
    with tempfile.TemporaryDirectory(dir=BIN.parent) as directory:
        done = _run("apt-get", "download", "pgbouncer", *libraries, cwd=directory)
        if done.returncode != 0:
            return f"pgbouncer is not fetched: {done.stderr.strip()}"
        draft = Path(directory) / "unpacked"
        for package in Path(directory).glob("*.deb"):
            done = _run("dpkg-deb", "-x", str(package), str(draft))
            if done.returncode != 0:
                return f"{package.name} is not unpacked: {done.stderr.strip()}"
        draft.rename(ROOT)
    return None


@contextmanager
def pgbouncer(server: int) -> Iterator[int]:
    """Run PgBouncer in session mode before the PostgreSQL at the port ``server``, and give its own port."""
    program = find()
    assert program
    libraries = os.pathsep.join(str(path.parent) for path in ROOT.rglob("*.so.*"))
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as directory:
        settings, log = Path(directory) / "pgbouncer.ini", Path(directory) / "log"
        settings.write_text(SETTINGS.format(server=server, port=port))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, *user, settings],
                env=os.environ | {"LD_LIBRARY_PATH": libraries},
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


def _run(*command: str, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)


def main() -> int:
    """Fetch it, and say what went wrong. That is no failure: the tests need it nowhere."""
    BIN.mkdir(parents=True, exist_ok=True)
    if problem := fetch():
        sys.stderr.write(f"{problem}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
