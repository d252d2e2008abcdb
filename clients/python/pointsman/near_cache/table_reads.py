"""What a near-cache makes of a read that the fast path does not answer: the table, an error, or a call."""

import time

from pointsman.errors import FieldViolation, InvalidArgument, NearCacheStale, RouteInactive, RouteNotFound
from pointsman.keys import as_family, as_key
from pointsman.near_cache.options import OnStale
from pointsman.near_cache.statistics.counts import Counts, ReadCounts
from pointsman.near_cache.table.entries import Behind, CachedResolution, InactiveRoute
from pointsman.near_cache.table.selections import CachedSelection
from pointsman.near_cache.table.table import Table
from pointsman.near_cache.table.view import View

MOST_STICKY_BYTES = 256


class TableReads:
    """Reads of a table that has been started."""

    def __init__(self, table: Table, on_stale: OnStale, read_counts: ReadCounts, counts: Counts) -> None:
        self._table = table
        self._on_stale = on_stale
        self._read_counts = read_counts
        self._counts = counts

    def resolve(self, key: str) -> CachedResolution | None:
        """Return the live route of a key, or None when the server must be asked.

        Raises RouteNotFound, RouteInactive, NearCacheStale, and InvalidArgument.
        """
        name = as_key(key)
        with self._table.lock:  # what is absent is so as of the revision of this moment
            entry, view = self._table.find(key), self._table.view_of(name)
            if view is None or isinstance(entry, Behind) or not self._serves(view):
                self._counts.add("calls")
                return None
            known = _known(key, view)
        self._read_counts.add(key, 1)
        if isinstance(entry, CachedResolution):
            return entry
        self._counts.add("absent")
        if isinstance(entry, InactiveRoute):
            message = f"route {key} is not active: activate it first"
            raise RouteInactive(message, reason="ROUTE_INACTIVE", metadata=known)
        raise RouteNotFound(f"no route {key}", reason="ROUTE_NOT_FOUND", metadata=known)

    def select(self, family: str, sticky_key: str) -> CachedSelection | None:
        """Return what is chosen for a sticky key, or None when the server must be asked.

        Raises NoActiveVersion, AmbiguousVersion, NearCacheStale, and InvalidArgument.
        """
        name, encoded = as_family(family), sticky_key.encode()
        if len(encoded) > MOST_STICKY_BYTES:
            problem = f"must be at most {MOST_STICKY_BYTES} bytes in UTF-8"
            violation = FieldViolation("sticky_key", problem)
            raise InvalidArgument(f"sticky_key {problem}", reason="INVALID_FIELD", violations=[violation])
        with self._table.lock:
            view = self._table.view_of(name)
            entry = self._table.family(view, family) if view else None
            if view is None or entry is None or not self._serves(view):
                self._counts.add("calls")
                return None
            known = _known(family, view)
        found = entry.choose(encoded)
        if found is None:
            self._counts.add("absent")
            raise entry.refusal(known)
        self._read_counts.add(found.key_text, 1)
        return found

    def _serves(self, view: View) -> bool:
        """Return whether what a view has is served, and not the server asked. Raises NearCacheStale."""
        if not view.usable or time.monotonic() < view.fresh_until:
            return view.usable
        if self._on_stale == "serve":
            self._counts.add("stale")
        elif self._on_stale == "raise":
            self._counts.add("refused")
            age = time.monotonic() - view.confirmed_at
            raise NearCacheStale(f"the near-cache is stale: its table was last current {age:.0f} s ago")
        return self._on_stale == "serve"


def _known(key: str, view: View) -> dict[str, str]:
    return {"key": key, "revision": str(view.revision), "epoch": view.epoch}
