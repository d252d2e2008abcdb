"""The run that is kept in ``docs/benchmarks``, and how another one differs from it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.chart import draw
from tests.bench.children import ROOT
from tests.bench.figures import Line, Report

KEPT = ROOT / "docs" / "benchmarks"
RESULTS = "results.json"
CHART = "ratios.svg"
# What is not to be kept lies where everything lies that can be made again.
SCRATCH = ROOT / ".cache" / "bench"


def write(report: Report, directory: Path) -> None:
    """Write a run and its chart."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.to_json(), indent=1, ensure_ascii=False)
    (directory / RESULTS).write_text(f"{text}\n")
    (directory / CHART).write_text(draw(report.lines, f"Ratios, {report.about['date'][:10]} (a tick is the target)"))


def read(directory: Path) -> Report:
    """Read a run. Raises OSError."""
    return Report.from_json(json.loads((directory / RESULTS).read_text()))


def committed() -> Report | None:
    """Read the run that was committed last, if there is one."""
    path = (KEPT / RESULTS).relative_to(ROOT)
    done = subprocess.run(["git", "show", f"HEAD:./{path}"], capture_output=True, text=True, check=False, cwd=ROOT)
    return Report.from_json(json.loads(done.stdout)) if done.returncode == 0 else None


def compare(then: Report, now: Report) -> Iterator[str]:
    """Render what each row was then and is now; rows without a ratio are compared by their figure."""
    yield f"Then: {then.about['date']}, commit {then.about['commit']}. Now: {now.about['date']}."
    yield ""
    yield "| | then | now | change | |"
    yield "|---|--:|--:|--:|---|"
    before = {line.name: line for line in then.lines}
    for line in now.lines:
        yield _row(before.get(line.name), line)
    for name in before.keys() - {line.name for line in now.lines}:
        yield f"| {before[name].part}: {before[name].what} | {_text(before[name])} | not measured | | |"


def _row(then: Line | None, now: Line) -> str:
    old, new = (None if then is None else _figure(then)), _figure(now)
    change = f"{new / old - 1:+.0%}" if old and new is not None else ""
    beyond = "beyond the spread" if then and _apart(then, now) else ""
    versus = f", beside {now.theirs}" if now.theirs else ""
    return f"| {now.part}: {now.what}{versus} | {_text(then)} | {_text(now)} | {change} | {beyond} |"


def _figure(line: Line) -> float | None:
    return line.ratio if line.theirs else line.value


def _text(line: Line | None) -> str:
    figure = None if line is None else _figure(line)
    if line is None or figure is None:
        return "-"
    return f"{figure:.2f}" if line.theirs else f"{figure:.3g} {line.unit}"


def _apart(then: Line, now: Line) -> bool:
    """Say whether no round of one run was within those of the other: else the change may be chance."""
    if not then.spread or not now.spread:
        return False
    return then.spread[1] < now.spread[0] or now.spread[1] < then.spread[0]
