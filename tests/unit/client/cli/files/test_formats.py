"""formats: YAML, JSON lines and CSV say the same."""

import io
import json

import pytest

from pointsman.cli.files.entries import RawEntry, checked
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


def test_traffic_is_not_passed_over() -> None:
    text = "routes: []\ntraffic: [{key: a/b/c, targets: {v1: 100%}}]"
    with pytest.raises(InvalidFile, match="only pointsman apply takes it"):
        read_rows("file", io.StringIO(text), Format.YAML)


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
        (Format.JSONL, '{"key": "a/b/c/d", "url": "x", "url": "y"}', (1, "url: is given twice")),
        (Format.JSONL, '{"labels": {"tier": "x", "tier": "y"}}', (1, "tier: is given twice")),
        (Format.JSONL, '{"any": [{"a": {"b": 1, "b": 1}}]}', (1, "b: is given twice")),
        (Format.JSONL, '{"url": NaN}', (1, "no valid JSON: NaN")),
        (Format.JSONL, '{"url": -Infinity}', (1, "no valid JSON: -Infinity")),
        (Format.CSV, "key,url\na/b/c/d,x,y\n", (2, "more values than columns")),
        (Format.CSV, "key,url,\na/b/c/d,x,y\n", (2, "column 3 has no name")),
        (Format.CSV, "key,url,labels\na/b/c/d,x,tier\n", (2, "NAME=VALUE")),
        (Format.CSV, "key,url,labels\na/b/c/d,x,tier=a;tier=b\n", (2, "labels: tier is given twice")),
    ],
)
def test_a_bad_row_is_a_problem_of_its_own(kind: Format, text: str, problem: tuple[int, str]) -> None:
    (row,) = read_rows("file", io.StringIO(text), kind)
    assert isinstance(row, Problem)
    assert row.line == problem[0]
    assert problem[1] in row.message


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Format.CSV, "a/b/c/d,x\n"),
        (Format.CSV, ""),
        (Format.CSV, '"key"x,url\n'),
        (Format.CSV, "key,url,url\na/b/c/d,x,y\n"),
        (Format.YAML, "routes: ]"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(kind: Format, text: str) -> None:
    with pytest.raises(InvalidFile, match=r"^file:1: "):
        list(read_rows("file", io.StringIO(text), kind))


def test_a_line_separator_in_a_string_of_json_does_not_end_the_row() -> None:
    (row,) = read_rows("file", io.StringIO('{"labels": {"a": "x\u2028y\x85z"}}\n'), Format.JSONL)
    assert isinstance(row, RawEntry)
    assert row.fields == {"labels": {"a": "x\u2028y\x85z"}}


PARTS = {"tenant": "a", "service": "b", "env": "c", "url": "https://x.internal"}


@pytest.mark.parametrize("literal", ["1.10", "3", "-0", "1e3", "true", "false", "null", "[]", "{}", "1" + "0" * 5000])
@pytest.mark.parametrize("field", ["version", "url", "key"])
def test_json_literals_other_than_strings_are_no_text(literal: str, field: str) -> None:
    others = {
        "version": PARTS,
        "url": {"key": "a/b/c/d"},
        "key": {"url": "https://x.internal"},
    }[field]
    start = json.dumps(others)[:-1]
    (problem,) = checked(read_rows("file", io.StringIO(f'{start}, "{field}": {literal}}}\n'), Format.JSONL))
    assert isinstance(problem, Problem)
    assert problem.line == 1
    assert problem.message.startswith(f"{field}: must be ")


@pytest.mark.parametrize("literal", ["1.10", "true", "null", "[]", "1" + "0" * 5000])
def test_nor_are_they_labels(literal: str) -> None:
    row = f'{{"key": "a/b/c/d", "url": "https://x.internal", "labels": {{"release": {literal}}}}}\n'
    (problem,) = checked(read_rows("file", io.StringIO(row), Format.JSONL))
    assert problem == Problem(1, "labels: label release: the value must be text, in quotes")


@pytest.mark.parametrize("kind", [Format.YAML, Format.CSV])
@pytest.mark.parametrize("version", ["1.10", "1_0", "0x10", "010", "1e3", "yes", "true", "2026-01-01", "1.0.0", ".5x"])
def test_yaml_and_csv_keep_what_is_written(kind: Format, version: str) -> None:
    text = {
        Format.YAML: f"routes: [{{tenant: a, service: b, env: c, version: {version}, url: 'https://x.internal'}}]",
        Format.CSV: f"tenant,service,env,version,url\na,b,c,{version},https://x.internal\n",
    }[kind]
    (row,) = read_rows("file", io.StringIO(text), kind)
    assert isinstance(row, RawEntry)
    assert row.fields["version"] == version


def test_a_delimiter_at_the_end_of_each_line_of_csv_means_nothing() -> None:
    text = "key,url,active,\na/b/c/d,https://x.internal,true,\na/b/c/e,https://x.internal\n,,,\n\n"
    first, second = read_rows("file", io.StringIO(text), Format.CSV)
    assert first == RawEntry(2, {"key": "a/b/c/d", "url": "https://x.internal", "active": True})
    assert second == RawEntry(3, {"key": "a/b/c/e", "url": "https://x.internal"})


def test_values_that_are_empty_may_be_more_than_the_columns() -> None:
    (row,) = read_rows("file", io.StringIO("key,url\na/b/c/d,https://x.internal,,,\n"), Format.CSV)
    assert row == RawEntry(2, {"key": "a/b/c/d", "url": "https://x.internal"})
