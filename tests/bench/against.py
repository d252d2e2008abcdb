"""Two checkouts side by side: each part runs in turn in both, each with its own code and its own ``.venv``.

A row is compared by the median of the ratios of the rounds, new to old; in every other round the new one goes first.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.children import ROOT
from tests.bench.running import progress

# The share by which a row may be worse.
TOLERANCE = 0.03
RESULTS = Path(".cache") / "bench" / "results.json"
PART_SECONDS = 600


@dataclass
class Comparison:
    """The values of a row in both checkouts, by round."""

    unit: str
    old: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """New to old, by round."""
        return [new / old for new, old in zip(self.new, self.old, strict=True)]

    @property
    def slower(self) -> bool:
        """Whether the median ratio is beyond the tolerance: of a rate below it, of a time or a size above it."""
        ratio = median(self.ratios)
        return ratio < 1 - TOLERANCE if self.unit.endswith("/s") else ratio > 1 + TOLERANCE


def run(old: Path, parts: Sequence[str], rounds: int, seconds: float) -> int:
    """Compare with the checkout ``old``, and print a table. Returns 1 when a row is slower, or was not measured."""
    rows: dict[str, Comparison] = {}
    for part in parts:
        for number in range(rounds):
            trees = (old.resolve(), ROOT) if number % 2 == 0 else (ROOT, old.resolve())
            progress(f"{part}, round {number + 1} of {rounds}")
            lines = {tree: measure(tree, part, seconds) for tree in trees}
            add(rows, lines[old.resolve()], lines[ROOT])
    progress("")
    print(*table(rows), sep="\n")
    compared = {name: row for name, row in rows.items() if row.ratios}
    slower = [name for name, row in compared.items() if row.slower]
    print(f"\n{len(compared)} rows, {len(slower)} slower by more than {TOLERANCE:.0%}")
    return 1 if slower or len(compared) < len(rows) or not rows else 0


def measure(tree: Path, part: str, seconds: float) -> list[dict[str, object]]:
    """Run one round of one part in a checkout. Gives its rows as its results have them; none when it failed."""
    results = tree / RESULTS
    results.unlink(missing_ok=True)
    command = [str(tree / ".venv" / "bin" / "python"), "-m", "tests.bench", "--only", part, "--rounds", "1"]
    subprocess.run(
        [*command, "--seconds", f"{seconds:g}", "--no-install"],
        cwd=tree,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=PART_SECONDS,
        check=False,  # 1 when a figure was refused: then its row has none
    )
    lines: list[dict[str, object]] = json.loads(results.read_text())["lines"] if results.exists() else []
    return lines


def add(rows: dict[str, Comparison], old: Sequence[Mapping[str, object]], new: Sequence[Mapping[str, object]]) -> None:
    """Add a round: rows that both have, each with a value. A row of one alone is kept without."""
    before = {line["name"]: line["value"] for line in old}
    for line in new:
        row = rows.setdefault(str(line["name"]), Comparison(str(line["unit"])))
        values = before.get(line["name"]), line["value"]
        if all(isinstance(value, int | float) and value > 0 for value in values):
            row.old.append(float(str(values[0])))
            row.new.append(float(str(values[1])))
    for line in old:
        rows.setdefault(str(line["name"]), Comparison(str(line["unit"])))


def table(rows: Mapping[str, Comparison]) -> Iterator[str]:
    """Render a Markdown table: medians, the median of the ratios, and from the least to the most of them."""
    yield "| row | old | new | new/old | of the rounds | |"
    yield "|---|--:|--:|--:|--:|---|"
    for name, row in rows.items():
        if not row.ratios:
            yield f"| {name} | | | | | **not measured in both** |"
            continue
        medians = " | ".join(f"{median(values):.4g} {row.unit}" for values in (row.old, row.new))
        spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"
        yield f"| {name} | {medians} | {median(row.ratios):.3f} | {spread} | {'**slower**' if row.slower else ''} |"
