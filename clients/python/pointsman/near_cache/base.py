"""What the near-caches of both clients share: their life, their state, and what they make of a key."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, TypeVar

from pointsman.errors import NearCacheStale
from pointsman.keys import FamilyKey, RouteKey, as_family, as_key
from pointsman.memory import Floor
from pointsman.near_cache import forks
from pointsman.near_cache.disk.snapshot import DiskSnapshot, load
from pointsman.near_cache.keeper import Keeper
from pointsman.near_cache.options import Options
from pointsman.near_cache.statistics.counts import Counts, ReadCounts, Statistics
from pointsman.near_cache.table.entries import CachedResolution, key_text
from pointsman.near_cache.table.fast_path import FastPath, fast_path
from pointsman.near_cache.table.selections import CachedSelection
from pointsman.near_cache.table.table import Table
from pointsman.near_cache.table.view import View
from pointsman.near_cache.table_reads import TableReads
from pointsman.near_cache.watch.follower import Events, Follower
from pointsman.near_cache.watch.protocol import Apply, Confirm, Replace
from pointsman.near_cache.watch.service import RemoteService
from pointsman.results import Route

FORK_SECONDS = 2.0
CLOSE_SECONDS = 10.0

_LOG = logging.getLogger(__name__)
Slow = TypeVar("Slow")
SlowSelect = TypeVar("SlowSelect")


@dataclass(frozen=True, slots=True)
class TableChange:
    """What has just changed in the table. ``keys`` is None when a snapshot replaced it: any key may have changed.

    Where traffic has changed, the key is ``tenant/service/env``.
    """

    keys: tuple[str, ...] | None
    revision: int
    epoch: str


class BaseNearCache(ABC, Generic[Slow, SlowSelect]):
    """A table of routes in this process, kept current by watches in threads of their own.

    It starts when it is used for the first time: when it is entered, read, or waited for. A process that is forked
    starts one of its own in the same way. Safe to use from several threads.
    """

    def __init__(
        self,
        options: Options,
        connect: Callable[[], RemoteService],
        on_close: Callable[[Any], None],
        call_timeout: float,
    ) -> None:
        """``connect``: opens a channel in this process. ``on_close``: called with this when it is closed.

        ``call_timeout``: for how many seconds its client asks the server.
        """
        self._call_timeout = call_timeout
        self._options = options
        self._connect = connect
        self._on_close = on_close
        self._views = [View(each) for each in options.filters]
        self._counts = Counts()
        self._read_counts = ReadCounts()
        self._fast = fast_path(self._slow, self._slow_select, self._read_counts.sample)
        self._table = Table(self._views, options.max_stale, self._fast.use)
        self._reads = TableReads(self._table, options.on_stale, self._read_counts, self._counts)
        self._disk = DiskSnapshot(options.path) if options.path else None
        events = Events(self._on_written, self._on_ended)
        self._followers = [Follower(view, self._table, options.name, events, self._counts) for view in self._views]
        self._keeper = Keeper(self._followers, self._table, self._disk, self._read_counts, self._counts)
        self._callbacks: list[Callable[[TableChange], object]] = []
        # Guards the following; held during a fork.
        self._life = threading.RLock()
        self._changed = threading.Condition(threading.Lock())
        self._service: RemoteService | None = None
        self._resumes = False
        self._disk_was_read = False
        self._closed = False
        self.last_error: Exception | None = None
        """What the last stream ended with; None while every stream is well."""
        forks.follow_forks(self)

    # What callers ask

    @property
    def name(self) -> str:
        """What it is called where watchers are listed, and in statistics."""
        return self._options.name

    @property
    def revision(self) -> int:
        """The revision that the table has reached; the lowest of its watches. 0 before it is loaded."""
        return min(view.revision for view in self._views)

    @property
    def epoch(self) -> str:
        """The epoch that ``revision`` counts in; empty before it is loaded."""
        return min(self._views, key=lambda view: view.revision).epoch

    @property
    def age(self) -> float:
        """How many seconds ago the table was last known to have everything; infinite before it is loaded."""
        return max(0.0, time.monotonic() - min(view.confirmed_at for view in self._views))

    @property
    def live(self) -> bool:
        """Whether every watch is open, and has brought everything."""
        return all(view.live for view in self._views)

    @property
    def healthy(self) -> bool:
        """Whether the table is loaded and not stale: its age is at most ``max_stale``."""
        return all(view.usable for view in self._views) and self.age <= self._options.max_stale

    @property
    def disk_problem(self) -> str:
        """Why the snapshot on disk is not read or not written; empty if all is well, or there is none."""
        return self._disk.problem if self._disk else ""

    @property
    def closed(self) -> bool:
        """Whether it was closed: it cannot be used any more."""
        return self._closed

    def __len__(self) -> int:
        return sum(view.size for view in self._views)

    def __bool__(self) -> bool:
        return True

    def routes(self) -> list[Route]:
        """Return every live route of the table, all as of one moment, in the order of their keys.

        They may be behind a write that this client has just made. Raises NearCacheStale before the table is loaded: an
        empty list means that there are none.
        """
        self.start()
        with self._table.lock:
            if not all(view.usable for view in self._views):
                raise NearCacheStale("the near-cache is not loaded yet")
            _, _, entries, _ = self._table.entries()
        live = [entry.route for entry in entries if isinstance(entry, CachedResolution)]
        return sorted(live, key=lambda route: route.key)

    def keys(self) -> list[str]:
        """Return the keys of all routes in the table, active or not, in no order."""
        self.start()
        return self._table.keys()

    @property
    def fast_path(self) -> FastPath[Any, Any]:
        """The reads that neither start the near-cache nor wait for anything."""
        return self._fast

    @property
    def table_reads(self) -> TableReads:
        """The reads of the table alone. They neither start the near-cache nor ask the server."""
        return self._reads

    def statistics(self) -> Statistics:
        """Return what was counted, and the state now."""
        counts = self._counts.values()
        return Statistics(
            routes=len(self),
            revision=self.revision,
            age_seconds=self.age,
            live=self.live,
            healthy=self.healthy,
            reads=self._fast.reads() + counts["table_reads"],
            **{name: counts[name] for name in _COUNTED},
        )

    def on_change(self, callback: Callable[[TableChange], object]) -> Callable[[], None]:
        """Call ``callback`` after each change of the table, in the thread that applied it. Returns what ends that.

        Keep it short: the next changes wait. What it raises is logged and counted.
        """
        self._callbacks.append(callback)

        def end() -> None:
            with suppress(ValueError):
                self._callbacks.remove(callback)

        return end

    # Life

    def start(self) -> None:
        """Load the snapshot on disk, if there is one, and begin to watch. Does nothing when it has been started."""
        if self._runs():
            return
        with self._life:
            if self._runs():
                return
            self._read_disk()
            for view in self._views:
                self._table.refresh(view, at_least_until=self._served_from_disk_until(view))
            self._run(self._connect())

    def _runs(self) -> bool:
        if self._closed:
            raise RuntimeError("the near-cache is closed")
        return self._service is not None

    def _run(self, service: RemoteService) -> None:
        for follower in self._followers:
            follower.start(service)
        self._keeper.start(service)
        self._service = service

    def _halt(self, seconds: float) -> None:
        service, self._service = self._service, None
        if service is None:
            return
        for follower in self._followers:
            follower.stop()
        self._keeper.stop()
        for follower in self._followers:
            follower.join(seconds)
        self._keeper.join(seconds)
        service.close()

    def shut_down(self) -> None:
        """End every thread and the connection, and write the disk once more. Blocks for as long as that takes."""
        with self._life:
            if self._closed:
                return
            self._closed = True
            service = self._service
            if service is not None:
                self._keeper.finish(service)
            self._halt(CLOSE_SECONDS)
            self._table.suspend()
            if self._disk:
                self._disk.release()
        self._on_close(self)
        with self._changed:
            self._changed.notify_all()

    def _wait_ready(self, timeout: float | None) -> bool:
        self.start()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.live, timeout)
        return self.live

    def _read_disk(self) -> None:
        if self._disk is None:
            return
        self._disk.acquire()
        if self._disk_was_read:
            return
        self._disk_was_read = True
        stored = self._disk.read()
        if stored is not None:
            load(stored, self._table, time.time(), time.monotonic())
        elif self._disk.problem:
            self._counts.add("disk_failures")

    def _served_from_disk_until(self, view: View) -> float:
        """Return until when a view is served that no server has confirmed yet, whatever its age."""
        from_disk = view.loaded and not self._table.confirmed
        return time.monotonic() + self._options.max_stale if from_disk else -inf

    # Forks

    fork_order = 0

    def before_fork(self) -> None:
        """Close every stream, and hold what threads may hold."""
        self._life.acquire()
        self._resumes = self._service is not None
        try:
            self._halt(FORK_SECONDS)
        finally:
            self._table.lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on as before."""
        self._table.lock.release()
        try:
            if self._resumes:
                self._run(self._connect())
        finally:
            self._life.release()

    def after_fork_in_child(self) -> None:
        """Be another watcher, which starts when it is used."""
        self._table.lock.release()
        self._life.release()
        self._counts.after_fork()
        self._read_counts.after_fork()
        self._keeper.after_fork()
        self._changed = threading.Condition(threading.Lock())
        for follower in self._followers:
            follower.take_new_id()
        if self._disk:
            self._disk.release()
        if self._resumes:
            self._table.suspend()

    # What the client tells

    def floor(self, key: RouteKey | FamilyKey) -> Floor:
        """Return what readers may have seen of a key or family here: no answer from elsewhere may be older."""
        return self._table.floor(key)

    def saw(self, key: str, revision: int, epoch: str) -> None:
        """Take note of what the client was answered about a key: nothing older is shown from now on."""
        parts = key.split("/")
        self._table.saw(FamilyKey(*parts) if len(parts) == 3 else RouteKey(*parts), revision, epoch)

    def wrote(self, keys: Sequence[RouteKey | FamilyKey], revision: int, *, siblings: bool) -> None:
        """Take note of a write of the client; ``siblings``: of the other versions of the keys as well."""
        for key in keys:
            for each in [key, *self._table.siblings(key)] if siblings else [key]:
                self._table.saw(each, revision, "")  # a response to a write does not say its epoch

    def wrote_any(self, revision: int) -> None:
        """Take note of a write of the client whose response does not name all of its keys."""
        self._table.saw_any(revision)

    # Reads that the fast path does not answer

    def _within(self, timeout: float | None) -> float:
        """Return for how many seconds the server is asked in a call that may take ``timeout``; None: any time."""
        return self._call_timeout if timeout is None else min(timeout, self._call_timeout)

    def _slow(self, key: RouteKey | str) -> CachedResolution | Slow:
        """Answer a read. A ``RouteKey`` is looked up by its text: nothing else is a key of the table."""
        if isinstance(key, str):
            self.start()
            found = self._reads.resolve(key)
            return self._ask(key) if found is None else found
        return self._fast.resolve(str(as_key(key)))

    @abstractmethod
    def _ask(self, key: str) -> Slow:
        """Answer a read that the table cannot answer."""

    def _slow_select(self, family: FamilyKey | str, sticky_key: str) -> CachedSelection | SlowSelect:
        """Answer a select. A ``FamilyKey`` is looked up by its text, as a ``RouteKey`` is."""
        if isinstance(family, str):
            self.start()
            found = self._reads.select(family, sticky_key)
            return self._ask_select(family, sticky_key) if found is None else found
        return self._fast.select(str(as_family(family)), sticky_key)

    @abstractmethod
    def _ask_select(self, family: str, sticky_key: str) -> SlowSelect:
        """Answer a select that the table cannot answer."""

    # What the followers tell

    def _on_written(self, step: Replace[Any] | Apply | Confirm) -> None:
        if isinstance(step, Confirm):
            self.last_error = None
        elif self._callbacks and (isinstance(step, Replace) or step.changes):
            keys = tuple(key_text(change.key) for change in step.changes) if isinstance(step, Apply) else None
            self._call_back(TableChange(keys, step.as_of.revision, step.as_of.epoch))
        with self._changed:
            self._changed.notify_all()

    def _on_ended(self, error: Exception | None) -> None:
        self.last_error = error

    def _call_back(self, change: TableChange) -> None:
        for callback in tuple(self._callbacks):
            try:
                callback(change)
            except Exception:  # noqa: BLE001 - whatever the caller's code raises
                self._counts.add("callback_failures")
                _LOG.exception("a callback of on_change failed")


_COUNTED = (
    "absent",
    "stale",
    "refused",
    "calls",
    "snapshots",
    "changes",
    "streams",
    "stream_failures",
    "callback_failures",
    "disk_writes",
    "disk_failures",
)
