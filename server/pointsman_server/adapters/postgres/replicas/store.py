"""``ports.RouteStore`` on a primary and its replicas: what each read asks of which, and in which order."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NoReturn

import psycopg

from pointsman_server.adapters.postgres.connection import BEGIN_SNAPSHOT, Statement, Step
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.replicas.replica import Head, Refused, Replica, compare
from pointsman_server.adapters.postgres.snapshots import Load, snapshots
from pointsman_server.adapters.postgres.store import (
    SCAN_STATEMENTS,
    PostgresStore,
    list_on,
    scan_on,
)
from pointsman_server.domain.errors import Overloaded, RetryLater
from pointsman_server.domain.routes import Change, Route, RouteKey, Snapshot, Traffic
from pointsman_server.ports.store import ChangeQuery, Clock, RouteQuery, RouteTransaction, Table, TrafficQuery

# A replica that lacks more changes is left out: the primary would have to read them for every confirmation.
MOST_BEHIND = 1000
AHEAD_SECONDS = 0.1
# What a replica does not answer by then the primary is asked, and the caller still waits.
PATIENCE_SECONDS = 1.0

HEAD = """
SELECT epoch::text, revision, (SELECT h.event_id::text FROM route_changes AS h WHERE h.revision = clock.revision)
  FROM clock
"""
CHECK = Step(Statement("replica_head", HEAD))
# Without a name, because it follows the beginning of a snapshot.
HEAD_OF_SNAPSHOT = Step(Statement("", HEAD))

LOAD = Load("replica_load", HEAD)

# $1: the revision of a replica, $2: the most changes to read. Without keys when the replica lacks more.
CONFIRM = Statement(
    "confirm",
    """
SELECT epoch::text, revision, (SELECT h.event_id::text FROM route_changes AS h WHERE h.revision = $1::bigint),
       CASE WHEN revision - $1::bigint <= $2::bigint THEN ARRAY(
           SELECT h.tenant || '/' || h.service || '/' || h.env || '/' || h.version
             FROM route_changes AS h WHERE h.revision > $1::bigint) END
  FROM clock
