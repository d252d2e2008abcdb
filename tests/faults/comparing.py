"""The end of a run: Redis, the audit log and Kafka against the history in PostgreSQL, that of lost eras too."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from confluent_kafka import Message

from pointsman.v1 import route_pb2, selection_pb2
from tests.faults.checking import Model, Violation
from tests.faults.faulting import route_key
from tests.faults.history import Era, key_of, text_of_traffic
from tests.faults.rig import AUDIT_DATABASE, TOPIC, Rig, read_clock
from tests.faults.traffic.families import Families
from tests.faults.watchers import state_of_traffic
from tests.support.kafka import read_all

PATIENCE_SECONDS = 90.0
DEAD_LETTERS = f"{TOPIC}.dead-letters"

Change = tuple[str, int]  # epoch and revision
Place = tuple[int, int]  # partition and offset


@dataclass(frozen=True, slots=True)
class Event:
    """A message of the topic that is a change."""

    key: str
    epoch: str
    revision: int


@dataclass(frozen=True, slots=True)
class Expected:
    """The changes that copies must have, and those that they may have: what a restore took back before Kafka had it."""

    must: frozenset[Change]
    may: frozenset[Change]


def expect(eras: Sequence[Era]) -> Expected:
    """Say what copies of the history must and may have of it."""
    must = {(row.epoch, row.revision) for row in eras[-1].rows}
    for era in eras[:-1]:
        must |= {(row.epoch, row.revision) for row in era.rows if row.revision <= era.relayed}
    may = {(row.epoch, row.revision) for era in eras for row in era.rows}
    return Expected(frozenset(must), frozenset(may))


def compare(rig: Rig, model: Model) -> Iterator[Violation]:
    """Hold the copies to the history; ``model`` is that of the last era."""
    expected = expect(rig.eras)
    if not _wait_until_quiet(rig, expected):
        yield Violation(9, f"relay and audit log are still behind after {PATIENCE_SECONDS:g} s", 0.0, "")
    yield from judge_audit(_audited(rig), expected)
    yield from _chain(rig)
    yield from _topic(rig, expected)
    yield from _cache(rig, model)


def _wait_until_quiet(rig: Rig, expected: Expected) -> bool:
    """Wait until the relay and the audit log are where the clock is; say whether they came there."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        with rig.connect() as connection:
            clock = read_clock(connection)
        if clock.revision == clock.relayed and expected.must <= set(_audited(rig)) and _all_set_aside(rig):
            return True
        time.sleep(0.5)
    return False


def _all_set_aside(rig: Rig) -> bool:
    return rig.poison.keys() <= {place for place, _ in _dead_letters(rig)}


def _audited(rig: Rig) -> list[Change]:
    with rig.connect(AUDIT_DATABASE) as connection:
        return connection.execute("SELECT epoch, revision FROM audit_log").fetchall()  # type: ignore[return-value]


def judge_audit(audited: Sequence[Change], expected: Expected) -> Iterator[Violation]:
    """Promise 10: one row for each change, and for nothing else."""
    found = set(audited)
    if len(found) < len(audited):
        yield Violation(10, "the audit log has a change twice", 0.0, "")
    if expected.must - found:
        yield Violation(10, "changes that are not in the audit log", 0.0, _some(expected.must - found))
    if found - expected.may:
        yield Violation(10, "rows of the audit log that are no changes", 0.0, _some(found - expected.may))


def _chain(rig: Rig) -> Iterator[Violation]:
    done = rig.command("audit", "verify")
    print(done.stdout.strip())
    if done.returncode:
        yield Violation(10, "the chain of the audit log does not verify", 0.0, done.stdout + done.stderr)


def _topic(rig: Rig, expected: Expected) -> Iterator[Violation]:
    events, strange = [], []
    for message in read_all(rig.kafka.bootstrap_servers, TOPIC):
        place = _place(message)
        if place in rig.poison:
            continue
        change = route_pb2.RouteChange.FromString(message.value() or b"")
        if (message.key() or b"").decode() != key_of(change.key).rstrip("/"):
            strange.append(place)
        events.append(Event(key_of(change.key), change.epoch, change.revision))
    if strange:
        yield Violation(9, "messages under another key than that of their route", 0.0, str(strange[:10]))
    yield from judge_topic(events, expected)
    yield from judge_dead_letters(_dead_letters(rig), rig.poison)


