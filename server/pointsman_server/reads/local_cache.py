"""The cache in the server process: bounded in size, and in how far it is behind the store."""

import time
from collections.abc import Callable
from sys import intern

from pointsman_server.domain.codec import key_to_bytes, rest_of, rest_to_bytes
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.reads.cache_entry import (
    ABSENT,
    ACTIVE,
    FAMILY,
    HEAD,
    INACTIVE,
    NO_FAMILY,
    CacheHit,
    EntryScope,
    snapshot_of,
)
from pointsman_server.reads.clock_eviction import ClockEviction
from pointsman_server.reads.known_changes import KnownChanges
from pointsman_server.runtime.bounded_dict import put_bounded

JITTER = 0.1
MAX_SCOPES = 10_000

_unpack = HEAD.unpack_from
# Flags: the lowest three bits are the state.
_STATE, _TRACKED, _NEGATIVE_TTL = 7, 8, 16


class LocalCache:
    """Snapshots by key, encoded as they are sent. Above ``size`` keys, one that was not used lately is evicted.

    Invariants: a snapshot is replaced only by one with the same ``as_of`` or a higher one; a snapshot older than the
    last known change of its key is rejected; and none is answered later than ``ttl`` seconds (``negative_ttl`` for
    absence) after a moment at which it was known to be true. That moment is the *beginning* of the read that brought it
    or, for entries that the feed tracks, the last one at which the feed had missed nothing (``confirm``). So entries
    do not expire while the feed runs, and expire ``ttl`` seconds after it stopped.
    """

    def __init__(
        self, *, size: int, ttl: float, negative_ttl: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._records: dict[bytes, bytes] = {}
        self._record_of = self._records.get
        self._places = ClockEviction(size)
        self._used = self._places.used
        # By place. Keys share these objects.
        self._scope_of: list[EntryScope] = []
        self._scopes: dict[tuple[str, str, str], EntryScope] = {}
        # Kept longer than entries: it rejects old values from the shared cache.
        self._size = size
        self._changes = self._none_known()
        self._ttl = ttl
        self._negative_ttl = min(ttl, negative_ttl)
        self._fresh_for = self._negative_ttl * (1 - JITTER)
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
        if age >= self._fresh_for and age >= self._ttl_of(encoded, flags):
            return None
        if as_of < min_revision and flags & _TRACKED and self._fed >= min_revision:
            # The feed has brought every change since, and there was none of this key.
            as_of = self._fed
        self._used[place] = 1
        return record, flags & _STATE, as_of, age, self._scope_of[place]

    def look(self, key: RouteKey, min_revision: int = 0) -> tuple[Snapshot, float] | None:
        """Return what is held of a key, fresh and as of ``min_revision`` or later: decoded, with its age in seconds."""
        hit = self.find(key_to_bytes(key), min_revision)
        return (snapshot_of(key, hit), hit[3]) if hit and hit[2] >= min_revision else None

    @property
    def fed(self) -> int:
        """The revision up to which the feed has brought every change."""
        return self._fed

    def changed(self, key: RouteKey) -> int:
        """Return the last revision at which ``key`` is known to have changed, or 0."""
        return self._changes.last(key_to_bytes(key))

    def put(self, snapshot: Snapshot, read_at: float, route: bytes = b"") -> None:
        """Cache ``snapshot``, from a read that began at ``read_at``, unless a newer one or a later change is known.

        ``route`` is its route or family as protobuf, if the caller has it.
        """
        encoded = key_to_bytes(snapshot.key)
        record = self._record_of(encoded)
        if record is not None and _unpack(record)[:2] > (snapshot.as_of, read_at):
            return
        if snapshot.as_of < self._changes.last(encoded):
            return
        self._hold(
            encoded, snapshot, read_at, 0 if snapshot.value else _NEGATIVE_TTL, rest_of(snapshot.key, encoded, route)
        )

    def observe(self, snapshot: Snapshot) -> None:
        """Apply a change. An older entry is replaced, and expires when it would have: nothing was read."""
        encoded = key_to_bytes(snapshot.key)
        record = self._note(encoded, snapshot.as_of)
        if record is not None:
            _, read_at, _, flags = _unpack(record)
            self._hold(encoded, snapshot, read_at, flags & _NEGATIVE_TTL)

    def supersede(self, key: RouteKey, revision: int) -> None:
        """Drop what is older than ``revision``, at which ``key`` changed in a way that is not known."""
        encoded = key_to_bytes(key)
        record = self._note(encoded, revision)
        if record is not None:
            del self._records[encoded]
            self._places.free(_unpack(record)[2])

    def advance(self, revision: int) -> None:
        """Note that the feed has brought every change up to ``revision``."""
        self._fed = max(self._fed, revision)

    def confirm(self, moment: float) -> None:
        """Note that at ``moment`` the store had no change that the feed had not brought."""
        self._confirmed_at = max(self._confirmed_at, moment)

    def drop(self) -> None:
        """Drop every entry; known changes stay."""
        self._records.clear()
        self._places.clear()
        self._scope_of.clear()
        self._scopes.clear()

    def start_over(self, revision: int) -> None:
        """Drop every entry; the feed begins after ``revision``, in the same epoch.

        Known changes stay: a write of this process may be above ``revision``, and the feed does not bring it again.
        """
        self.drop()
        self._changes.resume(revision)
        self._fed = revision
        self._confirmed_at = float("-inf")

    def forget(self) -> None:
        """Drop everything, known changes too: revisions of the epoch before mean nothing in this one."""
        self._changes = self._none_known()
        self.start_over(0)

    def _none_known(self) -> KnownChanges:
        # Each change is one of a route and of its family.
        return KnownChanges(2 * self._size)

    def _note(self, encoded: bytes, revision: int) -> bytes | None:
        """Note a change, and return the record that it makes old, if there is one."""
        if revision <= self._changes.last(encoded):
            return None
        record = self._record_of(encoded)
        if record is None:
            self._changes.note(encoded, revision)
            return None
        as_of, _, place, _ = _unpack(record)
        # The object that is the key of the record: the bytes of a key exist once.
        self._changes.note(self._places.keys[place], revision)
        return record if as_of < revision else None

    def _hold(self, encoded: bytes, snapshot: Snapshot, read_at: float, flags: int, rest: bytes = b"") -> None:
        place = self._place_of(encoded)
        self._scope_of[place] = self._shared_scope(snapshot)
        value, as_of = snapshot.value, snapshot.as_of
        # No change of the key after ``as_of`` is known, and the feed has brought all changes so far.
        tracked = _TRACKED if as_of >= min(self._changes.complete_from, self._fed) else 0
        head = HEAD.pack(as_of, read_at, place, flags | tracked | _state_of(snapshot))
        self._records[encoded] = head + (rest or rest_to_bytes(value)) if value else head

    def _place_of(self, encoded: bytes) -> int:
        record = self._record_of(encoded)
        if record is not None:
            place: int = _unpack(record)[2]
            return place
        place, evicted = self._places.take(encoded)
        if evicted:
            del self._records[evicted]
        if place == len(self._scope_of):
            self._scope_of.append(NO_SCOPE)
        return place

    def _shared_scope(self, snapshot: Snapshot) -> EntryScope:
        # Interned: where nearly every route has a tenant of its own, scopes differ, but their environments do not.
        tenant, _, env, _ = snapshot.key
        known = self._scopes.get((tenant, env, snapshot.epoch))
        if known is not None:
            return known
        scope = EntryScope(Scope(tenant, intern(env)), intern(snapshot.epoch))
        put_bounded(self._scopes, (tenant, scope.scope.env, scope.epoch), scope, MAX_SCOPES)
        return scope

    def _ttl_of(self, encoded: bytes, flags: int) -> float:
        # Shortened, so that keys that were loaded together do not expire together: by a hash of the key, which need not
        # be stored.
        ttl = self._negative_ttl if flags & _NEGATIVE_TTL else self._ttl
        return ttl * (1 - JITTER * (hash(encoded) & 0xFFFF) / 0x10000)


def _state_of(snapshot: Snapshot) -> int:
    value = snapshot.value
    if isinstance(value, Route):
        return ACTIVE if value.active else INACTIVE
    if snapshot.key.version:
        return ABSENT
    return FAMILY if value else NO_FAMILY


NO_SCOPE = EntryScope(Scope("", ""), "")
