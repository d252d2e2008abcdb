"""Read CSV (RFC 4180) whose first line names the columns."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TextIO

from pointsman.cli.files.entries import RawEntry
from pointsman.cli.files.problems import InvalidFile, Problem

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_csv(name: str, text: TextIO) -> Iterator[RawEntry | Problem]:
    """Read each row that has a value. Raises InvalidFile for a bad first line, and where the file is no more CSV."""
    reader = csv.reader(text, strict=True)
    try:
        columns = _columns(name, next(reader, []))
        for values in reader:
            if any(values):
                yield _row(reader.line_num, columns, values)
    except csv.Error as error:
        raise InvalidFile(name, [Problem(reader.line_num, f"no valid CSV: {error}")]) from error


def _columns(name: str, columns: Sequence[str]) -> Sequence[str]:
    if "url" not in columns or not {"key", "version"} & set(columns):
        known = "key (or tenant, service, env, version), url, and if wanted active and labels"
        raise InvalidFile(name, [Problem(1, f"the first line must name the columns, separated by commas: {known}")])
    twice = [column for column, count in Counter(columns).items() if column and count > 1]
    if twice:
        raise InvalidFile(name, [Problem(1, f"the column {twice[0]} is given twice")])
    return columns


def _row(line: int, columns: Sequence[str], values: Sequence[str]) -> RawEntry | Problem:
    if any(values[len(columns) :]):
        return Problem(line, "more values than columns: quote a value that holds a comma")
    texts = {}
    for number, (column, value) in enumerate(zip(columns, values, strict=False), start=1):
        if value and not column:
            return Problem(line, f"column {number} has no name in the first line, but a value here")
        if value:
            texts[column] = value
    fields: dict[str, object] = dict(texts)
    if "active" in texts:
        fields["active"] = _BOOLEANS.get(texts["active"].strip().lower(), texts["active"])
    if "labels" in texts:
        labels = _labels(texts["labels"])
        if isinstance(labels, str):
            return Problem(line, f"labels: {labels}")
        fields["labels"] = labels
    return RawEntry(line, fields)


def _labels(text: str) -> dict[str, str] | str:
    """Return the labels of ``a=1;b=2``, or what is wrong with them."""
    labels: dict[str, str] = {}
    for pair in filter(str.strip, text.split(";")):
        name, equals, value = pair.partition("=")
        if not equals:
            return "must be NAME=VALUE;NAME=VALUE"
        if name.strip() in labels:
            return f"{name.strip()} is given twice"
        labels[name.strip()] = value
    return labels