def judge_topic(events: Iterable[Event], expected: Expected) -> Iterator[Violation]:
    """Promise 9: every change at least once; by key and epoch, first appearances in the order of revisions."""
    first: dict[tuple[str, str], list[int]] = defaultdict(list)
    seen: set[Change] = set()
    for event in events:
        change = (event.epoch, event.revision)
        if change not in seen:
            seen.add(change)
            first[event.key, event.epoch].append(event.revision)
    if expected.must - seen:
        yield Violation(9, "changes that are not in Kafka", 0.0, _some(expected.must - seen))
    if seen - expected.may:
        yield Violation(9, "events that are no changes", 0.0, _some(seen - expected.may))
    for key, revisions in first.items():
        if any(after < before for before, after in pairwise(revisions)):
            yield Violation(9, "events of a key out of order", 0.0, f"{key}: {revisions}")


def judge_dead_letters(letters: Iterable[tuple[Place, bytes]], poison: dict[Place, bytes]) -> Iterator[Violation]:
    """Promise 9: what is no change is set aside, as it was, and nothing else is."""
    found = set(letters)
    for place, payload in poison.items():
        if (place, payload) not in found:
            yield Violation(9, "a poison message that is not among the dead letters", 0.0, f"{place}: {payload[:20]!r}")
    if others := {place for place, _ in found} - poison.keys():
        yield Violation(9, "a dead letter that was no poison", 0.0, str(sorted(others)[:10]))


def _dead_letters(rig: Rig) -> list[tuple[Place, bytes]]:
    messages = read_all(rig.kafka.bootstrap_servers, DEAD_LETTERS)
    return [(_origin(message), message.value() or b"") for message in messages]


def _origin(message: Message) -> Place:
    """Say where a dead letter lay, by its headers."""
    headers = dict(message.headers() or [])
    return int(headers["partition"] or -1), int(headers["offset"] or -1)


def _place(message: Message) -> Place:
    partition, offset = message.partition(), message.offset()
    return -1 if partition is None else partition, -1 if offset is None else offset


def _cache(rig: Rig, model: Model) -> Iterator[Violation]:
    with rig.redis_clients() as clients:
        # What is left of lost eras has other names, and expires.
        names = [(client, name) for client in clients for name in filter(route_key, rig.redis_names(client))]
        entries = [(route_key(name), client.hgetall(name)) for client, name in names]
    families = Families(model.rows)
    for name, fields in entries:
        if b"r" in fields and name.endswith("/"):
            yield from judge_family(families, len(model.rows), name[:-1], int(fields[b"r"]), fields[b"v"])
        elif b"r" in fields:
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


def judge_family(families: Families, clock: int, name: str, as_of: int, value: bytes) -> Iterator[Violation]:
    """The same of a family: its traffic, and the active routes that the traffic names, or all without traffic."""
    family = selection_pb2.Family.FromString(value)
    held = {route.key.version: (route.revision, route.url) for route in family.routes}
    traffic = state_of_traffic(family.traffic) if family.HasField("traffic") else None
    kept = families.at(name, as_of)
    named = (
        {*(each["version"] for each in kept.traffic["targets"]), *kept.traffic["fallbacks"]} if kept.traffic else None
    )
    expected = {
        version: (kept.routes[version]["revision"], kept.routes[version]["url"])
        for version in kept.active
        if named is None or version in named
    }
    division = (kept.traffic["revision"], "traffic", text_of_traffic(kept.traffic)) if kept.traffic else None
    if (held, traffic) != (expected, division) or as_of > clock:
        text = f"{name} as of {as_of}: {held}, {traffic} instead of {expected}, {division}"
        yield Violation(5, "Redis is not the store", 0.0, text)
    elif families.last_of(name, as_of) is not families.last_of(name, clock) or families.torn(name, as_of):
        yield Violation(5, "Redis is still behind after everything has settled", 0.0, f"{name} as of {as_of}: {held}")


def _some(changes: Iterable[Change]) -> str:
    return str(sorted(changes)[:10])
