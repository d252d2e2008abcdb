"""The ports in memory, for unit tests. They pass the contract suite, so they behave like the engines.

Tests can also make them wait (``Gate``), make them fail, and read which calls they received.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Self

from pointsman_server.domain.api_keys import ApiKey, Minted
from pointsman_server.domain.errors import PointsmanError, StoreUnavailable
from pointsman_server.domain.identity import Grant
from pointsman_server.domain.routes import Change, Family, Route, RouteKey, Snapshot, Traffic
from pointsman_server.domain.traffic import Division, Target, allot
from pointsman_server.ports.cache import NOTHING, CacheUnavailable, Held, Lookup
from pointsman_server.ports.credentials import KeyDraft, KeyNameTaken, KeyNotFound
from pointsman_server.ports.store import (
    ChangeQuery,
    Clock,
    LockedState,
    MutationScope,
    RouteQuery,
    StoredOutcome,
    Table,
    TrafficQuery,
)

EPOCH = "5f0c3a52-6f0b-4b7c-9a53-0d4f3c9d2a10"
BIRTH = datetime(2024, 2, 29, 12, tzinfo=UTC)


class Gate:
    """Lets a test stop tasks at one point, so that it gets an interleaving without sleeping. Open at first."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._opened.set()
        self._arrived = asyncio.Condition()
        self.waiting = 0
        self.peak = 0

    def close(self) -> None:
        """Stop tasks that arrive from now on."""
        self._opened.clear()

    def open(self) -> None:
        """Let all tasks continue."""
        self._opened.set()

    async def arrivals(self, count: int = 1) -> None:
        """Wait until ``count`` tasks wait at the closed gate."""
        async with asyncio.timeout(30), self._arrived:
            await self._arrived.wait_for(lambda: self.waiting >= count)

    async def passing(self) -> None:
        """Wait while the gate is closed."""
        if self._opened.is_set():
            return
        async with self._arrived:
            self.waiting += 1
            self.peak = max(self.peak, self.waiting)
            self._arrived.notify_all()
        try:
            await self._opened.wait()
        finally:
            self.waiting -= 1


