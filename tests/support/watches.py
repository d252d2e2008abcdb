"""Watch on a store of a test: the parts of a server wired together, and a client that checks the protocol."""

import asyncio
from collections.abc import Sequence
from typing import Any

from pointsman.v1 import watch_pb2 as pb
from pointsman.v1.route_pb2 import Route, RouteChange
from pointsman.v1.traffic_pb2 import Traffic
from pointsman_server.domain.codec import key_from_message, route_to_message, traffic_to_message
from pointsman_server.domain.routes import Change, RouteKey, Wanted
from pointsman_server.events.feed import Feed
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.history import History, Retention
from pointsman_server.events.watch.hub import BEATS, WatchHub
from pointsman_server.events.watch.snapshots import Snapshots
from pointsman_server.events.watch.streams import WatchStreams
from pointsman_server.ports.broker import ChangeStream
from pointsman_server.ports.store import Clock, Intent, RouteStore
from pointsman_server.rpc.methods.watch import WatchMethod
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.writes.bulk_import import BulkImporter, Import
from pointsman_server.writes.group_commit import GroupCommitter
from tests.support.bulk_fakes import MemoryBulkStore
from tests.support.fakes import Gate, ManualClock, MemoryCache, MemoryStore

INTENT = Intent("tester")
ALL = Filter()
# More than any work of a test takes; each is one iteration of the event loop.
MANY_ITERATIONS = 400


def watch_method(store: RouteStore) -> WatchMethod:
    """Return the method on a hub that no feed reaches."""
    fair_share = FairShare()
    hub = WatchHub(fair_share)
    snapshots, history = Snapshots(store, fair_share, hub.covers), History(store, fair_share)
    return WatchMethod(WatchStreams(hub, snapshots, history, store, fair_share))


class Violation(AssertionError):
    """What a stream sent breaks the protocol."""


