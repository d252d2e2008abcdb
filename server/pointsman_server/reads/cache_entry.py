"""What the local cache holds of a key."""

from dataclasses import dataclass
from functools import lru_cache
from struct import Struct

from pointsman_server.domain.codec import rest_from_bytes
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Family, Route, RouteKey, Snapshot

MAX_DECODED = 1000
# Bytes of a value above which it is decoded each time: families may have a megabyte.
MAX_DECODED_BYTES = 20_000
# What is held of a key: a route, which is active or not, or none; or a family, or nothing of one.
ACTIVE, INACTIVE, ABSENT, FAMILY, NO_FAMILY = range(5)

# A record: ``as_of``, when its read began, its place, and flags; then the value without its key (``rest_to_bytes``), or
# nothing. One object without references: garbage collections skip it, and a lookup touches two or three cache lines.
HEAD = Struct("<qdIB")
REST = HEAD.size


@dataclass(frozen=True, slots=True)
class EntryScope:
    """What many keys share: one object for all of them."""

    scope: Scope
    epoch: str


# The record, whose value begins at ``REST``; its state, one of those above; the revision as of which it is known; its
# age in seconds; what it shares with other keys. A tuple: to make an object of a class takes longer than the lookup.
CacheHit = tuple[bytes, int, int, float, EntryScope]


def snapshot_of(key: RouteKey, hit: CacheHit) -> Snapshot:
    """Decode a hit."""
    record, state, as_of, _, entry = hit
    value = None if state in (ABSENT, NO_FAMILY) else _value(key, record[REST:])
    return Snapshot(key, value, as_of, entry.epoch)


def _value(key: RouteKey, rest: bytes) -> Route | Family:
    return _remembered(key, rest) if len(rest) <= MAX_DECODED_BYTES else rest_from_bytes(key, rest)


# For keys that are read often through the interceptor chain.
_remembered = lru_cache(MAX_DECODED)(rest_from_bytes)
