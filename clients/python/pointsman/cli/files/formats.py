"""The formats that ``import`` reads: YAML, JSON lines and CSV, all to the same raw entries with their lines."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import PurePath
from typing import TextIO

from pointsman.cli.files.csv_table import read_csv
from pointsman.cli.files.entries import RawEntry
from pointsman.cli.files.json_lines import read_json_lines
from pointsman.cli.files.problems import InvalidFile, Problem
from pointsman.cli.files.route_file import read_route_file


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
    return _text_of(name, read_csv(name, text) if kind is Format.CSV else read_json_lines(text))


def _text_of(name: str, rows: Iterator[RawEntry | Problem]) -> Iterator[RawEntry | Problem]:
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
    route_file = read_route_file(text)
    entries = route_file.entries
    if route_file.traffic is not None:
        raise InvalidFile(name, [Problem(0, "traffic: only pointsman apply takes it; import takes routes alone")])
    if len(entries) == 1 and isinstance(entries[0], Problem):
        raise InvalidFile(name, [entries[0]])
    return entries
