"""What a near-cache makes of a read that the fast path does not answer: the table, an error, or a call."""

import time

from pointsman.errors import FieldViolation, InvalidArgument, NearCacheStale, RouteInactive, RouteNotFound
from pointsman.keys import as_family, as_key
from pointsman.near_cache.options import OnStale
from pointsman.near_cache.statistics.counts import Counts, ReadCounts
from pointsman.near_cache.table.entries import Behind, CachedResolution, InactiveRoute
from pointsman.near_cache.table.families import is_family
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
            known, fresh = _known(key, view), _is_fresh(view)
        self._read_counts.add(key, 1)
        if isinstance(entry, CachedResolution):
            self._counts.add("table_reads", fresh)
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
            known, fresh = _known(family, view), _is_fresh(view)
        found = entry.choose(encoded)
        if found is None:
            self._counts.add("absent")
            raise entry.refusal(known)
        self._counts.add("table_reads", fresh)
        self._read_counts.add(found.key_text, 1)
        return found

    def urls(self, key: str) -> frozenset[str] | None:
        """Return the URLs that ``resolve`` or, of ``tenant/service/env``, ``select`` may return; it is no read.

        Empty where they would raise NotFound; None where the table does not know: the server must be asked.
        """
        family = is_family(key)
        with self._table.lock:
            view = self._table.view_of(as_family(key) if family else as_key(key))
            if view is None or not view.usable:
                return None
            if family:
                choices = self._table.family(view, key)
                return None if choices is None else frozenset(each.url for each in choices.possible())
            entry = self._table.find(key)
        if isinstance(entry, Behind):
            return None
        return frozenset([entry.url] if isinstance(entry, CachedResolution) else [])

    def covers(self, key: str) -> bool:
        """Return whether the table is meant to have a key, or the family ``tenant/service/env``."""
        return self._table.view_of(as_family(key) if is_family(key) else as_key(key)) is not None

    def _serves(self, view: View) -> bool:
        """Return whether what a view has is served, and not the server asked. Raises NearCacheStale."""
        if not view.usable or view.catching_up:
            return False
        if _is_fresh(view):
            return True
        if self._on_stale == "serve":
            self._counts.add("stale")
        elif self._on_stale == "raise":
            self._counts.add("refused")
            age = time.monotonic() - view.confirmed_at
            raise NearCacheStale(f"the near-cache is stale: its table was last current {age:.0f} s ago")
        return self._on_stale == "serve"


def _is_fresh(view: View) -> bool:
    return time.monotonic() < view.fresh_until


def _known(key: str, view: View) -> dict[str, str]:
    return {"key": key, "revision": str(view.revision), "epoch": view.epoch}
