"""A run as a page, as a picture, and beside an earlier one."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.bench import chart, history, page, report
from tests.bench.figures import Contestant, Line, Report

ABOUT: dict[str, Any] = {
    "date": "2026-11-24T12:00:00+00:00",
    "commit": "abc1234",
    "command": "python -m tests.bench",
    "processor": "A processor",
    "cores": 2,
    "memory_gb": 24,
    "system": "Linux 6",
    "load": 0.1,
    "pinned": True,
    "seconds": 2.0,
    "rounds": 5,
    "quick": False,
    "versions": {"Python": "3.11", "etcd": "3.4.23"},
}
LOCAL = Line(
    "local", "Reads", "a & b", "calls/s", "ours", "floor", 600.0, 1000.0, 0.6, (0.5, 0.7), "ratio ≥ 0.5", 0.5, "met"
)
MEMORY = Line("memory", "Memory", "empty", "MB", "ours", "", 95.0, None, None, (94, 96), "value ≤ 90", 90, "missed")
REFUSED = Line("redis", "Reads", "Redis", "calls/s", "ours", "floor", verdict="refused", reason="LOCAL answered")
RUN = Report(ABOUT, [LOCAL, MEMORY, REFUSED], [Contestant("Reads", "ours", {"rate": 600, "busy": 0.5})], ["no etcd"])


def test_a_page_has_the_run_each_row_and_what_is_left_out() -> None:
    text = "\n".join(report.page(RUN))
    assert "abc1234" in text
    assert "etcd 3.4.23" in text
    assert "| a & b | 600 calls/s | floor: 1,000 calls/s | **0.60** | 0.50 to 0.70 | ≥ 0.5 | met |" in text
    assert "| empty | 95 MB |  |  | 94 to 96 | ≤ 90 | **missed** |" in text
    assert "Left out: no etcd" in text
    assert "Left out: Reads, Redis: LOCAL answered" in text
    assert "| Reads: ours | 600 † |" in text
    assert "quick" not in text


def test_a_quick_run_says_so() -> None:
    assert "quick run" in "\n".join(report.page(replace(RUN, about=ABOUT | {"quick": True})))


def test_the_figures_of_a_page_are_replaced_and_nothing_else() -> None:
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    once = page.render(text, RUN)
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "old" not in once
    assert page.render(once, RUN) == once


def test_a_page_without_a_place_for_figures_is_refused() -> None:
    with pytest.raises(ValueError, match="begin figures"):
        page.render("no markers", RUN)


def test_the_committed_page_has_a_place_for_figures() -> None:
    assert page.BEGIN in page.render(page.PAGE.read_text(), RUN)


def test_the_headline_is_that_of_envoy_with_tls_and_stays_where_that_was_not_measured() -> None:
    text = f"a\n{page.HEADLINE_BEGIN}\nold\n{page.HEADLINE_END}\nb\n"
    assert page.render_headline(text, RUN) == text
    floor = replace(LOCAL, name="tls.envoy.floor", value=15_000.0, ratio=0.8)
    etcd = replace(LOCAL, name="tls.envoy.etcd-serializable", ratio=2.1)
    written = page.render_headline(text, replace(RUN, lines=[floor, etcd]))
    assert "15,000 calls a second, 2.10 times" in written
    assert "0.80 of Envoy" in written
    assert "old" not in written
    assert page.render_headline("no markers", replace(RUN, lines=[floor, etcd])) == "no markers"


@pytest.mark.parametrize("path", [page.PAGE, page.README])
def test_the_pages_have_a_place_for_the_headline(path: Path) -> None:
    text = path.read_text()
    assert text.index(page.HEADLINE_BEGIN) < text.index(page.HEADLINE_END)


def drawn(*lines: Line) -> ET.Element:
    return ET.fromstring(chart.draw(lines, "a <title>"))  # noqa: S314 - it is ours


def marks(picture: ET.Element, name: str, kind: str) -> list[ET.Element]:
    return [mark for mark in picture.iter(f"{{http://www.w3.org/2000/svg}}{name}") if mark.get("class") == kind]


def test_a_picture_has_a_bar_with_spread_and_target_for_each_ratio() -> None:
    picture = drawn(LOCAL, MEMORY, REFUSED)
    (bar,) = marks(picture, "rect", "met")
    assert float(bar.get("width", 0)) == pytest.approx(chart.place(0.6) - chart.place(0), abs=0.1)
    (target,) = marks(picture, "line", "target")
    assert float(target.get("x1", 0)) == pytest.approx(chart.place(0.5), abs=0.1)
    (spread,) = marks(picture, "line", "spread")
    assert float(spread.get("x1", 0)) < float(spread.get("x2", 0))
    assert not marks(picture, "rect", "missed")


def test_a_picture_has_colours_for_dark_pages_and_keeps_a_large_ratio_on_it() -> None:
    text = chart.draw([replace(LOCAL, ratio=50.0, spread=(49.0, 51.0))], "title")
    assert "prefers-color-scheme: dark" in text
    assert "50.00 →" in text
    assert chart.place(50) < chart.WIDTH


def test_rows_do_not_lie_on_one_another() -> None:
    bars = marks(drawn(LOCAL, replace(LOCAL, name="second"), replace(LOCAL, part="Other")), "rect", "met")
    places = sorted(float(bar.get("y", 0)) for bar in bars)
    assert all(after - before >= chart.BAR for before, after in itertools.pairwise(places))


def test_a_run_is_written_and_read_again(tmp_path: Path) -> None:
    history.write(RUN, tmp_path / "kept")
    assert history.read(tmp_path / "kept") == RUN
    assert (tmp_path / "kept" / history.CHART).read_text().startswith("<svg")


def test_two_runs_are_compared_row_by_row() -> None:
    faster = replace(LOCAL, ratio=0.9, spread=(0.8, 1.0))
    new = replace(LOCAL, name="new", what="new")
    text = "\n".join(history.compare(RUN, replace(RUN, lines=[faster, MEMORY, new])))
    assert "| Reads: a & b, beside floor | 0.60 | 0.90 | +50% | beyond the spread |" in text
    assert "| Memory: empty | 95 MB | 95 MB | +0% |  |" in text
    assert "| Reads: new, beside floor | - | 0.60 |  |  |" in text
    assert "| Reads: Redis | - | not measured | | |" in text


def test_a_change_within_the_spread_is_not_called_one() -> None:
    text = "\n".join(history.compare(RUN, replace(RUN, lines=[replace(LOCAL, ratio=0.65, spread=(0.55, 0.75))])))
    assert "beyond" not in text
