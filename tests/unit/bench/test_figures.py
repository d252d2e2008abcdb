"""Runs become medians, ratios of rounds and verdicts, and survive JSON."""

import json

import pytest

from tests.bench.contests import Contest, Refused, Row, Sample, at_least, at_most, no_more_than
from tests.bench.figures import Report, report
from tests.bench.generators import LoadFailed
from tests.bench.running import Results, run

FAST = Row("fast", "fast", "ours", at_least(0.5), "floor")
SLOW = Row("slow", "slow", "ours", at_least(0.9), "floor")
QUICK = Row("quick", "quick", "ours", at_most(2.0), "floor", "p50", "ms")
SMALL = Row("small", "small", "ours", no_more_than(90), figure="p50", unit="ms")
PLAIN = Row("plain", "plain", "ours", None)


def contest(ours: list[Sample], floor: list[Sample], *rows: Row) -> Results:
    results = Results()
    contestants = {"ours": iter(ours).__next__, "floor": iter(floor).__next__}
    run(Contest("part", contestants, rows), len(ours), results, lambda _: None)
    return results


OURS = [{"rate": 60.0, "p50": 3.0}, {"rate": 50.0, "p50": 5.0}, {"rate": 900.0, "p50": 4.0}]
FLOOR = [{"rate": 100.0, "p50": 2.0}, {"rate": 100.0, "p50": 2.0}, {"rate": 1000.0, "p50": 2.0}]


def test_a_ratio_is_that_of_the_rounds_and_not_of_the_medians() -> None:
    (line,) = report({}, contest(OURS, FLOOR, FAST)).lines
    assert (line.value, line.base) == (60, 100)
    assert line.ratio == 0.6
    assert line.spread == (0.5, 0.9)


def test_verdicts() -> None:
    lines = report({}, contest(OURS, FLOOR, FAST, SLOW, QUICK, SMALL, PLAIN)).lines
    assert {line.name: line.verdict for line in lines} == {
        "fast": "met",
        "slow": "missed",
        "quick": "met",
        "small": "met",
        "plain": "none",
    }
    assert [line.target for line in lines] == ["ratio ≥ 0.5", "ratio ≥ 0.9", "ratio ≤ 2", "value ≤ 90", ""]


def test_a_row_without_a_base_has_a_figure_alone() -> None:
    (line,) = report({}, contest(OURS, FLOOR, SMALL)).lines
    assert (line.value, line.ratio, line.spread) == (4, None, (3, 5))


@pytest.mark.parametrize("error", [Refused("another layer answered"), LoadFailed("h2load failed")])
def test_who_fails_has_no_figures_and_is_not_tried_again(error: Exception) -> None:
    calls = []

    def fails() -> Sample:
        calls.append(1)
        raise error

    results = Results()
    other = Row("other", "other", "floor", None)
    contestants = {"ours": fails, "floor": lambda: {"rate": 1.0, "p50": 1.0}}
    run(Contest("part", contestants, [FAST, other]), 3, results, lambda _: None)
    first, second = report({}, results).lines
    assert len(calls) == 1
    assert (first.verdict, first.value) == ("refused", None)
    assert str(error) in first.reason
    assert (second.verdict, second.value) == ("none", 1)


def test_contestants_run_in_turn_and_as_often_as_the_contest_says() -> None:
    order: list[str] = []

    def runs(name: str) -> Sample:
        order.append(name)
        return {"rate": 1.0}

    results = Results()
    contestants = {"a": lambda: runs("a"), "b": lambda: runs("b")}
    run(Contest("part", contestants, [], rounds=2), 5, results, lambda _: None)
    assert order == ["a", "b", "a", "b"]


def test_a_report_survives_json() -> None:
    made = report({"date": "today"}, contest(OURS, FLOOR, FAST, SMALL, PLAIN))
    made.left_out.append("etcd is missing")
    assert Report.from_json(json.loads(json.dumps(made.to_json()))) == made
