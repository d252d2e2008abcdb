"""cli.rows: YAML, JSON lines and CSV say the same."""

import io

import pytest

from pointsman.cli.files.entries import RawEntry
from pointsman.cli.files.formats import Format, format_of, read_rows
from pointsman.cli.files.problems import InvalidFile, Problem

FIELDS = {"key": "a/b/c/d", "url": "https://x.internal", "active": False, "labels": {"tier": "gold", "owner": "ada"}}

SAME = {
    Format.YAML: "routes: [{key: a/b/c/d, url: 'https://x.internal', active: false, labels: {tier: gold, owner: ada}}]",
    Format.JSONL: '{"key": "a/b/c/d", "url": "https://x.internal", "active": false,'
    ' "labels": {"tier": "gold", "owner": "ada"}}\n',
    Format.CSV: "key,url,active,labels\na/b/c/d,https://x.internal,false,tier=gold;owner=ada\n",
}


@pytest.mark.parametrize("kind", Format)
def test_every_format_says_the_same(kind: Format) -> None:
    (row,) = read_rows("file", io.StringIO(SAME[kind]), kind)
    assert isinstance(row, RawEntry)
    assert row.fields == FIELDS


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.yaml", Format.YAML), ("a.YML", Format.YAML), ("a.json", Format.YAML), ("a.jsonl", Format.JSONL)],
)
def test_the_suffix_tells_the_format(name: str, kind: Format) -> None:
    assert format_of(name) is kind


def test_another_suffix_tells_nothing() -> None:
    assert format_of("routes.txt") is None


def test_an_empty_csv_cell_leaves_the_field_open() -> None:
    (row,) = read_rows("file", io.StringIO("key,url,active\na/b/c/d,https://x.internal,\n"), Format.CSV)
    assert isinstance(row, RawEntry)
    assert "active" not in row.fields


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (Format.JSONL, "\n{bad\n", (2, "no valid JSON")),
        (Format.JSONL, "[]\n", (1, "must be a JSON object")),
        (Format.JSONL, "[" * 100_000, (1, "nested too deeply")),
        (Format.JSONL, '{"key": "\\ud800"}', (1, "half a character")),
        (Format.CSV, "key,url\na/b/c/d,x,y\n", (2, "more values than columns")),
        (Format.CSV, "key,url,labels\na/b/c/d,x,tier\n", (2, "NAME=VALUE")),
    ],
)
def test_a_bad_row_is_a_problem_of_its_own(kind: Format, text: str, problem: tuple[int, str]) -> None:
    (row,) = read_rows("file", io.StringIO(text), kind)
    assert isinstance(row, Problem)
    assert row.line == problem[0]
    assert problem[1] in row.message


@pytest.mark.parametrize(
    ("kind", "text"),
    [(Format.CSV, "a/b/c/d,x\n"), (Format.CSV, ""), (Format.CSV, '"key"x,url\n'), (Format.YAML, "routes: ]")],
)
def test_a_file_that_makes_no_sense_is_refused(kind: Format, text: str) -> None:
    with pytest.raises(InvalidFile, match=r"^file:1: "):
        list(read_rows("file", io.StringIO(text), kind))


def test_a_line_separator_in_a_string_of_json_does_not_end_the_row() -> None:
    (row,) = read_rows("file", io.StringIO('{"labels": {"a": "x\u2028y\x85z"}}\n'), Format.JSONL)
    assert isinstance(row, RawEntry)
    assert row.fields == {"labels": {"a": "x\u2028y\x85z"}}