""",
)


class ReplicatedStore:
    """``ports.RouteStore`` on a primary and its replicas.

    ``read`` is called with ``primary`` or ``replica`` for each read that it answered. ``fell_back`` is called for each
    read that a replica was asked for and the primary answered, with the reason:

    - ``down``: it did not answer within ``patience`` seconds; ``busy``: all connections to it are in use;
    - ``behind``: it lacks too many changes; ``changed``: what was read has changed since;
    - ``ahead``: it has a change that the primary does not show yet; ``other``: it is of another history.
    """

    def __init__(
        self,
        primary: PostgresStore,
        database: Database,
        replicas: Sequence[Database],
        *,
        patience: float = PATIENCE_SECONDS,
        read: Callable[[str], None] = lambda _source: None,
        fell_back: Callable[[str], None] = lambda _reason: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``database`` is that of the primary."""
        self.replicas = [Replica(each) for each in replicas]
        self._primary = primary
        self._database = database
        self._patience = patience
        self._read = read
        self._fell_back = fell_back
        self._now = now
        self._turn = 0

    async def open(self) -> None:
        """Start to connect to the replicas. None is used before ``check``."""
        for replica in self.replicas:
            await replica.database.open()

    async def close(self) -> None:
        for replica in self.replicas:
            await replica.database.close()

    async def check(self) -> None:
        """Compare every replica with the primary, to leave it out or to take it back.

        Raises StoreUnavailable or Overloaded when the primary does not answer.
        """
        await asyncio.gather(*(self._check(replica) for replica in self.replicas))

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        if keys and (replica := self._next()):
            try:
                return await self._load(replica, keys)
            except Refused as refused:
                self._fell_back(refused.reason)
        self._read("primary")
        return await self._primary.load(keys)

    async def list_routes(self, query: RouteQuery) -> list[Route]:
        if replica := self._next():
            try:
                return await self._list(replica, query)
            except Refused as refused:
                self._fell_back(refused.reason)
        self._read("primary")
        return await self._primary.list_routes(query)

    async def list_traffic(self, query: TrafficQuery) -> list[Traffic]:
        return await self._primary.list_traffic(query)

    def scan(self, query: RouteQuery) -> AbstractAsyncContextManager[Table]:
        return self._scan(self._next(), query)

    def begin(self) -> AbstractAsyncContextManager[RouteTransaction]:
        return self._primary.begin()

    async def list_changes(self, query: ChangeQuery) -> list[Change]:
        return await self._primary.list_changes(query)

    async def compacted(self) -> int:
        return await self._primary.compacted()

    async def clock(self) -> Clock:
        return await self._primary.clock()

    def _next(self) -> Replica | None:
        """Choose one of the replicas that are used, in turn."""
        usable = [replica for replica in self.replicas if replica.refused is None]
        if not usable:
            return None
        self._turn += 1
        return usable[self._turn % len(usable)]

    async def _check(self, replica: Replica) -> None:
        try:
            async with self._asking(replica, self._patience):
                ((head,),) = await replica.database.exchange(CHECK)
            try:
                await self._confirm(replica, Head(*head), lambda _changed: False)
            except Refused as refused:
                if refused.reason != "ahead":
                    raise
                # A standby may show a commit a moment before the primary does. It is on its own if it stays ahead.
                await asyncio.sleep(AHEAD_SECONDS)
                await self._confirm(replica, Head(*head), lambda _changed: False)
        except Refused as refused:
            if refused.reason != "busy":
                replica.leave_out(refused, self._now())
        else:
            replica.take_back(self._now())

    async def _load(self, replica: Replica, keys: Sequence[RouteKey]) -> list[Snapshot]:
        async with self._asking(replica, self._patience):
            (rows,) = await replica.database.exchange(LOAD.step(keys))
        clock = await self._confirm(replica, Head(*rows[0][:3]), partial(_touch_any, keys))
        self._read("replica")
        return snapshots(keys, [(clock.epoch, clock.revision, *row[3:]) for row in rows])

    async def _list(self, replica: Replica, query: RouteQuery) -> list[Route]:
        async with self._asking(replica, self._patience), replica.database.connection() as connection:
            _, (head,) = await connection.exchange(BEGIN_SNAPSHOT, HEAD_OF_SNAPSHOT)
            routes = await list_on(connection, query)
        await self._confirm(replica, Head(*head), partial(_touches, query))
        self._read("replica")
        return routes

    @asynccontextmanager
    async def _scan(self, replica: Replica | None, query: RouteQuery) -> AsyncIterator[Table]:
        if replica is None:
            self._read("primary")
            async with self._primary.scan(query) as table:
                yield table
            return
        try:
            async with AsyncExitStack() as stack:
                table = await self._begin_scan(stack, replica, query)
                yield table
        except Refused as refused:
            # Raised before the table was given away.
            self._fell_back(refused.reason)
        except RetryLater:
            # Perhaps in the middle of the table: the caller begins again, and not at this replica.
            replica.leave_out(Refused("down", "failed in a snapshot"), self._now())
            raise
        else:
            return
        async with self._scan(None, query) as table:
            yield table

    async def _begin_scan(self, stack: AsyncExitStack, replica: Replica, query: RouteQuery) -> Table:
        # Bounded as every scan is: the connection is lent for all of it.
        async with self._asking(replica, None):
            lent = replica.database.connection(statements=SCAN_STATEMENTS)
            connection = await stack.enter_async_context(lent)
            _, (head,) = await connection.exchange(BEGIN_SNAPSHOT, HEAD_OF_SNAPSHOT)
        clock = await self._confirm(replica, Head(*head), partial(_touches, query))
        batches, traffic = await stack.enter_async_context(scan_on(connection, query))
        self._read("replica")
        return Table(clock, batches, traffic)

    async def _confirm(self, replica: Replica, head: Head, touches: Callable[[set[RouteKey]], bool]) -> Clock:
        """Return the clock of the primary at which what was read at ``head`` is true. Raises Refused.

        ``touches`` says whether changes of these keys change what was read. Raises StoreUnavailable and Overloaded when
        the primary does not answer.
        """
        step = Step(CONFIRM, [str(head.revision), str(MOST_BEHIND)])
        (((epoch, revision, event, changed),),) = await self._database.exchange(step)
        replica.lag = max(0, revision - head.revision)
        primary = Head(str(epoch), revision, event)
        if refused := compare(head, primary, len(changed or ())):
            if refused.reason != "ahead":
                replica.leave_out(refused, self._now())
            raise refused
        if changed and touches({RouteKey(*name.split("/")) for name in changed}):
            raise Refused("changed", "lacks a change of what was read")
        return Clock(primary.epoch, revision)

    @asynccontextmanager
    async def _asking(self, replica: Replica, seconds: float | None) -> AsyncIterator[None]:
        """Leave the replica out, and raise Refused, if it does not answer in time."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except Overloaded as error:
            raise Refused("busy", replica.database.explain(error)) from error
        except (RetryLater, psycopg.Error) as error:
            self._leave_out(replica, replica.database.explain(error), error)
        except TimeoutError as error:
            self._leave_out(replica, f"does not answer within {seconds:g} s", error)

    def _leave_out(self, replica: Replica, text: str, cause: Exception) -> NoReturn:
        refused = Refused("down", text)
        replica.leave_out(refused, self._now())
        raise refused from cause


def _touch_any(keys: Sequence[RouteKey], changed: Collection[RouteKey]) -> bool:
    """Return whether a change of ``changed`` is one of ``keys``: of a route, or of anything in a family."""
    families = {key.family_key for key in changed}
    return not (families.union(changed)).isdisjoint(keys)


def _touches(query: RouteQuery, changed: Collection[RouteKey]) -> bool:
    """Return whether a route or traffic of ``changed`` may belong to what ``query`` reads."""
    wanted = (query.tenant, query.service, query.env)
    return any(all(not want or want == part for want, part in zip(wanted, key, strict=False)) for key in changed)
