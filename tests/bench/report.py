"""The figures as a Markdown table, and what they were measured on."""

import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from tests.bench.generators import CALLS_IN_FLIGHT, CONNECTIONS
from tests.bench.measuring import Results, Row, Run

HEAD = (
    "| load | transport | call | calls/s | of no-op | p50 ms | p99 ms | server µs | of no-op | engines µs | busy |",
    "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
)
# With less than this of its core in use, the server waited for calls: it could do more.
BUSY = 0.9
NOOP = "no-op"
NOTE = f"""\
calls/s, p50, p99: as the generator saw them. of no-op: the figure to its left, divided by that of the no-op run right
before. server µs, engines µs: processor time per call of the server, and of PostgreSQL and Redis. busy: how much of one
core these took together; † marks less than {BUSY:.0%}, where the generator, a disk or others on this machine were the
bound, so that calls/s is a lower limit of what the server can do. All are medians of the rounds.
"""

Figure = Callable[[Run], float]


def environment(*, seconds: float, rounds: int, load: Sequence[float], pinned: bool) -> Iterator[str]:
    """Describe the machine and the run, before it begins."""
    yield from machine(load=load)
    where = "servers and engines on one core, the generator on another" if pinned else "nothing pinned to a core"
    yield (
        f"{where}; {CONNECTIONS} connections, {CALLS_IN_FLIGHT} calls in flight, "
        f"{rounds} round{'s' * (rounds > 1)} of {seconds:g} s a run.".capitalize()
    )


def machine(*, load: Sequence[float]) -> Iterator[str]:
    """Describe the machine."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "pygrpc-native", "protobuf", "protovalidate"))
    yield (
        f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}; "
        f"load average at start {load[0]:.2f} (a machine that is shared, or busy, moves all figures: compare ratios)."
    )


def table(results: Results) -> Iterator[str]:
    """Render the figures; the no-op of each generator and transport comes first, from all of its runs."""
    yield from HEAD
    seen: set[tuple[str, str]] = set()
    for row, pairs in results.pairs.items():
        group = (row.generator, row.transport)
        if group not in seen:
            seen.add(group)
            yield _line(Row(*group, NOOP), [(noop, noop) for noop in _noops(results, group)])
        yield _line(row, pairs)
    for row in results.refused:
        yield f"| {row.generator} | {row.transport} | {row.what} | refused | | | | | | | |"
    yield ""
    yield NOTE
    for row, reason in results.refused.items():
        yield f"Refused: {row.transport}, {row.what}: {reason}"


def _noops(results: Results, group: tuple[str, str]) -> list[Run]:
    return [
        noop for row, pairs in results.pairs.items() if (row.generator, row.transport) == group for noop, _ in pairs
    ]


def _line(row: Row, pairs: Sequence[tuple[Run, Run]]) -> str:
    def middle(figure: Figure) -> float:
        return median(figure(run) for _, run in pairs)

    def ratio(figure: Figure) -> float:
        return median(figure(run) / max(figure(noop), 1e-9) for noop, run in pairs)

    busy = middle(lambda run: run.busy)
    cells = (
        row.generator,
        row.transport,
        row.what,
        f"{middle(lambda run: run.load.rate):,.0f}{'' if busy >= BUSY else ' †'}",
        f"{ratio(lambda run: run.load.rate):.2f}",
        f"{middle(lambda run: run.load.p50):.2f}",
        f"{middle(lambda run: run.load.p99):.2f}",
        f"{middle(lambda run: run.server_microseconds):,.0f}",
        f"{ratio(lambda run: run.server_microseconds):.1f}",
        f"{middle(lambda run: run.engines_microseconds):,.0f}",
        f"{busy:.0%}",
    )
    return f"| {' | '.join(cells)} |"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        return names[0].strip() if names else platform.machine()
    brand = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
    return brand.stdout.strip() or platform.machine()
