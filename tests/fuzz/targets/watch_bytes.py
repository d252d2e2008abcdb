"""Streams of Watch as bytes, as a near-cache takes them: applied as a whole, or refused, and never half of it.

An input is events, each after its length in two bytes.
"""

from collections.abc import Iterator, Sequence
from random import Random

import atheris
from google.protobuf.message import DecodeError

from pointsman.near_cache.table.entries import Behind, CachedResolution, InactiveRoute, Known, entry_of
from pointsman.near_cache.table.selections import CachedSelection, Entry, FamilyEntry
from pointsman.near_cache.table.table import Table
from pointsman.near_cache.table.view import Filter, View
from pointsman.near_cache.watch.protocol import Apply, Confirm, ProtocolViolation, Replace, WatchProtocol
from pointsman.rules import KEY_PART
from pointsman.v1.watch_pb2 import WatchResponse
from tests.fuzz.hostile import fill
from tests.support import watch_events
from tests.support.watch_events import Division

MODULES = ("pointsman.near_cache", "pointsman.selection")
TENANT, FAMILY = "team-a", "team-a/payments/prod"
V1, V2 = f"{FAMILY}/v1", f"{FAMILY}/v2"
HALVES = Division((("v1", 5_000), ("v2", 5_000)), ("v3",))
_OTHER = Division((("v2", 10_000), ("v1", 0)))
_SNAPSHOT = (
    watch_events.snapshot(5, [watch_events.route(V1, 3), watch_events.route(V2, 4, active=False)]),
    watch_events.snapshot(5, [], traffic=[watch_events.traffic(FAMILY, 5, HALVES)]),
    watch_events.end_of_snapshot(5, 2, traffic_count=1),
    watch_events.checkpoint(5),
)


# What protobuf's own conversions refuse.
_NO_TIME = watch_events.checkpoint(5)
_NO_TIME.checkpoint.server_time.nanos = -(2**31)
_NO_TIME.checkpoint.age.nanos = 2**31 - 1


def _joined(*events: WatchResponse) -> bytes:
    encoded = [event.SerializeToString() for event in events]
    return b"".join(len(each).to_bytes(2, "big") + each for each in encoded)


SEEDS = (
    _joined(watch_events.opened(), *_SNAPSHOT),
    _joined(
        watch_events.opened(),
        *_SNAPSHOT,
        watch_events.changes(7, [watch_events.traffic_change(FAMILY, 6, _OTHER, 7)], partial=True),
        watch_events.changes(7, [watch_events.change(V2, 7, watch_events.route(V2, 7), 7)]),
        watch_events.changes(8, [watch_events.traffic_change(FAMILY, 8, None)]),
        watch_events.changes(9, [watch_events.change(V1, 9, None)]),
        watch_events.checkpoint(9),
    ),
    _joined(watch_events.end_of_snapshot(5, 0), watch_events.checkpoint(5)),
    _joined(watch_events.opened(), *_SNAPSHOT, watch_events.reset(), *_SNAPSHOT[:2]),
    _joined(*_SNAPSHOT[:1], watch_events.end_of_snapshot(5, 2)),
    _joined(watch_events.end_of_snapshot(5, 0), _NO_TIME),
    b"",
    b"\x00",
)


class Cache:
    """What a near-cache makes of a stream."""

    def __init__(self) -> None:
        self.view = View(Filter(TENANT))
        self.routes: dict[str, Entry] = {}
        self.table = Table([self.view], 30.0, self.use, clock=lambda: 1000.0)
        self.protocol: WatchProtocol[tuple[str, Known]] = WatchProtocol(
            lambda route: entry_of(self.view, route), needs_traffic=True
        )
        self.protocol.opened(0.0)

    def use(self, routes: dict[str, Entry]) -> None:
        self.routes = routes

    def take(self, event: WatchResponse) -> None:
        """Do what the event asks for. Raises ProtocolViolation."""
        step = self.protocol.received(event, 0.0)
        if step is not None and self.view.has_traffic and not self.protocol.has_traffic:
            self.table.drop_traffic(self.view)
        if isinstance(step, Replace):
            self.table.replace(self.view, step.as_of, step.routes, step.traffic)
        elif isinstance(step, Apply):
            self.table.apply(self.view, step.as_of, step.changes)
        elif isinstance(step, Confirm):
            self.table.confirm(self.view, step.as_of, step.age)
        assert step is None or self.view.has_traffic == self.protocol.has_traffic


