"""How long it takes until something is of use: a server, the client's package, the command."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench import cores
from tests.bench.children import ROOT
from tests.bench.contests import Contest, Refused, Row, Sample, no_more_than
from tests.bench.rig import Rig
from tests.support.processes import clean_environ

# What a program of a user would write: names of the package load on first use.
IMPORT_OURS = "import pointsman; pointsman.Client"
IMPORT_GRPC = "import grpc"
COMMAND_SECONDS = 60
ROUTE = ("team-a", "payments", "prod", "v2")


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure starts, each in a process of its own, on one core; files are in the page cache."""
    with rig.server("envoy", guarded=False) as server:
        resolve = [str(Path(sys.executable).parent / "pointsman"), "resolve", "/".join(ROUTE)]
        at = {"POINTSMAN_SERVER": server.address}
        yield Contest(
            "Starting",
            {
                "serve": _serve(rig),
                "import": _import(rig),
                "resolve": lambda: {"seconds": _timed(rig, resolve, at)},
            },
            [
                _row("serve", "`pointsman-server serve` until it serves, engines up", 1.5),
                _row("import", "`import pointsman` over `import grpc`", 0.15),
                _row("resolve", "`pointsman resolve` from start to end", 0.5),
            ],
        )


def _row(name: str, what: str, most: float) -> Row:
    return Row(f"start.{name}", what, name, no_more_than(most), figure="seconds", unit="s")


def _serve(rig: Rig) -> Callable[[], Sample]:
    def run() -> Sample:
        before = time.perf_counter()
        with rig.server("envoy"):
            return {"seconds": time.perf_counter() - before}

    return run


def _import(rig: Rig) -> Callable[[], Sample]:
    def run() -> Sample:
        ours = _timed(rig, [sys.executable, "-c", IMPORT_OURS])
        theirs = _timed(rig, [sys.executable, "-c", IMPORT_GRPC])
        return {"seconds": ours - theirs}

    return run


def _timed(rig: Rig, command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Run a command to its end, in seconds. Raises Refused when it fails."""
    before = time.perf_counter()
    with cores.pinned(rig.load_core):
        done = subprocess.run(
            command,
            env=clean_environ() | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            cwd=ROOT,
        )
    after = time.perf_counter()
    if done.returncode != 0:
        raise Refused(f"{command[0]} failed: {done.stderr.strip()[-300:]}")
    return after - before
