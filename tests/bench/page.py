"""``python -m tests.bench.page``: write the tables of docs/benchmarks.md anew, from the run in docs/benchmarks."""

import sys
from pathlib import Path

from tests.bench import report
from tests.bench.children import ROOT
from tests.bench.figures import Report
from tests.bench.history import CHART, KEPT, RESULTS, read

PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- begin figures: make bench writes them -->", "<!-- end figures -->"


def render(text: str, run: Report) -> str:
    """Put a run between the markers. Raises ValueError when they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    picture = f"![Ratios](benchmarks/{CHART})"
    figures = "\n".join(report.page(run)).strip()
    return f"{before}{BEGIN}\n\n{picture}\n\n{figures}\n\n{END}{after}"


def main(page: Path = PAGE) -> int:
    """Write the page. Returns 2 when there is no run."""
    try:
        run = read(KEPT)
    except OSError:
        sys.stderr.write(f"there is no {KEPT / RESULTS}: `make bench` makes it\n")
        return 2
    page.write_text(render(page.read_text(), run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
