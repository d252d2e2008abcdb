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
    """A snapshot, and when the read that brought it began and when it ends to be served (both monotonic seconds).

    ``tracked``: it was at least as new as the feed when it came, so the feed has told every change of it since.
    """

    snapshot: Snapshot
    read_at: float
    expires_at: float
    tracked: bool = False


class LocalCache:
    """Snapshots by key, the least recently used one leaving first.

    Invariants: a snapshot is only ever replaced by one with an ``as_of`` that is not lower; none is taken that is
    older than the last change known of its key; and none is answered later than ``ttl`` seconds (``negative_ttl``
    for absence) after the *beginning* of the read that brought it.
    """

    def __init__(
        self, *, size: int, ttl: float, negative_ttl: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries: LRUCache[RouteKey, Held] = LRUCache(size)
        # The last known change of a key, kept longer than its entry: it refuses old values from the shared cache.
        self._changed: LRUCache[RouteKey, int] = LRUCache(size)
        self._ttl = ttl
        self._negative_ttl = min(ttl, negative_ttl)
        self._now = now
        self._fed = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: RouteKey) -> Held | None:
        """Return what is held of ``key`` and still fresh."""
        held = self._entries.get(key)
        return held if held is not None and self._now() < held.expires_at else None

    @property
    def fed(self) -> int:
        """The revision up to which every change was observed."""
        return self._fed

    def changed(self, key: RouteKey) -> int:
        """Return the last revision at which ``key`` is known to have changed; 0 when none is."""
        return self._changed.get(key, 0)

    def put(self, snapshot: Snapshot, read_at: float) -> None:
        """Hold ``snapshot``, from a read that began at ``read_at``, unless something newer is held or known."""
        held = self._entries.get(snapshot.key)
        if held is not None and (held.snapshot.as_of, held.read_at) > (snapshot.as_of, read_at):
            return
        if snapshot.as_of < self.changed(snapshot.key):
            return
        ttl = self._ttl if snapshot.route else self._negative_ttl
        # Only ever shortened, so that many keys loaded at once do not expire at once.
        ttl *= 1 - random.random() * JITTER  # noqa: S311 - spreads load, guards nothing
        self._entries.insert(snapshot.key, Held(snapshot, read_at, read_at + ttl, snapshot.as_of >= self._fed))

    def observe(self, snapshot: Snapshot) -> None:
        """Take note of a change. What is held is replaced, and lives no longer for it: nothing was read."""
        key = snapshot.key
        if snapshot.as_of <= self.changed(key):
            return
        self._changed.insert(key, snapshot.as_of)
        held = self._entries.get(key)
        if held is not None and held.snapshot.as_of < snapshot.as_of:
            self._entries.insert(key, Held(snapshot, held.read_at, held.expires_at, snapshot.as_of >= self._fed))

    def advance(self, revision: int) -> None:
        """Take note that every change up to ``revision`` was observed."""
        self._fed = max(self._fed, revision)

    def start_over(self, revision: int) -> None:
        """Forget everything; the feed begins after ``revision``."""
        self._entries.clear()
        self._changed.clear()
        self._fed = revision

    def clear(self) -> None:
        """Forget what is held."""
        self._entries.clear()