class Eras:
    """The history of each epoch of a store, also of those that are over."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._changes: dict[str, Sequence[Change]] = {}

    @property
    def now(self) -> Clock:
        return Clock(self._store.epoch, self._store.revision)

    def changes(self, epoch: str) -> Sequence[Change]:
        self._changes[self._store.epoch] = self._store.changes
        return self._changes[epoch]

    def table(self, clock: Clock, wanted: Filter) -> dict[RouteKey, Route | Traffic]:
        """Return the routes and the traffic of a filter as of ``clock``.

        Raises Violation where that is within a change set.
        """
        table: dict[RouteKey, Route | Traffic] = {}
        for change in self.changes(clock.epoch):
            if change.revision > clock.revision:
                break
            if change.change_set_end > clock.revision:
                raise Violation(f"half of the set to {change.change_set_end} as of {clock.revision}")
            if not wanted.matches(change.key):
                continue
            if change.after:
                table[change.key] = route_to_message(change.after)
            elif change.traffic_after:
                table[change.key] = traffic_to_message(change.traffic_after)
            else:
                table.pop(change.key, None)
        return table


class Replica:
    """A client of one filter: it applies events to a table, and compares that with the history.

    ``gate`` holds its stream up, as a client does that does not read.
    """

    def __init__(self, eras: Eras, wanted: Filter = ALL) -> None:
        self.filter = wanted
        self.table: dict[RouteKey, Route | Traffic] = {}
        self.position: Clock | None = None
        self.events: list[pb.WatchResponse] = []
        self.gate = Gate()
        self._eras = eras
        self._routes: list[Route] = []
        self._traffic: list[Traffic] = []
        self._partial: list[RouteChange] = []
        self._has_traffic = False

    def kinds(self) -> list[str | None]:
        return [event.WhichOneof("event") for event in self.events]

    def revisions(self) -> list[int]:
        """Return those of all changes received."""
        return [change.revision for event in self.events for change in event.changes.changes]

    def begin(self) -> None:
        """Forget what an earlier stream left unfinished."""
        self._routes, self._traffic, self._partial = [], [], []
        self._has_traffic = False

    async def write(self, encoded: bytes) -> None:
        await self.gate.passing()
        event = pb.WatchResponse.FromString(encoded)
        self.events.append(event)
        kind = event.WhichOneof("event")
        if kind is None:
            raise Violation("an empty event")
        if self._partial and kind != "changes":
            raise Violation(f"{kind} within a change set")
        if self.filter.traffic and kind != "opened" and not self._has_traffic:
            raise Violation(f"{kind} before the stream says that it has traffic")
        getattr(self, f"_{kind}")(getattr(event, kind))

    def _opened(self, opened: pb.Opened) -> None:
        if self._has_traffic or not self.filter.traffic or not opened.traffic:
            raise Violation("it was opened already, or traffic was not asked for")
        self._has_traffic = True

    def _snapshot(self, batch: pb.SnapshotBatch) -> None:
        if batch.routes and self._traffic:
            raise Violation("routes after traffic")
        self._routes += batch.routes
        self._traffic += batch.traffic

    def _end_of_snapshot(self, end: pb.EndOfSnapshot) -> None:
        routes, traffic = self._routes, self._traffic
        self._routes, self._traffic = [], []
        if (len(routes), len(traffic)) != (end.route_count, end.traffic_count):
            raise Violation(f"{len(routes)} routes and {len(traffic)} traffic, not {end}")
        keys = [key_from_message(route.key) for route in routes]
        families = [RouteKey(one.tenant, one.service, one.env, "") for one in traffic]
        if keys != sorted(set(keys)) or families != sorted(set(families)):
            raise Violation("a snapshot out of order")
        self.table = dict(zip([*keys, *families], [*routes, *traffic], strict=True))
        self._reach(end.as_of, anew=True)

    def _changes(self, changes: pb.ChangeSet) -> None:
        if self.position is None:
            raise Violation("changes before a snapshot")
        self._partial += changes.changes
        if changes.partial:
            if changes.HasField("as_of"):
                raise Violation("a part that can be resumed from")
            return
        whole, self._partial = self._partial, []
        revisions = [change.revision for change in whole]
        if not whole or revisions != sorted(set(revisions)) or revisions[0] <= self.position.revision:
            raise Violation(f"{revisions} after {self.position.revision}")
        for change in whole:
            self._change(change)
        self._reach(changes.as_of)

    def _change(self, change: RouteChange) -> None:
        key = key_from_message(change.key)
        if not key.version and not self.filter.traffic:
            raise Violation("a change of traffic that was not asked for")
        if change.HasField("after"):
            self.table[key] = change.after
        elif change.HasField("traffic_after"):
            self.table[key] = change.traffic_after
        else:
            self.table.pop(key, None)

    def _checkpoint(self, checkpoint: pb.Checkpoint) -> None:
        if self.position is None:
            raise Violation("a checkpoint before a snapshot")
        self._reach(checkpoint.as_of)

    def _reset(self, _reset: pb.Reset) -> None:
        self.position = None

    def _reach(self, token: pb.ResumeToken, *, anew: bool = False) -> None:
        reached = Clock(token.epoch, token.revision)
        before = self.position
        if before and not anew and (before.epoch != reached.epoch or before.revision > reached.revision):
            raise Violation(f"from {before} to {reached}")
        self.position = reached
        expected = self._eras.table(reached, self.filter)
        if self.table != expected:
            have, should = ({key: entry.revision for key, entry in table.items()} for table in (self.table, expected))
            differing = {str(key): (have.get(key), should.get(key)) for key in {*have, *should}}
            differing = {key: pair for key, pair in differing.items() if pair[0] != pair[1]}
            raise Violation(f"another table as of {reached}, after {before} and {self.kinds()[-5:]}: {differing}")


class WatchServer:
    """What a server has for Watch, on a store in memory; its tasks run from ``start`` to ``stop``."""

    def __init__(self, stream: ChangeStream | None = None, *, recent: int = 10_000, **retention: Any) -> None:
        self.now = ManualClock()
        self.store = MemoryStore()
        self.eras = Eras(self.store)
        self.fair_share = FairShare()
        self.hub = WatchHub(self.fair_share, recent_changes=recent, now=self.now)
        self.feed = Feed(self.store, stream, poll_seconds=0, now=self.now)
        self.hub.use(self.feed)
        self.committer = GroupCommitter(self.store, MemoryCache(), lambda _: None, self.feed.on_committed)
        bulk = MemoryBulkStore(self.store)
        self.importer = BulkImporter(bulk, MemoryCache(), lambda _keys, _revisions: None, self.feed.on_imported)
        self.snapshots = Snapshots(self.store, self.fair_share, self.hub.covers, now=self.now)
        self.history = History(self.store, self.fair_share, Retention(**retention))
        self.streams = WatchStreams(self.hub, self.snapshots, self.history, self.store, self.fair_share)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.feed.step()
        self._tasks = [asyncio.create_task(self.hub.send_changes()), asyncio.create_task(self._feed())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _feed(self) -> None:
        while True:
            await self.feed.step()

    def watch(self, replica: Replica, *, anew: bool = False) -> asyncio.Task[None]:
        """Open a stream that goes on from what the replica has, or begins ``anew``."""
        replica.begin()
        resume = None if anew else replica.position
        return asyncio.create_task(self.streams.serve(replica.filter, resume, replica.write))

    async def import_(self, keys: Sequence[RouteKey], url: str) -> None:
        await self.importer.import_(Import([Wanted(key, url) for key in keys]), INTENT)

    async def beats(self) -> None:
        """Send every stream a checkpoint."""
        for _ in range(BEATS):
            await self.hub.beat()

    async def settle(self) -> None:
        """Let everything that can go on do so."""
        await iterations(MANY_ITERATIONS)


async def iterations(count: int) -> None:
    """Run so many iterations of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def stopped(stream: asyncio.Task[None]) -> BaseException | None:
    """End a stream, and return what had ended it before, if anything had."""
    stream.cancel()
    (outcome,) = await asyncio.gather(stream, return_exceptions=True)
    return None if isinstance(outcome, asyncio.CancelledError) else outcome
