"""A run as Markdown: what it was made on, every row with its target, and every contestant."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.bench.contests import Sample
from tests.bench.figures import Contestant, Line, Report
from tests.bench.machine import processor

ROWS_HEAD = (
    "| | ours | against | ratio | of the rounds | target | |",
    "|---|--:|--:|--:|--:|--:|---|",
)
CONTESTANTS_HEAD = (
    "| contestant | a second | p50 ms | p99 ms | server µs | engines µs | busy | generator |",
    "|---|--:|--:|--:|--:|--:|--:|--:|",
)
# With less than this of its core in use, the server waited for calls: it could do more.
BUSY = 0.9
VERDICTS = {"met": "met", "missed": "**missed**", "none": "", "refused": "**refused**"}


def machine(*, load: Sequence[float]) -> Iterator[str]:
    """Describe the machine in a line."""
    yield f"{processor()}; load average at start {load[0]:.2f}"


def page(report: Report) -> Iterator[str]:
    """Render all of it."""
    yield from environment(report.about)
    yield ""
    for part in dict.fromkeys(line.part for line in report.lines):
        yield f"**{part}**"
        yield ""
        yield from ROWS_HEAD
        yield from (row(line) for line in report.lines if line.part == part)
        yield ""
    yield from left_out(report)
    yield from contestants(report.contestants)


def environment(about: dict[str, Any]) -> Iterator[str]:
    """Say what it was made on."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    if about["quick"]:
        yield "> A quick run: one short round of a subset, which says that the benchmark works, and little more."
        yield ">"
    yield f"> {about['date']}, commit {about['commit']}: `{about['command']}`"
    yield ">"
    yield (
        f"> {about['processor']}, {about['cores']} cores, {about['memory_gb']} GB, {about['system']}; {versions}. "
        f"Load average at start: {about['load']:.2f}."
    )
    yield ">"
    where = "Servers and engines on one core, the generator on another" if about["pinned"] else "Nothing is pinned"
    rounds = f"{about['rounds']} round{'s' * (about['rounds'] > 1)} of {about['seconds']:g} s a run"
    yield f"> {where}; {rounds}, contestants in turn."


def row(line: Line) -> str:
    """Render one row."""
    cells = [
        line.what,
        _figure(line.value, line.unit),
        f"{line.theirs}: {_figure(line.base, line.unit)}" if line.theirs else "",
        "" if line.ratio is None else f"**{line.ratio:.2f}**",
        _spread(line),
        line.target.removeprefix("ratio ").removeprefix("value "),
        VERDICTS[line.verdict],
    ]
    return f"| {' | '.join(cells)} |"


def left_out(report: Report) -> Iterator[str]:
    """Say what has no figure, and why."""
    lines = [f"{line.part}, {line.what}: {line.reason}" for line in report.lines if line.verdict == "refused"]
    for text in [*report.left_out, *dict.fromkeys(lines)]:
        yield f"- Left out: {text}"
        yield ""


def contestants(given: Sequence[Contestant]) -> Iterator[str]:
    """Render what each contestant did."""
    yield "**Every contestant**"
    yield ""
    yield from CONTESTANTS_HEAD
    for each in given:
        if "rate" in each.figures:
            yield _contestant(each.part, each.name, each.figures)


def _contestant(part: str, name: str, figures: Sample) -> str:
    def cell(figure: str, form: str) -> str:
        return format(figures[figure], form) if figure in figures else ""

    idle = figures.get("busy", 1.0) < BUSY
    cells = (
        f"{part}: {name}",
        cell("rate", ",.0f") + " †" * idle,
        cell("p50", ",.2f"),
        cell("p99", ",.2f"),
        cell("cpu", ",.1f"),
        cell("engines", ",.1f"),
        cell("busy", ".0%"),
        cell("generator", ".0%"),
    )
    return f"| {' | '.join(cells)} |"


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _spread(line: Line) -> str:
    if line.spread is None:
        return ""
    low, high = line.spread
    if line.ratio is not None:
        return f"{low:.2f} to {high:.2f}"
    return f"{_figure(low, '').strip()} to {_figure(high, '').strip()}"