class ManualClock:
    """Monotonic seconds that only ``advance`` moves."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class MemoryStore:
    """``ports.RouteStore`` in memory.

    ``failure`` is raised by every method, ``commit_failure`` by the end of a transaction, which then rolls back unless
    ``commits_anyway``. Gates: ``before_read`` and ``after_read`` stop a load before and after it reads,
    ``before_commit`` stops a transaction before its commit, ``before_list`` a read of the history, ``before_scan`` a
    scan once it has read. ``refuses`` is
    called with the recorded changes, and may raise. ``groups`` has the number of mutations of each transaction.
    """

    def __init__(self) -> None:
        self.routes: dict[RouteKey, Route] = {}
        self.traffic: dict[RouteKey, Traffic] = {}
        self.changes: list[Change] = []
        self.requests: dict[tuple[str, str], StoredOutcome] = {}
        self.epoch = EPOCH
        self.revision = 0
        self.compacted_revision = 0
        self.compacted_at = datetime.max.replace(tzinfo=UTC)
        self.failure: Exception | None = None
        self.commit_failure: PointsmanError | None = None
        self.commits_anyway = False
        self.before_read = Gate()
        self.after_read = Gate()
        self.before_commit = Gate()
        self.before_list = Gate()
        self.before_scan = Gate()
        self.loads: list[list[RouteKey]] = []
        self.journal: list[str] = []
        self.groups: list[int] = []
        self.refuses: Callable[[Sequence[Change]], None] | None = None
        self.writing = asyncio.Lock()

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        self.loads.append(list(keys))
        await self.before_read.passing()
        self._check()
        found = [Snapshot(key, self._value(key), self.revision, self.epoch) for key in keys]
        await self.after_read.passing()
        return found

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["MemoryTransaction"]:
        self._check()
        async with AsyncExitStack() as locks:
            transaction = MemoryTransaction(self, locks)
            yield transaction
            self._check()
            await self.before_commit.passing()
            self.journal.append("commit")
            if self.commit_failure is None or self.commits_anyway:
                transaction.commit()
            if self.commit_failure:
                raise self.commit_failure

    async def list_routes(self, query: RouteQuery) -> list[Route]:
        self._check()
        found = [
            self.routes[key]
            for key in sorted(self.routes)
            if _matches(query.tenant, key.tenant)
            and _matches(query.service, key.service)
            and _matches(query.env, key.env)
            and (query.after is None or key > query.after)
        ]
        return [route for route in found if query.active in (None, route.active)][: query.limit]

    async def list_traffic(self, query: TrafficQuery) -> list[Traffic]:
        self._check()
        found = [
            self.traffic[key]
            for key in sorted(self.traffic)
            if _matches(query.tenant, key.tenant)
            and _matches(query.service, key.service)
            and _matches(query.env, key.env)
            and (query.after is None or key > query.after.family_key)
        ]
        return found[: query.limit]

    @asynccontextmanager
    async def scan(self, query: RouteQuery) -> AsyncIterator[Table]:
        self._check()
        clock, routes = Clock(self.epoch, self.revision), await self.list_routes(replace(query, limit=len(self.routes)))
        where = TrafficQuery(query.tenant, query.service, query.env, limit=len(self.traffic))
        traffic = await self.list_traffic(where)
        await self.before_scan.passing()

        async def batches() -> AsyncIterator[Sequence[Route]]:
            for start in range(0, len(routes), query.limit):
                self._check()
                yield routes[start : start + query.limit]

        yield Table(clock, batches(), traffic)

    async def list_changes(self, query: ChangeQuery) -> list[Change]:
        await self.before_list.passing()
        self._check()
        found = [
            change
            for change in self.changes
            if change.revision > query.after_revision
            and (not query.before_revision or change.revision < query.before_revision)
            and _matches(query.tenant, change.key.tenant)
            and _matches(query.service, change.key.service)
            and _matches(query.env, change.key.env)
            and _matches(query.version, change.key.version)
            and _matches(query.actor, change.actor)
        ]
        return (found[::-1] if query.newest_first else found)[: query.limit]

    async def compacted(self) -> int:
        self._check()
        return self.compacted_revision

    async def clock(self) -> Clock:
        self._check()
        return Clock(self.epoch, self.revision)

    def put(self, key: RouteKey, url: str = "https://old.internal", *, active: bool = True) -> Route:
        """Write a route at once, as another process would."""
        self.revision += 1
        moment = BIRTH + timedelta(seconds=self.revision)
        route = Route(key, url, active, {}, self.revision, moment, moment)
        self.routes[key] = route
        return route

    def remove(self, key: RouteKey) -> None:
        """Delete a route at once, as another process would."""
        self.revision += 1
        del self.routes[key]

    def divide(self, key: RouteKey, *targets: tuple[str, int], fallbacks: Sequence[str] = ()) -> Traffic:
        """Set the traffic of the family of ``key`` at once, as another process would; without targets, delete it."""
        self.revision += 1
        before = self.traffic.pop(key.family_key, None)
        division = Division(tuple(Target(*target) for target in targets), tuple(fallbacks))
        moment = BIRTH + timedelta(seconds=self.revision)
        slices = allot(division.targets, before.slices if before else ())
        born = before.create_time if before else moment
        traffic = Traffic(key.family_key, division, slices, self.revision, born, moment)
        if targets:
            self.traffic[traffic.key] = traffic
        return traffic

    def _value(self, key: RouteKey) -> Route | Family | None:
        if key.version:
            return self.routes.get(key)
        routes = [route for route in self.routes.values() if route.key.family_key == key]
        return known(Family.of(key, self.traffic.get(key), routes))

    def _check(self) -> None:
        if self.failure:
            raise self.failure


def known(family: Family) -> Family | None:
    """Return None for a family without routes and traffic."""
    return family if family.traffic or family.routes else None


class MemoryTransaction:
    """``ports.RouteTransaction`` in memory: it holds the lock until its end, and writes only in ``commit``."""

    def __init__(self, store: MemoryStore, locks: AsyncExitStack) -> None:
        self._store = store
        self._locks = locks
        self._changes: Sequence[Change] = ()
        self._remembered: Sequence[StoredOutcome] = ()

    async def lock(self, scopes: Sequence[MutationScope]) -> LockedState:
        await self._locks.enter_async_context(self._store.writing)
        self._store.journal.append("lock")
        self._store.groups.append(len(scopes))
        keys = {key for scope in scopes for key in (scope.key, *scope.others) if key.version}
        families = {scope.key.family_key for scope in scopes if scope.family}
        families |= {key for scope in scopes for key in scope.others if not key.version}
        routes = [route for key, route in self._store.routes.items() if key in keys or key.family_key in families]
        divided = families | {key for scope in scopes for key in scope.divided}
        traffic = [traffic for key, traffic in self._store.traffic.items() if key in divided]
        remembered = [self._store.requests.get((scope.key.tenant, scope.intent.request_id)) for scope in scopes]
        clock = Clock(self._store.epoch, self._store.revision)
        return LockedState(clock, datetime.now(UTC), routes, remembered, traffic)

    async def record(self, changes: Sequence[Change], remembered: Sequence[StoredOutcome]) -> None:
        self._store.journal.append("record")
        if self._store.refuses:
            self._store.refuses(changes)
        self._changes, self._remembered = changes, remembered

    def commit(self) -> None:
        """Make everything visible at once."""
        for change in self._changes:
            if change.traffic_after:
                self._store.traffic[change.key] = change.traffic_after
            elif change.kind.of_traffic:
                del self._store.traffic[change.key]
            elif change.after:
                self._store.routes[change.key] = change.after
            else:
                del self._store.routes[change.key]
        if self._changes:
            self._store.changes += self._changes
            self._store.revision = self._changes[-1].revision
        self._store.requests |= {(one.tenant, one.request_id): one for one in self._remembered}


@dataclass(slots=True)
class Entry:
    """The entry of one key in the memory cache: one Redis hash of ``adapters.redis.scripts``."""

    expires_at: float
    value: Snapshot | None = None
    lease: str = ""
    marks: set[str] = field(default_factory=set)


class MemoryCache:
    """``ports.RouteCache`` in memory. While ``down`` it cannot be reached; ``journal`` has the calls it received."""

    def __init__(self, now: ManualClock | None = None, *, ttl: float = 300.0, lease: float = 10.0) -> None:
        self.now = now or ManualClock()
        self.down = False
        self.after_get = Gate()
        self.before_fill = Gate()
        self.journal: list[tuple[str, list[RouteKey]]] = []
        self.entries: dict[RouteKey, Entry] = {}
        self._ttl = ttl
        self._lease = lease

    async def get(self, keys: Sequence[RouteKey], owner: str) -> list[Lookup]:
        self.journal.append(("get", list(keys)))
        if self.down:
            return [Lookup()] * len(keys)
        found = [self._look_up(key, owner) for key in keys]
        await self.after_get.passing()
        return found

    async def peek(self, key: RouteKey) -> Held:
        if self.down:
            raise CacheUnavailable("the memory cache is down")
        entry = self._entry(key)
        if entry is None:
            return Held()
        age = self._ttl - (entry.expires_at - self.now()) if entry.value and not entry.marks else None
        return Held(entry.value, age, bool(entry.marks), bool(entry.lease))

    async def fill(self, snapshots: Sequence[Snapshot], owner: str) -> None:
        await self.before_fill.passing()
        if not self._note("fill", snapshots):
            return
        for new in snapshots:
            entry = self._entry(new.key)
            if entry is None or entry.marks:
                continue
            if entry.value.as_of < new.as_of if entry.value else entry.lease == owner:
                entry.value, entry.lease, entry.expires_at = new, "", self.now() + self._ttl

    async def mark(self, keys: Sequence[RouteKey], owner: str, held: Sequence[RouteKey] = ()) -> None:
        self.journal.append(("mark", list(keys)))
        if held:
            await self.mark_held(held, owner)
        if self.down:
            return
        for key in keys:
            entry = self._entry(key) or self.entries.setdefault(key, Entry(0.0))
            entry.lease = ""
            entry.marks.add(owner)
            entry.expires_at = self.now() + self._lease

    async def settle(
        self, snapshots: Sequence[Snapshot], owner: str, dropped: Mapping[RouteKey, int] = NOTHING
    ) -> None:
        reachable = self._note("settle", snapshots)
        if dropped:
            clock = Clock(snapshots[0].epoch, snapshots[0].as_of)
            await self.drop_older(list(dropped), list(dropped.values()), clock, owner)
        if not reachable:
            return
        for new in snapshots:
            entry = self._entry(new.key)
            if entry is None:
                continue
            own = owner in entry.marks
            entry.marks.discard(owner)
            if entry.value is None or entry.value.as_of < new.as_of:
                entry.value, entry.lease = (new if own else None), ""
                if own and not entry.marks:
                    entry.expires_at = self.now() + self._ttl

    async def consume(self, snapshots: Sequence[Snapshot]) -> None:
        if not self._note("consume", snapshots):
            raise CacheUnavailable("the memory cache is down")
        for new in snapshots:
            entry = self._entry(new.key)
            if entry is None:
                continue
            if entry.value is None:
                entry.lease = ""
            elif entry.value.as_of < new.as_of:
                entry.value = new

    async def invalidate(self, keys: Sequence[RouteKey], revisions: Sequence[int], epoch: str) -> None:
        self.journal.append(("invalidate", list(keys)))
        if self.down:
            raise CacheUnavailable("the memory cache is down")
        for key, revision in zip(keys, revisions, strict=True):
            entry = self._entry(key)
            if entry is not None and (entry.value is None or entry.value.as_of < revision):
                entry.value, entry.lease = None, ""
                if not entry.marks:
                    del self.entries[key]

    async def mark_held(self, keys: Sequence[RouteKey], owner: str) -> None:
        self.journal.append(("mark_held", list(keys)))
        for key in keys if not self.down else ():
            entry = self._entry(key)
            if entry is not None:
                entry.lease = ""
                entry.marks.add(owner)
                entry.expires_at = self.now() + self._lease

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> None:
        self.journal.append(("drop_older", list(keys)))
        for key, revision in zip(keys, revisions, strict=True) if not self.down else ():
            entry = self._entry(key)
            if entry is None:
                continue
            if entry.value is None or entry.value.as_of < revision:
                del self.entries[key]
            else:
                entry.marks.discard(owner)

    async def ping(self) -> None:
        if self.down:
            raise CacheUnavailable("the memory cache is down")

    def flush(self) -> None:
        """Lose everything."""
        self.entries.clear()

    def _note(self, call: str, snapshots: Sequence[Snapshot]) -> bool:
        self.journal.append((call, [snapshot.key for snapshot in snapshots]))
        return not self.down

    def _look_up(self, key: RouteKey, owner: str) -> Lookup:
        entry = self._entry(key)
        if entry is None:
            self.entries[key] = Entry(self.now() + self._lease, lease=owner)
            return Lookup(leased=True)
        if entry.marks:
            return Lookup()
        if entry.value is None and not entry.lease:
            entry.lease, entry.expires_at = owner, self.now() + self._lease
            return Lookup(leased=True)
        return Lookup(entry.value)

    def _entry(self, key: RouteKey) -> Entry | None:
        entry = self.entries.get(key)
        if entry is not None and entry.expires_at <= self.now():
            del self.entries[key]
            return None
        return entry


def _matches(wanted: str, value: str) -> bool:
    return not wanted or wanted == value


class Wire:
    """A TCP proxy that a test can cut and mend; its address stays the same.

    ``replies`` holds back the bytes that come from the target.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.replies = Gate()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    async def mend(self) -> None:
        """Accept connections, on the same port every time."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse connections, and abort those that are open."""
        if self._server:
            self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        for source, sink, gate in ((reader, there_writer, Gate()), (there_reader, writer, self.replies)):
            self._connections.add(sink)
            pump = asyncio.create_task(self._pump(source, sink, gate))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: Gate) -> None:
        try:
            while data := await source.read(65536):
                await gate.passing()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._connections.discard(sink)
            sink.close()


