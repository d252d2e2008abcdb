"""Families made ready to select from, encoded as they are sent."""

from collections.abc import Callable
from typing import NamedTuple

from pointsman.selection import Choice
from pointsman_server.domain.codec import key_from_bytes, key_to_bytes, route_to_message
from pointsman_server.domain.routes import Family, Route
from pointsman_server.reads.cache_entry import CacheHit, snapshot_of
from pointsman_server.reads.selection import chooser
from pointsman_server.rpc.fastpath import wire
from pointsman_server.rpc.selections import OUTCOMES, choice_message
from pointsman_server.runtime.bounded_dict import put_bounded

# Bounds of what is kept: families, and bytes of their records. In memory they take a few times as much.
MOST_FAMILIES = 10_000
MOST_BYTES = 16 << 20
# Choices of one family that passed inactive versions.
MOST_PASSED = 100


class Chosen(NamedTuple):
    """A choice, encoded.

    ``route`` and ``choice`` are fields 1 and 3 of a SelectResponse; in a result of a BatchSelect, whose field 1 is the
    route too, ``result_choice`` is field 4. ``key`` is that of the route, ``outcome`` the place in ``OUTCOMES``.
    """

    route: bytes
    choice: bytes
    result_choice: bytes
    key: bytes
    outcome: int


class _Encoder:
    """Encodes the choices of a family."""

    __slots__ = ("_passed", "_routes", "_traffic_revision")

    def __init__(self, family: Family) -> None:
        self._traffic_revision = family.traffic.revision if family.traffic else 0
        self._routes = {route.key.version: _encoded(route) for route in family.routes}
        # Those that passed inactive versions: the others are encoded once anyway.
        self._passed: dict[Choice, Chosen] = {}

    def encode(self, choice: Choice) -> Chosen:
        if known := self._passed.get(choice):
            return known
        key, route = self._routes[choice.version]
        message = choice_message(choice, self._traffic_revision).SerializeToString()
        outcome = OUTCOMES.index(choice.rule.name.lower())
        chosen = Chosen(route, wire.field(3, message), wire.field(4, message), key, outcome)
        if choice.inactive_versions:
            put_bounded(self._passed, choice, chosen, MOST_PASSED)
        return chosen


class ReadyFamily:
    """What the local cache holds as ``record``, ready to select from.

    ``choose`` takes a sticky key in UTF-8, and returns None if nothing can be chosen.
    """

    __slots__ = ("choose", "record")

    def __init__(self, family: Family, record: bytes) -> None:
        self.record = record
        self.choose: Callable[[bytes], Chosen | None] = chooser(family, _Encoder(family).encode)


def _encoded(route: Route) -> tuple[bytes, bytes]:
    return key_to_bytes(route.key), wire.field(1, route_to_message(route).SerializeToString())


class ReadyFamilies:
    """The families that were selected from lately, each for as long as the local cache holds the same record."""

    def __init__(self, *, most: int = MOST_FAMILIES, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._known: dict[bytes, ReadyFamily] = {}
        # Returns what was made ready last, or None: it is of use if its record is the very object that is held. To
        # compare the bytes of a large family would take longer than to select from it.
        self.known = self._known.get
        self._bytes = 0

    def of(self, key: bytes, hit: CacheHit) -> ReadyFamily:
        """Return a family by the bytes of its key, and what the local cache holds of it."""
        known = self.known(key)
        return known if known is not None and known.record is hit[0] else self.add(key, hit)

    def add(self, key: bytes, hit: CacheHit) -> ReadyFamily:
        """Make a family ready."""
        self._drop(key)
        ready = self._known[key] = ReadyFamily(snapshot_of(key_from_bytes(key), hit).family, hit[0])
        self._bytes += len(hit[0])
        while len(self._known) > self._most or (self._bytes > self._most_bytes and len(self._known) > 1):
            self._drop(next(iter(self._known)))
        return ready

    def _drop(self, key: bytes) -> None:
        dropped = self._known.pop(key, None)
        if dropped is not None:
            self._bytes -= len(dropped.record)
