"""The cache in the server process: bounded, and never further behind the store than its time to live."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from cachebox import LRUCache

from pointsman_server.routes import RouteKey, Snapshot

JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Held:
    """A snapshot, when the read that brought it began, and for how long it is served after it was surely true.

    Both are monotonic seconds. ``tracked``: the feed has told, or will tell, every change of it since, so what the
    feed confirms is confirmed of it too.
    """

    snapshot: Snapshot
    read_at: float
    ttl: float
    tracked: bool = False


class LocalCache:
    """Snapshots by key, the least recently used one leaving first.

    Invariants: a snapshot is only ever replaced by one with an ``as_of`` that is not lower; none is taken that is
    older than the last change known of its key; and none is answered later than ``ttl`` seconds (``negative_ttl``
    for absence) after a moment at which it was surely true. That moment is the *beginning* of the read that brought
    it; and for what the feed tracks, the last one at which the feed is known to have missed nothing (``confirm``). So
    while the feed goes on, what is held is held for good, and a lost feed leaves ``ttl`` seconds.
    """

    def __init__(
        self, *, size: int, ttl: float, negative_ttl: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries: LRUCache[RouteKey, Held] = LRUCache(size)
        # The last known change of a key, kept longer than its entry: it refuses old values from the shared cache.
        self._changed: LRUCache[RouteKey, int] = LRUCache(size)
        # Of the changes after this revision, up to where the feed is, each key's last one is in ``_changed``.
        self._known_from = 0
        self._ttl = ttl
        self._negative_ttl = min(ttl, negative_ttl)
        self._now = now
        self._fed = 0
        self._confirmed_at = float("-inf")

    def __len__(self) -> int:
        return len(self._entries)

    def look(self, key: RouteKey) -> tuple[Held, float] | None:
        """Return what is held of ``key`` and still fresh, and how many seconds ago it was surely true."""
        held: Held | None = self._entries.get(key)
        if held is None:
            return None
        true_at = max(held.read_at, self._confirmed_at) if held.tracked else held.read_at
        age = self._now() - true_at
        return (held, age) if age < held.ttl else None

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
        self._entries.insert(snapshot.key, Held(snapshot, read_at, ttl, self._tracks(snapshot)))

    def observe(self, snapshot: Snapshot) -> None:
        """Take note of a change. What is held is replaced, and lives no longer for it: nothing was read."""
        key = snapshot.key
        if snapshot.as_of <= self.changed(key):
            return
        self._remember(key, snapshot.as_of)
        held = self._entries.get(key)
        if held is not None and held.snapshot.as_of < snapshot.as_of:
            self._entries.insert(key, Held(snapshot, held.read_at, held.ttl, self._tracks(snapshot)))

    def supersede(self, key: RouteKey, revision: int) -> None:
        """Take note that ``key`` changed at ``revision``, to what is not said: what is older is let go."""
        if revision <= self.changed(key):
            return
        self._remember(key, revision)
        held = self._entries.get(key)
        if held is not None and held.snapshot.as_of < revision:
            self._entries.pop(key, None)

    def _tracks(self, snapshot: Snapshot) -> bool:
        # No change of the key after ``as_of`` is known, and none can be unknown that the feed has told already.
        return snapshot.as_of >= min(self._known_from, self._fed)

    def _remember(self, key: RouteKey, revision: int) -> None:
        if len(self._changed) >= self._changed.maxsize and key not in self._changed:
            _, forgotten = self._changed.popitem()
            self._known_from = max(self._known_from, forgotten)
        self._changed.insert(key, revision)

    def advance(self, revision: int) -> None:
        """Take note that every change up to ``revision`` was observed."""
        self._fed = max(self._fed, revision)

    def confirm(self, moment: float) -> None:
        """Take note that at ``moment`` the store had no change that was not observed."""
        self._confirmed_at = max(self._confirmed_at, moment)

    def start_over(self, revision: int) -> None:
        """Forget everything; the feed begins after ``revision``."""
        self._entries.clear()
        self._changed.clear()
        self._fed = self._known_from = revision
        self._confirmed_at = float("-inf")
