"""The formats that ``import`` reads: YAML, JSON lines and CSV, all to the same raw entries with their lines."""

import csv
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import PurePath
from typing import TextIO

from pointsman.cli.files.entries import RawEntry
from pointsman.cli.files.problems import InvalidFile, Problem
from pointsman.cli.files.route_file import read_route_file

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Format(StrEnum):
    """The format of a file of routes."""

    YAML = "yaml"
    JSONL = "jsonl"
    CSV = "csv"


_SUFFIXES = {
    ".yaml": Format.YAML,
    ".yml": Format.YAML,
    ".json": Format.YAML,  # every JSON document is a YAML document
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
}


def format_of(name: str) -> Format | None:
    """Return the format that the suffix of a file name tells, or None."""
    return _SUFFIXES.get(PurePath(name).suffix.lower())


def read_rows(name: str, text: TextIO, kind: Format) -> Iterable[RawEntry | Problem]:
    """Read every row, a bad one as a Problem; of what has lines, one after the other.

    Raises InvalidFile when the file as a whole makes no sense, or no more from some line on.
    """
    if kind is Format.YAML:
        return _yaml_rows(name, _read(name, text))
    return _told(name, _csv_rows(name, text) if kind is Format.CSV else _json_rows(text))


def _told(name: str, rows: Iterator[RawEntry | Problem]) -> Iterator[RawEntry | Problem]:
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise InvalidFile(name, [Problem(0, "must be UTF-8 text")]) from error


def _read(name: str, text: TextIO) -> str:
    try:
        return text.read()
    except UnicodeDecodeError as error:
        raise InvalidFile(name, [Problem(0, "must be UTF-8 text")]) from error


def _yaml_rows(name: str, text: str) -> Iterable[RawEntry | Problem]:
    entries = read_route_file(text).entries
    if len(entries) == 1 and isinstance(entries[0], Problem):
        raise InvalidFile(name, [entries[0]])
    return entries


def _json_rows(text: TextIO) -> Iterator[RawEntry | Problem]:
    # Opened with newline="\n": a string of JSON may hold what Unicode calls the end of a line.
    for number, line in enumerate(text, start=1):
        if line.strip():
            yield _json_row(number, line.removesuffix("\n"))


def _json_row(number: int, line: str) -> RawEntry | Problem:
    try:
        value = json.loads(line)
        if "\\u" in line:
            # Escapes can make halves of characters, which nothing can send or write.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        return Problem(number, "no valid JSON: nested too deeply")
    except UnicodeEncodeError:
        return Problem(number, "no valid JSON: a \\u escape stands for half a character")
    except ValueError as error:
        return Problem(number, f"no valid JSON: {error}")
    return RawEntry(number, value) if isinstance(value, dict) else Problem(number, "must be a JSON object")


def _csv_rows(name: str, text: TextIO) -> Iterator[RawEntry | Problem]:
    reader = csv.DictReader(text, strict=True, restkey="", restval="")
    try:
        header = reader.fieldnames or []
    except csv.Error as error:
        raise InvalidFile(name, [Problem(1, f"no valid CSV: {error}")]) from error
    if "url" not in header or not {"key", "version"} & set(header):
        columns = "key (or tenant, service, env, version), url, and if wanted active and labels"
        raise InvalidFile(name, [Problem(1, f"the first line must name the columns: {columns}")])
    return _csv_entries(name, reader)


def _csv_entries(name: str, reader: "csv.DictReader[str]") -> Iterator[RawEntry | Problem]:
    try:
        for row in reader:
            yield _csv_entry(reader.line_num, row)
    except csv.Error as error:
        # Its own reader has read the bad line too.
        raise InvalidFile(name, [Problem(reader.reader.line_num, f"no valid CSV: {error}")]) from error


def _csv_entry(line: int, row: dict[str, str]) -> RawEntry | Problem:
    if "" in row:
        return Problem(line, "more values than columns: quote a value that holds a comma")
    fields: dict[str, object] = {name: value for name, value in row.items() if value != ""}
    if "active" in fields:
        fields["active"] = _BOOLEANS.get(row["active"].strip().lower(), row["active"])
    if "labels" in fields:
        pairs = [pair.partition("=") for pair in row["labels"].split(";") if pair.strip()]
        if not all(equals for _, equals, _ in pairs):
            return Problem(line, "labels: must be NAME=VALUE;NAME=VALUE")
        fields["labels"] = {label.strip(): value for label, _, value in pairs}
    return RawEntry(line, fields)
