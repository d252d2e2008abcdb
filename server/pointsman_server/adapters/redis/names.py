"""The names of keys. On Redis Cluster those that one script uses have one hash tag, so that they are in one slot.

Without Redis Cluster names have no tag, and are those of every version. Two layouts never meet: before there were tags,
servers did not run on Redis Cluster.
"""

from collections.abc import Sequence
from zlib import crc32

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from pointsman_server.domain.routes import RouteKey

# Routes are spread over so many slots, evenly, that nodes have about as many each. Each has a clock of its own, which
# every server sends each second. A server has the same number as all others: another one needs another layout.
PARTS = 64


class KeyNames:
    """``heads`` are what the names of a part of the routes begin with."""

    def __init__(self, prefix: str, *, clustered: bool = False) -> None:
        self.clustered = clustered
        self._prefix = prefix
        self.heads = [f"{prefix}:{{{tag}}}:" for tag in spread_tags(PARTS)] if clustered else [f"{prefix}:"]

    def of(self, what: str) -> str:
        """Name what is in one slot; the names of further keys of that slot begin with it."""
        return f"{self._prefix}:{{{what}}}" if self.clustered else f"{self._prefix}:{what}"

    def head_of(self, key: RouteKey) -> str:
        """Return the head of the part that a route is in."""
        return self.heads[self._part(key)]

    def split(self, keys: Sequence[RouteKey]) -> list[tuple[str, Sequence[int]]]:
        """Group keys by their parts: the head of each, and the positions of its keys."""
        if not self.clustered:
            return [(self.heads[0], range(len(keys)))]
        parts: dict[int, list[int]] = {}
        for position, key in enumerate(keys):
            parts.setdefault(self._part(key), []).append(position)
        return [(self.heads[part], positions) for part, positions in parts.items()]

    def _part(self, key: RouteKey) -> int:
        return crc32("/".join(key).encode()) % len(self.heads)


def spread_tags(count: int) -> list[str]:
    """Find one tag in each of ``count`` equal ranges of slots: the first number there."""
    tags: dict[int, str] = {}
    number = 0
    while len(tags) < count:
        tags.setdefault(slot_of(str(number)) * count // REDIS_CLUSTER_HASH_SLOTS, str(number))
        number += 1
    return [tags[part] for part in range(count)]


def slot_of(name: str) -> int:
    """Return the slot of a key."""
    return key_slot(name.encode())
