"""The cache in the server process: bounded, and never further behind the store than its time to live."""

import time
from collections.abc import Callable
from struct import Struct
from sys import intern

from pointsman_server.domain.codec import key_to_bytes, rest_to_bytes
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.reads.cache_entry import ABSENT, ACTIVE, INACTIVE, CacheHit, EntryScope, snapshot_of
from pointsman_server.reads.clock_eviction import ClockEviction
from pointsman_server.reads.known_changes import KnownChanges
from pointsman_server.runtime.bounded_dict import put_bounded

JITTER = 0.1
MOST_COMMON = 10_000

# A record: ``as_of``, when its read began, its place, and flags; then the route without its key. One object without
# references: a garbage collection passes over it, and a look at it touches two lines of memory or three.
_HEAD = Struct("<qdIB")
_unpack, _REST = _HEAD.unpack_from, _HEAD.size
# Flags: the lowest two bits are ACTIVE, INACTIVE or ABSENT.
_STATE, _TRACKED, _BRIEF = 3, 4, 8


class LocalCache:
    """What is known of keys, kept as it is sent; of those that were not used for long, the oldest leave first.

    Invariants: a snapshot is only ever replaced by one with an ``as_of`` that is not lower; none is taken that is
    older than the last change known of its key; and none is answered later than ``ttl`` seconds (``negative_ttl``
    for absence) after a moment at which it was surely true. That moment is the *beginning* of the read that brought
    it; and for what the feed tracks, the last one at which the feed is known to have missed nothing (``confirm``). So
    while the feed goes on, what is held is held for good, and a lost feed leaves ``ttl`` seconds.
    """

    def __init__(
        self, *, size: int, ttl: float, negative_ttl: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._records: dict[bytes, bytes] = {}
        self._record_of = self._records.get
        self._places = ClockEviction(size)
        self._used = self._places.used
        # By place. As many objects as there are of the kind, not of keys.
        self._common: list[EntryScope] = []
        self._commons: dict[EntryScope, EntryScope] = {}
        # Kept longer than what is held: it refuses old values from the shared cache.
        self._changes = KnownChanges(size)
        self._ttl = ttl
        self._negative_ttl = min(ttl, negative_ttl)
        self._surely_fresh = self._negative_ttl * (1 - JITTER)
        self._now = now
        self._fed = 0
        self._confirmed_at = float("-inf")

    def __len__(self) -> int:
        return len(self._records)

    def find(self, encoded: bytes, min_revision: int = 0) -> CacheHit | None:
        """Return what is held of a key, by its bytes, and still fresh.

        Its ``as_of`` is below ``min_revision`` if it is not known to be as new as that: the caller compares.
        """
        record = self._record_of(encoded)
        if record is None:
            return None
        as_of, true_at, place, flags = _unpack(record)
        if flags & _TRACKED and self._confirmed_at > true_at:
            true_at = self._confirmed_at
        age = self._now() - true_at
        if age >= self._surely_fresh and age >= self._ttl_of(encoded, flags):
            return None
        if as_of < min_revision and flags & _TRACKED and self._fed >= min_revision:
            # The feed has brought every change since, and there was none of this key.
            as_of = self._fed
        self._used[place] = 1
        return record[_REST:], flags & _STATE, as_of, age, self._common[place]

    def look(self, key: RouteKey, min_revision: int = 0) -> tuple[Snapshot, float] | None:
        """Return what is held of a key, fresh and as of ``min_revision`` or later: decoded, with its age in seconds."""
        hit = self.find(key_to_bytes(key), min_revision)
        return (snapshot_of(key, hit), hit[3]) if hit and hit[2] >= min_revision else None

    @property
    def fed(self) -> int:
        """The revision up to which every change was observed."""
        return self._fed

    def changed(self, key: RouteKey) -> int:
        """Return the last revision at which ``key`` is known to have changed; 0 when none is."""
        return self._changes.last(key_to_bytes(key))

    def put(self, snapshot: Snapshot, read_at: float) -> None:
        """Hold ``snapshot``, from a read that began at ``read_at``, unless something newer is held or known."""
        encoded = key_to_bytes(snapshot.key)
        record = self._record_of(encoded)
        if record is not None and _unpack(record)[:2] > (snapshot.as_of, read_at):
            return
        if snapshot.as_of < self._changes.last(encoded):
            return
        self._hold(encoded, snapshot, read_at, 0 if snapshot.route else _BRIEF)

    def observe(self, snapshot: Snapshot) -> None:
        """Take note of a change. What is held is replaced, and lives no longer for it: nothing was read."""
        encoded = key_to_bytes(snapshot.key)
        record = self._note(encoded, snapshot.as_of)
        if record is not None:
            _, read_at, _, flags = _unpack(record)
            self._hold(encoded, snapshot, read_at, flags & _BRIEF)

    def supersede(self, key: RouteKey, revision: int) -> None:
        """Take note that ``key`` changed at ``revision``, to what is not said: what is older is let go."""
        encoded = key_to_bytes(key)
        record = self._note(encoded, revision)
        if record is not None:
            del self._records[encoded]
            self._places.free(_unpack(record)[2])

    def advance(self, revision: int) -> None:
        """Take note that every change up to ``revision`` was observed."""
        self._fed = max(self._fed, revision)

    def confirm(self, moment: float) -> None:
        """Take note that at ``moment`` the store had no change that was not observed."""
        self._confirmed_at = max(self._confirmed_at, moment)

    def drop(self) -> None:
        """Let go of everything that is held; what is known of changes stays."""
        self._records.clear()
        self._places.clear()
        self._common.clear()
        self._commons.clear()

    def start_over(self, revision: int) -> None:
        """Forget everything; the feed begins after ``revision``."""
        self.drop()
        self._changes.start_over(revision)
        self._fed = revision
        self._confirmed_at = float("-inf")

    def _note(self, encoded: bytes, revision: int) -> bytes | None:
        """Remember a change, and return the record that it makes old, if there is one."""
        if revision <= self._changes.last(encoded):
            return None
        record = self._record_of(encoded)
        if record is None:
            self._changes.note(encoded, revision)
            return None
        as_of, _, place, _ = _unpack(record)
        # The same object as holds the record: of keys that are held and changed there is one.
        self._changes.note(self._places.keys[place], revision)
        return record if as_of < revision else None

    def _hold(self, encoded: bytes, snapshot: Snapshot, read_at: float, flags: int) -> None:
        place = self._place_of(encoded)
        self._common[place] = self._common_of(snapshot)
        route, as_of = snapshot.route, snapshot.as_of
        # No change of the key after ``as_of`` is known, and none can be unknown that the feed has told already.
        tracked = _TRACKED if as_of >= min(self._changes.complete_from, self._fed) else 0
        state = ABSENT if route is None else ACTIVE if route.active else INACTIVE
        head = _HEAD.pack(as_of, read_at, place, flags | tracked | state)
        self._records[encoded] = head + rest_to_bytes(route) if route else head

    def _place_of(self, encoded: bytes) -> int:
        record = self._record_of(encoded)
        if record is not None:
            place: int = _unpack(record)[2]
            return place
        place, left = self._places.take(encoded)
        if left:
            del self._records[left]
        if place == len(self._common):
            self._common.append(NOTHING_COMMON)
        return place

    def _common_of(self, snapshot: Snapshot) -> EntryScope:
        # Interned, for where nearly every route has a tenant of its own.
        common = EntryScope(Scope(snapshot.key.tenant, intern(snapshot.key.env)), intern(snapshot.epoch))
        known = self._commons.get(common)
        if known is None:
            put_bounded(self._commons, common, common, MOST_COMMON)
        return known or common

    def _ttl_of(self, encoded: bytes, flags: int) -> float:
        # Only ever shortened, so that many keys loaded at once do not expire at once: by what the key says, which need
        # not be kept.
        ttl = self._negative_ttl if flags & _BRIEF else self._ttl
        return ttl * (1 - JITTER * (hash(encoded) & 0xFFFF) / 0x10000)


NOTHING_COMMON = EntryScope(Scope("", ""), "")
