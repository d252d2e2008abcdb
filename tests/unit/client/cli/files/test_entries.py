"""entries: what an entry must be, whatever the format."""

import pytest

from pointsman import RouteKey
from pointsman.cli.files.entries import Entry, RawEntry, checked
from pointsman.cli.files.problems import Problem

GOOD: dict[str, object] = {"key": "a/b/c/d", "url": "https://x.internal"}


def check(**fields: object) -> Entry | Problem:
    (result,) = checked([RawEntry(7, GOOD | fields, {"url": 8, "labels": 9})])
    return result


def test_a_minimal_entry_leaves_the_rest_open() -> None:
    assert check() == Entry(7, RouteKey("a", "b", "c", "d"), "https://x.internal", None, None)


def test_a_key_may_come_in_its_four_parts() -> None:
    raw = RawEntry(1, {"tenant": "a", "service": "b", "env": "c", "version": "d", "url": "https://x.internal"})
    (entry,) = checked([raw])
    assert isinstance(entry, Entry)
    assert str(entry.key) == "a/b/c/d"


@pytest.mark.parametrize(
    ("fields", "line", "message"),
    [
        ({"key": None}, 7, "key: must be given"),
        ({"key": 3}, 7, "key: must be text"),
        ({"url": None}, 8, "url: must be given"),
        ({"url": 3}, 8, "url: must be text"),
        ({"version": "d"}, 7, "key: give it whole or in its four parts, not both"),
        ({"key": "a/b"}, 7, "tenant/service/env/version"),
        ({"url": ""}, 8, "url: must be given"),
        ({"url": "x.internal"}, 8, "url: must be absolute"),
        ({"active": "maybe"}, 7, "active: must be true or false"),
        ({"labels": "tier"}, 9, "labels: must be names with values"),
        ({"labels": {"tier": 3}}, 9, "label tier: the value must be text"),
        ({"labels": {"-": "x"}}, 9, "label '-'"),
        ({"labels": {f"l{number}": "" for number in range(65)}}, 9, "at most 64"),
        ({"colour": "red"}, 7, "colour: unknown field"),
    ],
)
def test_a_bad_field_names_its_line(fields: dict[str, object], line: int, message: str) -> None:
    problem = check(**fields)
    assert isinstance(problem, Problem)
    assert problem.line == line
    assert message in problem.message


def test_a_key_twice_is_refused_where_it_comes_again() -> None:
    first, second = checked([RawEntry(1, GOOD), RawEntry(2, GOOD)])
    assert isinstance(first, Entry)
    assert second == Problem(2, "a/b/c/d is given twice: first in line 1")


def test_a_key_twice_in_one_line_is_refused_too() -> None:
    _, second = checked([RawEntry(1, GOOD), RawEntry(1, GOOD)])
    assert second == Problem(1, "a/b/c/d is given twice: first in line 1")


@pytest.mark.parametrize("value", [[], 1.1, 1, True, None])
def test_a_part_of_a_key_must_be_text(value: object) -> None:
    (problem,) = checked([RawEntry(1, {"tenant": value, "url": "https://x.internal"}, {"tenant": 2})])
    assert problem == Problem(2, "tenant: must be text, in quotes")
