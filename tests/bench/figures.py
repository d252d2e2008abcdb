"""From runs to what is kept of them: medians, ratios and spread, as plain data that goes to JSON and back."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal, Self

from tests.bench.contests import Row, Sample, Target
from tests.bench.running import Results

Verdict = Literal["met", "missed", "none", "refused"]


@dataclass(frozen=True, slots=True)
class Line:
    """One row, measured. ``ratio`` is the median of the ratios of the rounds, ``spread`` from the least to the most."""

    name: str
    part: str
    what: str
    unit: str
    ours: str
    theirs: str
    value: float | None = None
    base: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    target: str = ""
    bound: float | None = None
    verdict: Verdict = "none"
    reason: str = ""

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Self:
        """Read what ``asdict`` and JSON made of a line."""
        spread = given.get("spread")
        return cls(**given | {"spread": tuple(spread) if spread else None})


@dataclass(frozen=True, slots=True)
class Contestant:
    """The medians of one contestant."""

    part: str
    name: str
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    about: dict[str, Any]
    lines: list[Line] = field(default_factory=list)
    contestants: list[Contestant] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Self:
        """Read it again."""
        return cls(
            given["about"],
            [Line.from_json(line) for line in given["lines"]],
            [Contestant(**contestant) for contestant in given["contestants"]],
            given.get("left_out", []),
        )


def report(about: dict[str, Any], results: Results) -> Report:
    """Condense runs."""
    lines = [_line(part, row, results) for part, row in results.rows]
    contestants = [Contestant(*place, medians(runs)) for place, runs in results.runs.items()]
    return Report(about, lines, contestants, results.left_out)


def medians(runs: Sequence[Sample]) -> dict[str, float]:
    """Take the median of each figure that all runs have."""
    names = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: median(run[name] for run in runs) for name in names}


def _line(part: str, row: Row, results: Results) -> Line:
    blank = Line(row.name, part, row.what, row.unit, row.ours, row.theirs, **_target(row.target))
    for name in filter(None, (row.ours, row.theirs)):
        if reason := results.refused.get((part, name)):
            return _with(blank, verdict="refused", reason=f"{name}: {reason}")
    ours = [run[row.figure] for run in results.runs[part, row.ours]]
    if not row.theirs:
        return _judged(blank, row.target, value=median(ours), spread=(min(ours), max(ours)))
    theirs = [run[row.figure] for run in results.runs[part, row.theirs]]
    ratios = [ours_ / theirs_ for ours_, theirs_ in zip(ours, theirs, strict=True)]
    spread = (min(ratios), max(ratios))
    return _judged(blank, row.target, value=median(ours), base=median(theirs), ratio=median(ratios), spread=spread)


def _judged(line: Line, target: Target | None, **figures: Any) -> Line:
    measured = _with(line, **figures)
    if target is None:
        return measured
    return _with(measured, verdict="met" if target.met(measured.ratio, measured.value or 0.0) else "missed")


def _with(line: Line, **changes: Any) -> Line:
    return Line(**asdict(line) | changes)


def _target(target: Target | None) -> dict[str, Any]:
    if target is None:
        return {}
    bound = target.most if target.most is not None else target.least
    sign = "≤" if target.most is not None else "≥"
    return {"target": f"{target.of} {sign} {bound:g}", "bound": bound}