def events_of(data: bytes) -> Iterator[WatchResponse]:
    """Yield the events of an input, as far as they are messages."""
    while len(data) >= 2:
        length = int.from_bytes(data[:2], "big")
        try:
            yield WatchResponse.FromString(data[2 : 2 + length])
        except DecodeError:
            return
        data = data[2 + length :]


def check(data: bytes) -> None:
    """Take the events, and select after each of them."""
    cache = Cache()
    for event in events_of(data):
        if not _has_keys_of_a_server(event):
            return
        before = dict(cache.routes)
        try:
            cache.take(event)
        except ProtocolViolation:
            assert cache.routes == before, "a refused event has changed the table"
            return
        _check_table(cache)
        _check_select(cache)


def _check_table(cache: Cache) -> None:
    known = [entry for entry in cache.routes.values() if isinstance(entry, CachedResolution | InactiveRoute)]
    assert cache.view.size == len(known) == len(cache.table.keys())
    assert not any(isinstance(entry, Behind) for entry in cache.routes.values())


def _check_select(cache: Cache) -> None:
    entry = cache.table.family(cache.view, FAMILY) if cache.view.loaded else None
    kept = entry if entry is not None and entry.choose(b"user-1") else None
    assert cache.routes.get(FAMILY) is kept, "the dict has another entry, or one that chooses nothing"
    if entry is None:
        return
    for sticky_key in (b"user-1", b"user-2", b""):
        found = entry.choose(sticky_key)
        if found is not None:
            _check_choice(cache, entry, found)


def _check_choice(cache: Cache, entry: FamilyEntry, found: CachedSelection) -> None:
    """A choice is an active route of the table, and says which inactive versions were passed over."""
    route = cache.routes[f"{FAMILY}/{found.choice.version}"]
    assert isinstance(route, CachedResolution), "an inactive route was chosen"
    assert (found.url, found.revision, found.route) == (route.url, route.revision, route.route)
    assert found.traffic_revision == entry.traffic_revision
    for version in found.choice.inactive_versions:
        assert not isinstance(cache.routes.get(f"{FAMILY}/{version}"), CachedResolution)


def _has_keys_of_a_server(event: WatchResponse) -> bool:
    """Return whether every key is one that a server accepts; each entry has the key of its change."""
    routes = [(*_family(each.key), each.key.version) for each in event.snapshot.routes]
    names: list[Sequence[str]] = [*routes, *map(_family, event.snapshot.traffic)]
    for change in event.changes.changes:
        names.append((*_family(change.key), *filter(None, (change.key.version,))))
        of_traffic = change.HasField("traffic_after")
        if bool(change.key.version) == of_traffic and (of_traffic or change.HasField("after")):
            return False
        if change.HasField("after") and change.after.key != change.key:
            return False
        if of_traffic and _family(change.traffic_after) != _family(change.key):
            return False
    return (
        all(part and KEY_PART.fullmatch(part) for name in names for part in name)
        and all(name[0] == TENANT for name in names)
        and len(routes) == len(set(routes))
    )


def _family(message: object) -> tuple[str, str, str]:
    return message.tenant, message.service, message.env  # type: ignore[attr-defined]


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Change fields of events, or their order, or bytes."""
    random = Random(seed)
    events = list(events_of(data))
    if not events or random.random() < 0.2:
        return bytes(atheris.Mutate(data, size))
    place = random.randrange(len(events))
    what = random.randrange(5)
    if what == 0:
        del events[place]
    elif what == 1:
        events.insert(random.randrange(len(events) + 1), events[place])
    elif what == 2:
        _change_traffic(random, events[place])
    else:
        fill(random, events[place], share=0.1)
    mutated = _joined(*(event for event in events if event.ByteSize() < 2**16))
    return mutated if len(mutated) <= size else bytes(atheris.Mutate(data, size))


def _change_traffic(random: Random, event: WatchResponse) -> None:
    """Move points between slices, or make something of them that divides nothing."""
    traffic = [*event.snapshot.traffic, *(change.traffic_after for change in event.changes.changes)]
    for each in traffic:
        if each.slices:
            cut = random.choice([0, 1, 2_500, 9_999, 10_000, -1])
            del each.slices[:]
            for size in (10_000 - cut, cut) if random.random() < 0.8 else (cut,):
                each.slices.add(version=random.choice(["v1", "v2", "v3", "v4"]), size=size)
