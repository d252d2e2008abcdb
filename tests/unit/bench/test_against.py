"""Two checkouts are compared row by row."""

from pathlib import Path

import pytest

from tests.bench import against
from tests.bench.against import Comparison, add
from tests.bench.children import ROOT


@pytest.mark.parametrize(
    ("unit", "new", "slower"),
    [
        ("calls/s", 98.0, False),
        ("calls/s", 96.0, True),
        ("calls/s", 150.0, False),
        ("ms", 102.0, False),
        ("ms", 104.0, True),
        ("MB", 60.0, False),
        ("MB", 104.0, True),
    ],
)
def test_a_rate_is_slower_when_it_falls_and_a_time_or_a_size_when_it_grows(unit: str, new: float, slower: bool) -> None:
    assert Comparison(unit, [100.0], [new]).slower is slower


def test_the_median_of_the_ratios_of_the_rounds_counts() -> None:
    row = Comparison("calls/s", [100.0, 100.0, 50.0], [100.0, 90.0, 50.0])
    assert (row.ratios, row.slower) == ([1.0, 0.9, 1.0], False)


def line(name: str, value: float | None) -> dict[str, object]:
    return {"name": name, "unit": "calls/s", "value": value}


def test_a_round_counts_only_where_both_have_a_figure() -> None:
    rows: dict[str, Comparison] = {}
    add(rows, [line("both", 1.0), line("refused", None), line("old", 1.0)], [line("both", 2.0), line("refused", 1.0)])
    assert {name: row.ratios for name, row in rows.items()} == {"both": [2.0], "refused": [], "old": []}


def compare(monkeypatch: pytest.MonkeyPatch, old: Path, new: float | None, rounds: int = 2) -> tuple[int, list[Path]]:
    order: list[Path] = []

    def measure(tree: Path, part: str, seconds: float) -> list[dict[str, object]]:
        order.append(tree)
        return [line(part, 100.0 if tree == old else new)]

    monkeypatch.setattr(against, "measure", measure)
    return against.run(old, ["envoy"], rounds, 1.0), order


def test_the_checkouts_go_first_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status, order = compare(monkeypatch, tmp_path, 100.0, rounds=3)
    assert status == 0
    assert order == [tmp_path, ROOT, ROOT, tmp_path, tmp_path, ROOT]


@pytest.mark.parametrize(("new", "status", "said"), [(90.0, 1, "**slower**"), (None, 1, "**not measured in both**")])
def test_a_slower_row_and_a_row_without_a_figure_fail(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    new: float | None,
    status: int,
    said: str,
) -> None:
    assert compare(monkeypatch, tmp_path, new)[0] == status
    assert said in capsys.readouterr().out
