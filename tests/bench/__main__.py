"""``python -m tests.bench`` (``make bench``): measure, print tables, and keep the run in docs/benchmarks.

``--quick`` takes less than a minute and keeps nothing; neither does a run of some parts (``--only``). ``--against``
compares with another checkout instead: 1 when a row is slower by more than 3 %.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

from pointsman_server.embedded import EngineError
from tests.bench import (
    against,
    cores,
    grpc_go,
    history,
    installing,
    machine,
    page,
    report,
    requests,
    running,
    steps,
    variants,
)
from tests.bench.children import ChildFailed
from tests.bench.contests import Part
from tests.bench.figures import Report
from tests.bench.figures import report as condense
from tests.bench.generators import H2LOAD_HINT, LoadFailed, find_h2load
from tests.bench.rig import Guard, Rig, engines, pids
from tests.bench.rows import (
    as_of,
    batches,
    channel,
    commits,
    footprint,
    growth,
    imports,
    misses,
    mutations,
    near_cache,
    propagation,
    reads,
    starts,
    watches,
    workers,
    xds_cutover,
    xds_streams,
    xds_table,
)

MISSING = 2
PARTS: Mapping[str, Part] = {
    "tls": reads.tls_part,
    "envoy": partial(reads.part, transport="envoy"),
    "grpcio": partial(reads.part, transport="grpcio"),
    "misses": misses.part,
    "batches": batches.part,
    "mutations": mutations.part,
    "imports": imports.part,
    "as-of": as_of.part,
    "commits": commits.part,
    "workers": workers.part,
    "growth": growth.part,
    "propagation": propagation.part,
    "near-cache": near_cache.part,
    "channel": channel.part,
    "watches-envoy": partial(watches.part, transport="envoy"),
    "watches-grpcio": partial(watches.part, transport="grpcio"),
    "footprint": footprint.part,
    "starts": starts.part,
    "xds-cutover": xds_cutover.part,
    "xds-streams": xds_streams.part,
    "xds-table": xds_table.part,
}
QUICK = ("tls", "batches", "mutations", "starts")


def options(parts: Mapping[str, Part]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the medians are taken (%(default)s)")
    parser.add_argument("--only", default="", help=f"parts, by commas, of {','.join(parts)}; keeps nothing")
    parser.add_argument("--quick", action="store_true", help=f"one round of half a second of {', '.join(QUICK)}")
    parser.add_argument("--compare", action="store_true", help="say how the ratios differ from those committed last")
    parser.add_argument("--against", type=Path, metavar="DIR", help="run in turn here and in the checkout DIR")
    parser.add_argument("--no-install", action="store_true", help="install nothing that is missing")
    parser.add_argument("--steps", action="store_true", help="say instead where a Resolve from the local cache spends")
    chosen = parser.parse_args()
    if chosen.seconds <= 0 or chosen.rounds < 1:
        parser.error("--seconds and --rounds must be more than nothing")
    if unknown := set(filter(None, chosen.only.split(","))) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if chosen.quick:
        chosen.seconds, chosen.rounds = 0.5, 1
    return chosen


def selected(parts: Mapping[str, Part], chosen: argparse.Namespace) -> dict[str, Part]:
    """Choose the parts to measure, in their order."""
    names = set(chosen.only.split(",")) if chosen.only else set(QUICK) if chosen.quick else set(parts)
    return {name: part for name, part in parts.items() if name in names}


def measure(work: Path, parts: Mapping[str, Part], chosen: argparse.Namespace) -> Report:
    """Start everything, measure it, and stop it again."""
    programs = installing.available(_say, install=not chosen.no_install)
    problem = grpc_go.build() if not (chosen.quick or chosen.no_install) else ""
    has_grpc_go = grpc_go.program().exists()
    if has_grpc_go:
        programs["grpc-go"] = grpc_go.version()
    available = cores.available()
    ours, theirs = (available[0], available[-1]) if len(available) > 1 else (None, None)
    about = machine.about(
        seconds=chosen.seconds,
        rounds=chosen.rounds,
        quick=chosen.quick,
        load=os.getloadavg(),
        pinned=ours is not None,
        programs=programs,
    )
    print(*report.environment(about), "", sep="\n", flush=True)
    results = running.Results(left_out=[*installing.left_out(programs), *filter(None, [problem])])
    with engines(ours) as started:
        rig = Rig(
            work,
            started.urls,
            pids(started),
            Guard.write(work),
            chosen.seconds,
            chosen.quick,
            h2load=Path(str(shutil.which("h2load"))) if "h2load" in programs else None,
            has_etcd="etcd" in programs,
            has_grpc_go=has_grpc_go,
            server_core=ours,
            load_core=theirs,
        )
        for name, part in parts.items():
            _measure(name, part, rig, chosen.rounds, results)
    running.progress("")
    return condense(about, results)


def _measure(name: str, part: Part, rig: Rig, rounds: int, results: running.Results) -> None:
    try:
        with part(rig) as contest:
            running.run(contest, rounds, results, running.progress)
    except (ChildFailed, LoadFailed, EngineError) as error:
        results.left_out.append(f"{name}: {error}")


def bench(work: Path, chosen: argparse.Namespace, parts: Mapping[str, Part]) -> int:
    """Measure, print, keep, compare. Returns 1 when a part failed or a figure was refused."""
    done = measure(work, selected(parts, chosen), chosen)
    print(*report.page(done), sep="\n")
    kept = not (chosen.quick or chosen.only)
    then = history.committed() if chosen.compare else None
    history.write(done, history.KEPT if kept else history.SCRATCH)
    if kept:
        page.main()
    if chosen.compare:
        print(*(history.compare(then, done) if then else ["no run was committed yet"]), sep="\n")
    return 1 if done.left_out or any(line.verdict == "refused" for line in done.lines) else 0


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
    chosen = options(PARTS)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as directory:
        work = Path(directory)
        try:
            if chosen.against:
                installing.available(_say, install=not chosen.no_install)
                return against.run(chosen.against, list(selected(PARTS, chosen)), chosen.rounds, chosen.seconds)
            return profile(work) if chosen.steps else bench(work, chosen, PARTS)
        except (EngineError, ChildFailed, LoadFailed) as error:
            sys.stderr.write(f"{error}\n")
            return 1


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)  # unwinds, which stops everything that was started


if __name__ == "__main__":
    sys.exit(main())