class MemoryApiKeyStore:
    """``ports.ApiKeyStore`` in memory. While ``away`` it cannot be reached; ``reads`` counts calls of ``known``."""

    def __init__(self) -> None:
        self.keys: list[ApiKey] = []
        self.away = False
        self.reads = 0

    async def known(self) -> list[ApiKey]:
        self._reach()
        self.reads += 1
        since = datetime.now(UTC) - timedelta(days=30)
        recent = [
            key for key in self.keys if min(filter(None, (key.revoked_at, key.expires_at)), default=NEVER) > since
        ]
        return sorted(recent, key=lambda key: (key.name, key.created_at, key.id))

    async def create(self, draft: KeyDraft, minted: Minted) -> ApiKey:
        self._reach()
        if self._current(draft.name):
            raise KeyNameTaken(draft.name)
        return self._add(draft, minted, draft.grants)

    async def rotate(self, draft: KeyDraft, minted: Minted, overlap: timedelta) -> ApiKey:
        self._reach()
        old = self._current(draft.name)
        if old is None:
            raise KeyNotFound(draft.name)
        now = datetime.now(UTC)
        self._put(replace(old, replaced_at=now, expires_at=min(old.expires_at or NEVER, now + overlap)))
        return self._add(draft, minted, old.grants)

    async def revoke(self, name_or_id: str, by: str) -> list[ApiKey]:
        self._reach()
        meant = [key for key in self.keys if name_or_id in (key.name, key.id) and self._lives(key)]
        if not meant:
            raise KeyNotFound(name_or_id)
        ended = [replace(key, revoked_at=datetime.now(UTC), revoked_by=by) for key in meant]
        for key in ended:
            self._put(key)
        return ended

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable

    def _lives(self, key: ApiKey) -> bool:
        return not key.revoked_at and not key.expired(datetime.now(UTC).timestamp())

    def _current(self, name: str) -> ApiKey | None:
        return next((key for key in self.keys if key.name == name and not key.replaced_at and self._lives(key)), None)

    def _add(self, draft: KeyDraft, minted: Minted, grants: tuple[Grant, ...]) -> ApiKey:
        now = datetime.now(UTC)
        expires = None if draft.lifetime is None else now + draft.lifetime
        key = ApiKey(minted.id, draft.name, minted.digest, grants, now, draft.created_by, expires)
        self.keys.append(key)
        return key

    def _put(self, key: ApiKey) -> None:
        self.keys = [key if each.id == key.id else each for each in self.keys]


NEVER = datetime.max.replace(tzinfo=UTC)
