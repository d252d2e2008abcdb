"""The cache in the server process: bounded, and never older than its time to live."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from cachebox import LRUCache

from pointsman_server.routes import RouteKey, Snapshot

JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Held:
    """A snapshot, and when the read that brought it began and when it ends to be served (both monotonic seconds)."""

    snapshot: Snapshot
    read_at: float
    expires_at: float


class LocalCache:
    """Snapshots by key, the least recently used one leaving first.

    Invariants: a snapshot is only ever replaced by one with an ``as_of`` that is not lower, and none is answered
    later than ``ttl`` seconds (``negative_ttl`` for absence) after the *beginning* of the read that brought it.
    """

    def __init__(
        self, *, size: int, ttl: float, negative_ttl: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries: LRUCache[RouteKey, Held] = LRUCache(size)
        self._ttl = ttl
        self._negative_ttl = min(ttl, negative_ttl)
        self._now = now

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: RouteKey) -> Held | None:
        """Return what is held of ``key`` and still fresh."""
        held = self._entries.get(key)
        return held if held is not None and self._now() < held.expires_at else None

    def put(self, snapshot: Snapshot, read_at: float) -> None:
        """Hold ``snapshot``, from a read that began at ``read_at``, unless something newer is held."""
        held = self._entries.get(snapshot.key)
        if held is not None and (held.snapshot.as_of, held.read_at) > (snapshot.as_of, read_at):
            return
        ttl = self._ttl if snapshot.route else self._negative_ttl
        # Only ever shortened, so that many keys loaded at once do not expire at once.
        ttl *= 1 - random.random() * JITTER  # noqa: S311 - spreads load, guards nothing
        self._entries.insert(snapshot.key, Held(snapshot, read_at, read_at + ttl))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
