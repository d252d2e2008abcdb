"""``python -m tests.bench``: measure, and print a table. ``make bench ARGS=--quick`` takes less than a minute."""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from pointsman_server.embedded import EngineError
from tests.bench import cores, report, requests, steps, variants
from tests.bench.children import ChildFailed
from tests.bench.generators import GHZ_HINT, H2LOAD_HINT, Ghz, LoadFailed, find_ghz, find_h2load
from tests.bench.measuring import Meter, Results
from tests.bench.rig import rig
from tests.bench.subjects import Catalogue, Files

MISSING = 2


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the medians are taken (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of runs of half a second")
    parser.add_argument("--steps", action="store_true", help="say instead where a Resolve from the local cache spends")
    chosen = parser.parse_args()
    if chosen.seconds <= 0 or chosen.rounds < 1:
        parser.error("--seconds and --rounds must be more than nothing")
    if chosen.quick:
        chosen.seconds, chosen.rounds = 0.5, 1
    return chosen


def measure(work: Path, ghz: Ghz, chosen: argparse.Namespace) -> Results:
    """Start everything, measure it, and stop it again."""
    available = cores.available()
    ours, theirs = (available[0], available[-1]) if len(available) > 1 else (None, None)
    load = os.getloadavg()
    h2load = find_h2load(requests.write_frame(work / "frame.bin"), work / "h2load.log")
    if h2load is None:
        sys.stderr.write(f"{H2LOAD_HINT}\n")
    catalogue = Catalogue(ghz, h2load, Files.write(work), chosen.seconds)
    pinned = ours is not None
    print(*report.environment(seconds=chosen.seconds, rounds=chosen.rounds, load=load, pinned=pinned), "", sep="\n")
    with rig(work, ours) as running:
        subjects = [
            subject
            for transport, servers in running.servers.items()
            for subject in catalogue.subjects(transport, servers)
        ]
        return Meter(running.engines, theirs).measure(subjects, chosen.rounds)


def compare(work: Path, chosen: argparse.Namespace) -> int:
    """Measure every call beside a no-op, and print a table."""
    ghz = find_ghz(requests.write_descriptors(work / "service.binpb"))
    if ghz is None:
        sys.stderr.write(f"{GHZ_HINT}\n")
        return MISSING
    results = measure(work, ghz, chosen)
    print(*report.table(results), sep="\n")
    return 1 if results.refused else 0


def profile(work: Path) -> int:
    """Say where the time of a Resolve from the local cache goes."""
    h2load = find_h2load(requests.write_frame(work / "frame.bin"), work / "h2load.log")
    if h2load is None:
        sys.stderr.write(f"{H2LOAD_HINT}\n")
        return MISSING
    print(*variants.table(h2load, work), "", *steps.table(), sep="\n")
    return 0


def main() -> int:
    """Measure and print. Returns 2 when a tool is missing, 1 when a figure was refused or nothing would start."""
    chosen = options()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as directory:
        work = Path(directory)
        try:
            return profile(work) if chosen.steps else compare(work, chosen)
        except (EngineError, ChildFailed, LoadFailed) as error:
            sys.stderr.write(f"{error}\n")
            return 1


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)  # unwinds, which stops everything that was started


if __name__ == "__main__":
    sys.exit(main())
