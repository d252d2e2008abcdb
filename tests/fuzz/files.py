"""What ``pointsman apply`` and ``pointsman import`` make of a file, and what a person may be told about it."""

import json
import re
from pathlib import Path

import protovalidate

from pointsman.cli.commands.apply import _read
from pointsman.cli.files.entries import Entry, checked
from pointsman.cli.files.formats import Format, read_rows
from pointsman.cli.files.problems import InvalidFile, Problem
from pointsman.cli.files.source import open_text
from pointsman.cli.files.traffic_entries import TrafficEntry
from pointsman.cli.output.errors import _file_document, _file_lines
from pointsman.cli.output.terminal import printable
from pointsman.rpc import requests, traffic_requests
from pointsman.selection import POINTS
from pointsman_server.domain.routes import check_url

# What Python would say; a parser's own words follow what we say of the file.
LEAK = re.compile(r"Traceback|\w+Error\b|\.py\b| object at 0x|recursion|codec")
VALIDATOR = protovalidate.Validator()


def import_file(path: Path, kind: Format) -> list[Entry]:
    """Read a file as ``import`` does, judge all it finds, and give the good rows."""
    try:
        with open_text(str(path)) as text:
            rows = list(checked(read_rows(str(path), text, kind)))
    except InvalidFile as error:
        _judge_refusal(error)
        return []
    for row in rows:
        _judge_problem(row) if isinstance(row, Problem) else judge_entry(row)
    return [row for row in rows if isinstance(row, Entry)]


def apply_file(path: Path) -> None:
    """Read a file as ``apply`` does, and judge all it finds."""
    try:
        desired = _read(str(path))
    except InvalidFile as error:
        _judge_refusal(error)
        return
    for entry in desired.routes:
        judge_entry(entry)
    for traffic in desired.traffic or ():
        judge_traffic(traffic)


def judge_entry(entry: Entry) -> None:
    """Raise AssertionError unless the server takes the entry too."""
    request = requests.create(entry.key, entry.url, entry.labels, entry.active is not False, "", "")
    violations = VALIDATOR.collect_violations(request)
    assert not violations, f"passes here, but not there: {violations[0].proto}"
    check_url(entry.url)


def judge_traffic(entry: TrafficEntry) -> None:
    """Raise AssertionError unless the server takes the entry too."""
    request = traffic_requests.set_traffic(entry.key, entry.weights, entry.fallbacks, 0, "", "")
    violations = VALIDATOR.collect_violations(request)
    assert not violations, f"passes here, but not there: {violations[0].proto}"
    assert sum(entry.weights.values()) == POINTS


def _judge_refusal(error: InvalidFile) -> None:
    assert error.problems, "refused without a reason"
    json.dumps(_file_document(error), ensure_ascii=False).encode()
    for line in _file_lines(error):
        _judge_text(line.partition(error.name)[2] or line)
    for problem in error.problems:
        _judge_problem(problem)


def _judge_problem(problem: Problem) -> None:
    assert problem.line >= 0
    _judge_text(problem.message)


def _judge_text(text: str) -> None:
    assert text.strip(), "says nothing"
    # Names and parts of keys are repeated, quoted; these words come from us or from Python.
    quoted = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "", text)
    assert not LEAK.search(quoted.partition(": unknown field")[0] if "unknown field" in quoted else quoted), text
    json.dumps(text, ensure_ascii=False).encode()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", printable(text)), "steers the terminal"
