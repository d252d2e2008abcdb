"""The routes and the traffic of a near-cache: read without a lock, written by one thread at a time."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf

from pointsman.keys import FamilyKey, RouteKey
from pointsman.memory import Floor
from pointsman.near_cache.table.entries import DELETED, Behind, Known, entry_of, key_text
from pointsman.near_cache.table.families import Families, StoredTraffic, family_of, is_family
from pointsman.near_cache.table.selections import Entry, FamilyEntry
from pointsman.near_cache.table.view import View
from pointsman.near_cache.watch.protocol import Position
from pointsman.v1.route_pb2 import RouteChange
from pointsman.v1.traffic_pb2 import Traffic

_LOG = logging.getLogger(__name__)

# Of so many keys the table knows that the client has seen something newer. Of more, the whole view waits.
MOST_BEHIND = 10_000

Positioned = tuple[View, Position, float]
"""A view, its position, and when it was confirmed."""


class Table:
    """The routes of all views, and what selects choose from.

    Both are in one dict, which readers look into without a lock: routes by ``tenant/service/env/version``, and the
    families that something was selected from, compiled, by ``tenant/service/env``.

    Invariants:

    - Readers see all of a change set, or nothing of it; and all of a snapshot, or nothing: each is one operation on
      the dict, or one other dict.
    - No key goes back: an entry is used only if the client has not seen or written anything newer of its key.
    - A family in the dict is of the same revision as the routes in it: both are replaced by the same operation.
    """

    def __init__(
        self,
        views: Sequence[View],
        max_stale: float,
        use: Callable[[dict[str, Entry]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``use``: called with another dict when readers must use that."""
        self.views = views
        self._by_tenant = {view.filter.tenant: view for view in views}
        self._max_stale = max_stale
        self._use = use
        self._clock = clock
        self._routes: dict[str, Entry] = {}
        self._families = Families()
        self._behind: dict[str, Behind] = {}
        self.version = 0
        """How often the routes or the traffic have changed."""
        self.confirmed = False
        """Whether a server has confirmed any view since this table was made."""
        self.lock = threading.RLock()
        use(self._routes)

    def view_of(self, key: RouteKey | FamilyKey) -> View | None:
        """Return the view that has ``key``, or None if it is of none."""
        view = self._by_tenant.get(key.tenant) or self._by_tenant.get("")
        return view if view is not None and view.filter.matches(key.tenant, key.service, key.env) else None

    def find(self, key: str) -> Entry | None:
        """Return the entry of a key. Hold ``lock`` when it matters as of which revision there is none."""
        return self._routes.get(key)

    def family(self, view: View, family: str) -> FamilyEntry | None:
        """Return what selects of a family choose from, or None when the server must be asked. Hold ``lock``.

        Readers find it in the dict from then on, if there is anything to choose.
        """
        there = self._routes.get(family)
        if isinstance(there, FamilyEntry):
            return there
        if isinstance(there, Behind) or not view.has_traffic:
            return None
        entry = self._compiled(view, family)
        if entry is not None and entry.choose(b""):
            self._routes[family] = entry
        return entry

    def keys(self) -> list[str]:
        """Return the keys of all routes."""
        with self.lock:
            return [key for key, entry in self._routes.items() if _exists(entry)]

    def floor(self, key: RouteKey | FamilyKey) -> Floor:
        """Return what readers may have seen of a key, or of a family: no answer from elsewhere may be older."""
        with self.lock:
            view = self.view_of(key)
            if view is None or not view.loaded:
                return Floor()
            entry = self._routes.get(str(key))
            if isinstance(entry, Behind):
                known = entry.entry.revision if entry.entry else view.revision
                return Floor(max(known, entry.revision if entry.epoch == view.epoch else 0), view.epoch)
            return Floor(entry.revision if isinstance(entry, Known) else view.revision, view.epoch)

    # Watches call these.

    def replace(
        self,
        view: View,
        as_of: Position,
        routes: Iterable[tuple[str, Known]],
        traffic: Iterable[Traffic] | None = None,
    ) -> None:
        """Make the routes and the traffic of a view exactly these; None: its traffic is not known."""
        fresh: dict[str, Entry] = dict(routes)
        with self.lock:
            old = [entry for entry in self._routes.values() if _owner(entry) is view]
            _supersede(old, view)
            size = len(fresh)
            if len(self.views) > 1:
                others = {key: entry for key, entry in self._routes.items() if not self._belongs(key, entry, view)}
                fresh = others | fresh
            if view.loaded and view.epoch != as_of.epoch:
                view.left.add(view.epoch)
                view.needed = 0
            view.left.discard(as_of.epoch)
            self._keep_behind(fresh, view, as_of)
            self._families.replace(view, traffic or (), fresh)
            view.has_traffic = traffic is not None
            view.loaded, view.size = True, size
            self.version += 1
            view.epoch, view.revision = as_of.epoch, as_of.revision
            self._routes = fresh
            self._use(fresh)

    def apply(self, view: View, as_of: Position, changes: Sequence[RouteChange]) -> None:
        """Apply a change set."""
        with self.lock:
            news = self._news(view, changes)
            old = [entry for key in news if (entry := self._routes.get(key))]
            _supersede(old, view)
            view.size += sum(map(_exists, news.values())) - sum(map(_exists, old))
            self._put_behind(news, as_of)
            # One operation, so that no reader sees half of it.
            self._routes.update(news)
            for key, entry in news.items():
                if entry is DELETED:
                    del self._routes[key]
            self.version += bool(changes)
            self._advance(view, as_of.revision)

    def drop_traffic(self, view: View) -> None:
        """Take note that from now on the traffic of a view is not known: servers are asked."""
        with self.lock:
            view.has_traffic = False
            self._families.drop(view)
            dropped = {key: e for key, e in self._routes.items() if isinstance(e, FamilyEntry) and e.owner is view}
            _supersede(dropped.values(), view)
            for family in dropped:
                del self._routes[family]
            self.version += 1

    def confirm(self, view: View, as_of: Position, age: float) -> None:
        """Take note that ``age`` seconds ago nothing was missing."""
        with self.lock:
            self._advance(view, as_of.revision)
            view.confirmed_at = max(view.confirmed_at, self._clock() - age)
            view.live = self.confirmed = True
            view.catching_up = False
            self.refresh(view)

    def refresh(self, view: View, *, at_least_until: float = -inf) -> None:
        """Let readers take the entries for as long as they are not stale, or until the given moment."""
        until = max(view.confirmed_at + self._max_stale, at_least_until)
        view.fresh_until = until if view.usable else -inf

    def suspend(self) -> None:
        """Send all readers to the slow path, until ``refresh``."""
        for view in self.views:
            view.live, view.fresh_until = False, -inf

    # The client calls these.

    def saw(self, key: RouteKey | FamilyKey, revision: int, epoch: str) -> None:
        """Take note that the client has seen ``key`` at ``revision`` elsewhere, or has written it.

        What was seen of a route holds for its family, too.
        """
        with self.lock:
            view = self.view_of(key)
            if view is None or epoch in view.left:
                return
            if not view.loaded or epoch not in {"", view.epoch}:
                self._hold_back_all(view, key, epoch, revision)
            elif revision > view.revision:
                entry = self._routes.get(str(key))
                if not (isinstance(entry, Known) and entry.revision >= revision):
                    self._hold_back_all(view, key, view.epoch, revision)

    def saw_any(self, revision: int) -> None:
        """Take note that the client has written ``revision``, of keys that the response does not name."""
        with self.lock:
            for view in self.views:
                if not (view.loaded and view.revision >= revision):
                    view.needed = max(view.needed, revision)
                    view.fresh_until = -inf

    def siblings(self, key: RouteKey | FamilyKey) -> list[RouteKey]:
        """Return the other versions of the tenant, service and env of ``key``."""
        prefix = f"{key.tenant}/{key.service}/{key.env}/"
        with self.lock:
            return [RouteKey(*other.split("/")) for other in self._routes if other.startswith(prefix)]

    def positions(self) -> tuple[int, list[Positioned]]:
        """Return how often the routes have changed, and where each loaded view is."""
        with self.lock:
            views = [(view, view.position, view.confirmed_at) for view in self.views]
            return self.version, [(view, position, at) for view, position, at in views if position is not None]

    def entries(self) -> tuple[int, list[Positioned], list[Known], list[StoredTraffic]]:
        """Return the same, and all routes and traffic."""
        with self.lock:
            every = [entry.entry if isinstance(entry, Behind) else entry for entry in self._routes.values()]
            version, positions = self.positions()
            traffic = self._families.stored()
        return version, positions, [entry for entry in every if isinstance(entry, Known)], traffic

    def _news(self, view: View, changes: Sequence[RouteChange]) -> dict[str, Entry]:
        """Return what changes put into the dict: routes, and the families that are in it and must be compiled anew."""
        news: dict[str, Entry] = {}
        families: dict[str, None] = {}
        for change in changes:
            key = key_text(change.key)
            if is_family(key):
                after = change.traffic_after if change.HasField("traffic_after") else None
                self._families.set_traffic(view, key, after)
                families[key] = None
                continue
            exists = change.HasField("after")
            news[key] = entry_of(view, change.after)[1] if exists else DELETED
            self._families.set_route(key, exists=exists)
            families[family_of(key)] = None
        for family in families:
            if isinstance(self._routes.get(family), FamilyEntry):
                entry = self._compiled(view, family, news)
                news[family] = entry if entry is not None and entry.choose(b"") else DELETED
        return news

    def _compiled(self, view: View, family: str, news: Mapping[str, Entry] = {}) -> FamilyEntry | None:
        try:
            return self._families.entry(view, family, self._routes, news)
        except ValueError:
            _LOG.warning("the traffic of %s does not divide all calls: servers are asked", family)
            return None

    def _hold_back_all(self, view: View, key: RouteKey | FamilyKey, epoch: str, revision: int) -> None:
        text = str(key)
        self._hold_back(view, text, epoch, revision)
        if not is_family(text):
            self._hold_back(view, family_of(text), epoch, revision)

    def _hold_back(self, view: View, key: str, epoch: str, revision: int) -> None:
        there = self._routes.get(key)
        if isinstance(there, Behind):
            if there.epoch != epoch or there.revision < revision:
                there.epoch, there.revision = epoch, revision
            return
        if len(self._behind) >= MOST_BEHIND:
            if epoch == view.epoch:
                view.needed = max(view.needed, revision)
                view.fresh_until = -inf
            return
        if isinstance(there, FamilyEntry):
            _supersede([there], view)
        entry = there if isinstance(there, Known) else None
        self._routes[key] = self._behind[key] = Behind(entry, epoch, revision)

    def _put_behind(self, news: dict[str, Entry], as_of: Position) -> None:
        """Leave those in place that wait for more than this change set."""
        for key in news.keys() & self._behind.keys():
            waiting, entry = self._behind[key], news[key]
            if waiting.epoch != as_of.epoch or waiting.revision > as_of.revision:
                waiting.entry = entry if isinstance(entry, Known) else None
                news[key] = waiting
            else:
                del self._behind[key]

    def _advance(self, view: View, revision: int) -> None:
        view.revision = max(view.revision, revision)
        if self._behind:
            self._release(view)

    def _release(self, view: View) -> None:
        """Use the entries again that have reached what the client has seen."""
        reached = [
            key
            for key, waiting in self._behind.items()
            if waiting.epoch == view.epoch and waiting.revision <= view.revision and self._in_view(key, view)
        ]
        back: dict[str, Entry] = {key: self._behind.pop(key).entry or DELETED for key in reached}
        self._routes.update(back)
        for key, entry in back.items():
            if entry is DELETED:
                del self._routes[key]

    def _keep_behind(self, fresh: dict[str, Entry], view: View, as_of: Position) -> None:
        """Put those before the entries of a snapshot that have seen more of the same epoch than it has."""
        for key in [key for key in self._behind if self._in_view(key, view)]:
            waiting = self._behind[key]
            if waiting.epoch in {"", as_of.epoch} and waiting.revision > as_of.revision:
                entry = fresh.get(key)
                fresh[key] = self._behind[key] = Behind(
                    entry if isinstance(entry, Known) else None, as_of.epoch, waiting.revision
                )
            else:
                del self._behind[key]

    def _belongs(self, key: str, entry: Entry, view: View) -> bool:
        return self._in_view(key, view) if isinstance(entry, Behind) else _owner(entry) is view

    def _in_view(self, key: str, view: View) -> bool:
        parts = key.split("/")
        return self.view_of(FamilyKey(*parts) if len(parts) == 3 else RouteKey(*parts)) is view


def _owner(entry: Entry) -> View | None:
    if isinstance(entry, Behind):
        return _owner(entry.entry) if entry.entry else None
    return getattr(entry, "owner", entry.view)


def _exists(entry: Entry) -> bool:
    return isinstance(entry, Known) or (isinstance(entry, Behind) and entry.entry is not None)


def _supersede(entries: Iterable[Entry], view: View) -> None:
    """Say of results that readers may still hold how long they were current."""
    known = (view.confirmed_at, view.revision, view.epoch)
    for entry in entries:
        current = entry.entry if isinstance(entry, Behind) else entry
        supersede = getattr(current, "supersede", None)
        if supersede:
            supersede(known)
