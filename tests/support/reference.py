"""The tables of docs/reference that are generated from the code: settings, errors and metrics.

``python -m tests.support.reference --write`` (``make docs``) fills them in, ``--check`` (``make lint``) compares. Each
stands in the page of its name, between ``<!-- name -->`` and ``<!-- /name -->``.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from inspect import getdoc
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from pointsman_server.config import describe
from pointsman_server.domain.errors import PointsmanError, RetryLater
from pointsman_server.rpc import statuses
from pointsman_server.telemetry.metrics import Metrics

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"

# What a caller does about each reason. An error without a line here cannot be documented, and fails the build.
WHAT_TO_DO = {
    "INVALID_FIELD": "Correct the fields that `BadRequest` names.",
    "REQUEST_ID_REUSED": "Choose a new `request_id`.",
    "UNAUTHENTICATED": "Get a credential that is valid: `problem` says what is wrong with this one.",
    "FORBIDDEN": "Ask the operator for the `permission`.",
    "ROUTE_NOT_FOUND": "Create the route, or correct the key.",
    "ROUTE_INACTIVE": "Activate the route.",
    "ROUTE_EXISTS": "Update the route instead; in an import, let existing routes be updated or skipped.",
    "REVISION_MISMATCH": "Read the route again, then decide.",
    "OVERLOADED": "Wait for `RetryInfo`, then try again.",
    "RESPONSE_TOO_LARGE": "Resolve the keys that have this status in another call.",
    "ACCESS_UNAVAILABLE": "Try again: another server answers.",
    "RATE_LIMITED": "Wait for `RetryInfo`, then try again; ask for less, or for a higher quota.",
    "STORE_UNAVAILABLE": "Try again; a mutation with the same `request_id`.",
    "SHUTTING_DOWN": "Try again: another server answers.",
    "REVISION_COMPACTED": "Watch again without `resume`; or ask for a later revision.",
    "EPOCH_CHANGED": "Watch again without `resume`.",
    "REVISION_NOT_REACHED": "Try again; is the `min_revision` from this database?",
    "AMBIGUOUS_VERSION": "Set traffic, or deactivate all versions but one.",
    "NO_ACTIVE_VERSION": "Activate a version that the traffic names.",
    "TRAFFIC_NOT_FOUND": "Set traffic first, or correct the tenant, service and env.",
    "TARGET_NOT_FOUND": "Create the versions first, or correct them.",
    "ROUTE_IN_TRAFFIC": "Take the version out of the traffic first; in one Commit if you like.",
    "ROUTE_IN_USE": "Ask the readers to move, or move them by the traffic, and try again.",
    "USAGE_UNAVAILABLE": "Wait for `RetryInfo`, then try again.",
    "USAGE_NOT_COUNTED": "Leave `if_unused_for` away, or have the operator count reads for longer.",
    "CHANGED_SINCE": "Revert what was done since first, or set `force` and lose it.",
    "REVISION_IN_FUTURE": "Ask for an earlier revision or time.",
    "INTERNAL": "Give the operator the `x-request-id`.",
}

# Where an error says anew each time how long to wait.
WAITS = {"RATE_LIMITED": "until the call is within it"}


class OutOfDate(Exception):
    """A table cannot be found, or is not what the code says; the text says which, and what to do."""


def errors_table() -> str:
    """Render the errors of ``statuses.CODES``, one row per reason, with what a caller does about each."""
    rows = ["| status | reason | when | `RetryInfo` | what to do |", "|---|---|---|---|---|"]
    rows += [f"| {' | '.join(cells)} |" for cells in _errors()]
    return "\n".join(rows) + "\n"


def _errors() -> Iterator[tuple[str, ...]]:
    kinds: dict[str, list[type[PointsmanError]]] = {}
    for kind in statuses.CODES:
        kinds.setdefault(kind.reason, []).append(kind)
    for reason, same in kinds.items():
        (code,) = {statuses.CODES[kind].name for kind in same}
        when = " ".join(_first_line(kind) for kind in same)
        retry = WAITS.get(reason, f"{same[0].retry_delay:g} s") if issubclass(same[0], RetryLater) else ""
        yield f"`{code}`", f"`{reason}`", when, retry, WHAT_TO_DO[reason]
    yield "`INTERNAL`", "`INTERNAL`", "A bug in the server; its log has the cause.", "", WHAT_TO_DO["INTERNAL"]


def _first_line(kind: type[PointsmanError]) -> str:
    return (getdoc(kind) or "").splitlines()[0].replace("``", "`")


def metrics_table() -> str:
    """Render every metric of ``telemetry.metrics``, by the name that Prometheus sees."""
    rows = ["| metric | type | labels | what it is |", "|---|---|---|---|"]
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = " ".join(f"`{label}`" for label in metric._labelnames)
            rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows) + "\n"


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": describe.markdown,
    "errors": errors_table,
    "metrics": metrics_table,
}


def filled(name: str, page: str) -> str:
    """Return ``page`` with its table as the code says. Raises OutOfDate when a marker is missing."""
    return page.replace(_table(name, page), f"<!-- {name} -->\n{TABLES[name]()}<!-- /{name} -->")


def check(name: str, page: str) -> None:
    """Raise OutOfDate if the table of ``page`` is not what the code says."""
    if page != filled(name, page):
        raise OutOfDate(f"docs/reference/{name}.md is out of date: run `make docs`")


def _table(name: str, page: str) -> str:
    """Find the table, its markers included."""
    found: list[str] = re.findall(rf"<!-- {name} -->.*?<!-- /{name} -->", page, re.DOTALL)
    if len(found) != 1:
        raise OutOfDate(f"docs/reference/{name}.md must have one part between <!-- {name} --> and <!-- /{name} -->")
    return found[0]


def main(arguments: list[str] | None = None, directory: Path = REFERENCE) -> int:
    """Fill in or compare; 1 when a page differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.reference", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="fill in the tables")
    mode.add_argument("--check", action="store_true", help="fail when a table is not what the code says")
    options = parser.parse_args(arguments)
    problems = [problem for name in TABLES if (problem := _done(name, directory / f"{name}.md", write=options.write))]
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


def _done(name: str, path: Path, *, write: bool) -> str:
    """Write or check one page; returns what is wrong with it."""
    page = path.read_text()
    try:
        if write:
            path.write_text(filled(name, page))
        else:
            check(name, page)
    except OutOfDate as problem:
        return str(problem)
    return ""


if __name__ == "__main__":
    sys.exit(main())
