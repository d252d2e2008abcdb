"""The end of a run: Redis, the audit log and Kafka against the history in PostgreSQL."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from pointsman.v1 import route_pb2
from tests.faults.checking import Model, Violation
from tests.faults.history import Row
from tests.faults.injections import route_key
from tests.faults.rig import TOPIC, Rig
from tests.support.kafka import read_all

PATIENCE_SECONDS = 90.0
KEY = "tenant || '/' || service || '/' || env || '/' || version"
CHANGES = f"""
    SELECT revision, {KEY}, kind, request_id, coalesce(after->>'url', ''), coalesce((after->>'active')::boolean, false)
    FROM route_changes ORDER BY revision
"""  # noqa: S608 - put together from constants of ours


def rows_of(rig: Rig) -> list[Row]:
    """Read the whole history from PostgreSQL."""
    with rig.connect() as connection:
        return [Row(*row) for row in connection.execute(CHANGES)]  # type: ignore[arg-type]


def wait_until_quiet(rig: Rig) -> bool:
    """Wait until the relay and the audit log are where the clock is; say whether they came there."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    with rig.connect() as connection:
        while time.monotonic() < give_up:
            query = "SELECT clock.revision, relay.revision, (SELECT count(*) FROM audit_log) FROM clock, relay "
            clock, relayed, audited = connection.execute(query).fetchone() or (0, 0, 0)
            if clock == relayed == audited:
                return True
            time.sleep(0.2)
    return False


def compare(rig: Rig, model: Model) -> Iterator[Violation]:
    """Hold the three copies to the history."""
    if not wait_until_quiet(rig):
        yield Violation(9, f"relay and audit log are still behind after {PATIENCE_SECONDS:g} s", 0.0, "")
    yield from _audit(rig, model.rows)
    yield from _topic(rig, model.rows)
    yield from _cache(rig, model)


def _audit(rig: Rig, rows: Sequence[Row]) -> Iterator[Violation]:
    with rig.connect() as connection:
        audited = [row[0] for row in connection.execute("SELECT revision FROM audit_log ORDER BY revision")]
    if audited != [row.revision for row in rows]:
        yield Violation(10, "the audit log is not the history", 0.0, f"{len(audited)} rows for {len(rows)} changes")


def _topic(rig: Rig, rows: Sequence[Row]) -> Iterator[Violation]:
    events = (route_pb2.RouteChange.FromString(each.value()) for each in read_all(rig.kafka.bootstrap_servers, TOPIC))
    yield from judge_topic([(_name(event.key), event.revision) for event in events], rows)


def judge_topic(events: Iterable[tuple[str, int]], rows: Sequence[Row]) -> Iterator[Violation]:
    """Promise 9: every change at least once; by key, first appearances in the order of revisions."""
    first: dict[str, list[int]] = defaultdict(list)
    seen: set[int] = set()
    for key, revision in events:
        if revision not in seen:
            seen.add(revision)
            first[key].append(revision)
    missing = {row.revision for row in rows} - seen
    if missing:
        yield Violation(9, "changes that are not in Kafka", 0.0, str(sorted(missing)[:10]))
    if seen - {row.revision for row in rows}:
        yield Violation(9, "events that are no changes", 0.0, "")
    for key, revisions in first.items():
        if revisions != sorted(revisions):
            yield Violation(9, "events of a key out of order", 0.0, f"{key}: {revisions}")


def _cache(rig: Rig, model: Model) -> Iterator[Violation]:
    with rig.redis_client() as client:
        names = list(filter(route_key, client.scan_iter("pointsman:*", count=1000)))
        entries = [(route_key(name), client.hgetall(name)) for name in names]
    for name, fields in entries:
        if b"r" in fields:
            yield from judge_entry(model, name, int(fields[b"r"]), fields[b"v"])


def judge_entry(model: Model, key: str, as_of: int, value: bytes) -> Iterator[Violation]:
    """Promises 5 and 6: what Redis holds is what the store had as of then, and nothing newer than the clock."""
    route = route_pb2.Route.FromString(value) if value else None
    row = model.at(key, as_of)
    held = (route.revision, route.url, route.active) if route else None
    kept = (row.revision, row.url, row.active) if row and row.state != "absent" else None
    if held != kept or as_of > len(model.rows):
        yield Violation(5, "Redis is not the store", 0.0, f"{key} as of {as_of}: {held} instead of {kept}")
    elif row != model.at(key, len(model.rows)):
        yield Violation(5, "Redis is still behind after everything has settled", 0.0, f"{key} as of {as_of}: {held}")


def _name(key: route_pb2.RouteKey) -> str:
    return f"{key.tenant}/{key.service}/{key.env}/{key.version}"
