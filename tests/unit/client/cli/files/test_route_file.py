"""route_file: YAML read so that each problem names its line."""

import pytest

from pointsman.cli.files.entries import RawEntry
from pointsman.cli.files.problems import Problem
from pointsman.cli.files.route_file import read_route_file


def test_reads_entries_with_their_lines() -> None:
    text = "routes:\n  - key: a/b/c/d\n    url: https://x.internal\n    active: false\n    labels: {tier: gold}\n"
    (entry,) = read_route_file(text).entries
    assert isinstance(entry, RawEntry)
    assert entry.line == 2
    assert entry.lines["url"] == 3
    assert entry.fields == {
        "key": "a/b/c/d",
        "url": "https://x.internal",
        "active": False,
        "labels": {"tier": "gold"},
    }


def test_a_label_stays_what_was_written() -> None:
    (entry,) = read_route_file("routes: [{labels: {release: 1.10, canary: no, since: 2026-01-01}}]").entries
    assert isinstance(entry, RawEntry)
    assert entry.fields["labels"] == {"release": "1.10", "canary": "no", "since": "2026-01-01"}


def test_a_tag_does_not_make_a_boolean() -> None:
    (entry,) = read_route_file("routes: [{active: !!bool maybe}]").entries
    assert isinstance(entry, RawEntry)
    assert entry.fields == {"active": "maybe"}


def test_tenants_may_be_named() -> None:
    assert read_route_file("tenants: [a, b]").tenants == ("a", "b")
    assert read_route_file("routes: []").tenants is None


def test_traffic_is_read_with_its_lines() -> None:
    text = "traffic:\n- key: a/b/c\n  targets: {v2: 10%, v1: 90%}\n  fallbacks: [v0, v00]\n"
    file = read_route_file(text)
    assert file.traffic is not None
    (entry,) = file.traffic
    assert isinstance(entry, RawEntry)
    assert (entry.line, entry.lines["targets"], file.entries) == (2, 3, ())
    assert entry.fields == {"key": "a/b/c", "targets": {"v2": "10%", "v1": "90%"}, "fallbacks": ["v0", "v00"]}


def test_a_file_says_of_traffic_nothing_or_that_there_is_none() -> None:
    assert read_route_file("routes: []").traffic is None
    assert read_route_file("traffic: []").traffic == ()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "empty"),
        ("a: ]", 1, "no valid YAML"),
        ("- a\n", 1, "names with values"),
        ("{}", 1, "routes: must be given"),
        ("routes: []\ncolour: red", 2, "colour: unknown field"),
        ("routes: 3", 1, "must be a list"),
        ("routes:\n- 3", 2, "names with values"),
        ("routes:\n- key: a\n  key: b", 3, "key: is given twice"),
        ("routes:\n- labels:\n    tier:", 3, "tier: has no value"),
        ("routes:\n- key: a/b/c/d\n  labels:\n    # tier: gold\n  url: x", 3, "labels: has no value"),
        ("routes:\n- key: a/b/c/d\n  active:", 3, "active: has no value"),
        ("routes:\n- key: ~", 2, "key: has no value"),
        ("routes:\n- key: [a]", 2, "key: must be one value"),
        ("routes: []\n---\nroutes: []", 2, "a second YAML document begins here"),
        ("---\nroutes: []\n---\n", 3, "a second YAML document begins here"),
        ("tenants: [a b]", 1, "tenants"),
        ("a: \x00", 0, "no valid YAML"),
        ("\n" + "[" * 100_000, 2, "nested deeper"),
        ("- " * 100_000, 1, "nested deeper"),
        ("routes:\n- url: " + "x" * 2049, 2, "url: must be at most 2048 characters"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, message: str) -> None:
    (problem,) = read_route_file(text).entries
    assert isinstance(problem, Problem)
    assert message in problem.message
    assert problem.line == line


def test_what_aliases_repeat_does_not_grow() -> None:
    # 150 kB of labels, named ten thousand times: a gigabyte if each was read anew.
    labels = ", ".join(f"name{number}: value" for number in range(10_000))
    text = f"routes:\n- labels: &all {{{labels}}}\n" + "- labels: *all\n" * 10_000
    problems = read_route_file(text).entries
    assert len(problems) == 10_001
    assert {str(problem) for problem in problems} == {str(Problem(2, "must be at most 64 names with values"))}
