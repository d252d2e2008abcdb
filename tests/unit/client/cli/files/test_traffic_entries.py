"""traffic_entries: an entry of traffic is checked before anything is sent."""

from typing import Any

import pytest

from pointsman.cli.files.entries import RawEntry
from pointsman.cli.files.problems import Problem
from pointsman.cli.files.traffic_entries import TrafficEntry, checked_traffic
from pointsman.keys import FamilyKey

GOOD: dict[str, Any] = {"key": "a/b/c", "targets": {"v1": "90%", "v2": "10%"}, "fallbacks": ["v0"]}


def checked(**fields: object) -> TrafficEntry | Problem:
    given = {name: value for name, value in (GOOD | fields).items() if value is not None}
    (entry,) = checked_traffic([RawEntry(3, given, {"targets": 4})])
    return entry


def test_a_good_entry() -> None:
    wanted = TrafficEntry(3, FamilyKey("a", "b", "c"), {"v1": 9000, "v2": 1000}, ("v0",))
    assert checked() == wanted
    assert checked(key=None, tenant="a", service="b", env="c") == wanted
    assert checked(fallbacks=None) == TrafficEntry(3, wanted.key, wanted.weights, ())


@pytest.mark.parametrize(
    ("fields", "line", "message"),
    [
        ({"colour": "red"}, 3, "colour: unknown field"),
        ({"url": "https://x"}, 3, "url: unknown field: an entry of traffic has key, targets and fallbacks"),
        ({"key": None}, 3, "key: must be given, as tenant/service/env"),
        ({"key": "a/b/c/v1"}, 3, "key: 'a/b/c/v1' must be tenant/service/env"),
        ({"key": "a/b/-"}, 3, "key: '-' must be 1 to 63"),
        ({"env": "c"}, 3, "key: give it whole or in its three parts"),
        ({"targets": None}, 4, "targets: must be versions with percentages"),
        ({"targets": {}}, 4, "targets: must be versions with percentages"),
        ({"targets": "v1"}, 4, "targets: must be versions with percentages"),
        ({"targets": {"v1": "100"}}, 4, "targets: v1: '100' must be a percentage, such as 90% or 12.5%"),
        ({"targets": {"v1": 10_000.0}}, 4, "must be a percentage"),
        ({"targets": {"v1": "110%"}}, 4, "'110' must be percent from 0 to 100"),
        ({"targets": {"v1": "90%"}}, 4, "targets: v1=90% add up to 90%, and must add up to 100%"),
        ({"targets": {"v 1": "100%"}}, 4, "targets: the version 'v 1' must be 1 to 63"),
        ({"targets": {f"v{n}": "1%" for n in range(65)}}, 4, "targets: must be at most 64"),
        ({"fallbacks": "v1"}, 3, "fallbacks: must be a list of versions"),
        ({"fallbacks": ["v1", "v1"]}, 3, "fallbacks: v1 is given twice"),
        ({"fallbacks": ["-"]}, 3, "fallbacks: the version '-' must be"),
        ({"fallbacks": [f"v{n}" for n in range(17)]}, 3, "at most 16"),
    ],
)
def test_a_bad_entry_is_a_problem_with_its_line(fields: dict[str, Any], line: int, message: str) -> None:
    problem = checked(**fields)
    assert isinstance(problem, Problem)
    assert problem.line == line
    assert message in problem.message


def test_the_same_key_twice_is_a_problem_that_names_the_first() -> None:
    raws = [RawEntry(1, GOOD), Problem(2, "bad"), RawEntry(3, GOOD)]
    first, bad, again = checked_traffic(raws)
    assert isinstance(first, TrafficEntry)
    assert (bad, again) == (Problem(2, "bad"), Problem(3, "a/b/c is given twice: first in line 1"))
