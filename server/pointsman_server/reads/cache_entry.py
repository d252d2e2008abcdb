"""What the local cache holds of a key."""

from dataclasses import dataclass
from functools import lru_cache

from pointsman_server.domain.codec import rest_from_bytes
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.domain.traffic import Family

MAX_DECODED = 1000
ACTIVE, INACTIVE, ABSENT = range(3)


@dataclass(frozen=True, slots=True)
class EntryScope:
    """What many keys share: one object for all of them."""

    scope: Scope
    epoch: str


# Encoded route without its key (``codec.rest_to_bytes``), or nothing; ACTIVE, INACTIVE or ABSENT; the revision as of
# which that is known; its age in seconds; what it shares with other keys. A tuple: making an object of a class takes
# longer than finding the entry.
CacheHit = tuple[bytes, int, int, float, EntryScope]


def snapshot_of(key: RouteKey, hit: CacheHit) -> Snapshot:
    """Decode a hit."""
    rest, state, as_of, _, entry = hit
    return Snapshot(key, None if state == ABSENT else _value(key, rest), as_of, entry.epoch)


@lru_cache(MAX_DECODED)
def _value(key: RouteKey, rest: bytes) -> Route | Family:
    # Remembered for keys that are read often through the interceptor chain.
    return rest_from_bytes(key, rest)
