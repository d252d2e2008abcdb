"""``python -m tests.bench.page``: write the tables of docs/benchmarks.md anew, from the run in docs/benchmarks."""

import sys
from pathlib import Path

from tests.bench import report
from tests.bench.children import ROOT
from tests.bench.figures import Report
from tests.bench.history import CHART, KEPT, RESULTS, read

PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
HEADLINE_BEGIN, HEADLINE_END = "<!-- begin headline: make bench writes it -->", "<!-- end headline -->"
BEGIN, END = "<!-- begin figures: make bench writes them -->", "<!-- end figures -->"


def headline(run: Report) -> str:
    """Say in a sentence what users get: Envoy with TLS, everything on. Empty when that was not measured."""
    lines = {line.name: line for line in run.lines}
    floor, etcd = lines.get("tls.envoy.floor"), lines.get("tls.envoy.etcd-serializable")
    if not floor or not etcd or floor.ratio is None or etcd.ratio is None:
        return ""
    return (
        "One core over TLS, everything on (validation, metrics, a verified token, permissions, limits): a Resolve from "
        f"the local cache\nmakes {floor.value:,.0f} calls a second, {etcd.ratio:.2f} times etcd's serializable Range "
        f"over TLS and {floor.ratio:.2f} of Envoy with an empty application."
    )


def render_headline(text: str, run: Report) -> str:
    """Put the headline of a run between its markers; without either the text stays."""
    before, begin, rest = text.partition(HEADLINE_BEGIN)
    _, end, after = rest.partition(HEADLINE_END)
    sentence = headline(run)
    return f"{before}{begin}\n{sentence}\n{end}{after}" if end and sentence else text


def render(text: str, run: Report) -> str:
    """Put a run between the markers. Raises ValueError when they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    picture = f"![Ratios](benchmarks/{CHART})"
    figures = "\n".join(report.page(run)).strip()
    return f"{before}{BEGIN}\n\n{picture}\n\n{figures}\n\n{END}{after}"


def main(page: Path = PAGE, readme: Path = README) -> int:
    """Write the page, and the headline of both. Returns 2 when there is no run."""
    try:
        run = read(KEPT)
    except OSError:
        sys.stderr.write(f"there is no {KEPT / RESULTS}: `make bench` makes it\n")
        return 2
    page.write_text(render_headline(render(page.read_text(), run), run))
    readme.write_text(render_headline(readme.read_text(), run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
