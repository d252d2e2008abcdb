"""``ports.AuditLog`` on PostgreSQL: changes in ``audit_log``, links in ``audit_chain``; both are append-only."""

import logging
from collections.abc import AsyncIterator, Iterable, Sequence

from pointsman_server.adapters.postgres.connection import Connection
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.lineage import PostgresLineage
from pointsman_server.audit.hash_chain import Entry, canonical, genesis, link
from pointsman_server.domain.routes import Change
from pointsman_server.ports.audit_log import Lineage, Span
from pointsman_server.telemetry.tracing import spans

logger = logging.getLogger(__name__)

# Held until the commit, so that the next transaction sees every row and link of the one before.
LOCK = "SELECT pg_advisory_xact_lock(%s)"
LOCK_NUMBER = 0x6175646974  # "audit"
# Links made in one transaction: after an upgrade or in a new database there may be many to make.
WINDOW = 2000

# Returns the revisions that are stored with another change: the first one is kept. What is compacted, and comes again
# from the broker, stays away.
APPEND = """
WITH arrived AS (
    SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bytea[]) AS a (epoch, revision, change)
     WHERE NOT EXISTS (SELECT FROM audit_compactions c WHERE c.epoch = a.epoch AND c.revision >= a.revision)
), added AS (
    INSERT INTO audit_log (epoch, revision, change) SELECT * FROM arrived ON CONFLICT (epoch, revision) DO NOTHING
)
SELECT a.epoch, a.revision FROM arrived AS a JOIN audit_log AS l USING (epoch, revision) WHERE l.change <> a.change
"""

HEAD = "SELECT revision, hash FROM audit_chain WHERE epoch = %s ORDER BY revision DESC LIMIT 1"

# No rows while the next revision is missing, because many may wait behind it. The casts: the driver sends a small
# number as a small integer type, in which the sum may be out of range.
NEXT = """
SELECT revision, change FROM audit_log
 WHERE epoch = %(epoch)s AND revision > %(head)s AND revision <= %(head)s::bigint + %(window)s
   AND EXISTS (SELECT FROM audit_log WHERE epoch = %(epoch)s AND revision = %(head)s::bigint + 1)
 ORDER BY revision
"""

LINK = "INSERT INTO audit_chain (epoch, revision, hash) SELECT %s, * FROM unnest(%s::bigint[], %s::bytea[])"

# A compaction may be in the middle of its work: what it deletes does not count.
ENTRIES = """
SELECT * FROM (
    SELECT epoch, revision, change, audit_chain.hash, anchor.hash AS anchor
      FROM audit_log FULL JOIN audit_chain USING (epoch, revision)
      FULL JOIN audit_compactions AS anchor USING (epoch, revision)
) AS entry
 WHERE NOT EXISTS (SELECT FROM audit_compactions AS c WHERE c.epoch = entry.epoch AND c.revision > entry.revision)
 ORDER BY epoch, revision
"""

Head = tuple[int, bytes]


class PostgresAuditLog:
    """The audit log in ``database``; ``lineage`` is that of the store, which may lie in another one."""

    def __init__(self, database: Database, lineage: Lineage | None = None) -> None:
        self._database = database
        self._lineage = lineage or PostgresLineage(database)
        self._spans: dict[str, Span] = {}

    async def append(self, changes: Sequence[Change]) -> None:
        with spans.span("append to the audit log", attributes={"pointsman.changes": len(changes)}):
            await self._append(changes)

    async def _append(self, changes: Sequence[Change]) -> None:
        epochs = sorted({change.epoch for change in changes})
        firsts = {epoch: await self._first(epoch) for epoch in epochs}
        async with self._database.connection() as connection:
            await connection.execute(LOCK, [LOCK_NUMBER])
            columns = ([c.epoch for c in changes], [c.revision for c in changes], [canonical(c) for c in changes])
            others = await (await connection.execute(APPEND, columns)).fetchall()
            for epoch in epochs:
                await _extend(connection, epoch, firsts[epoch])
        for epoch, revision in others:
            logger.error("another change came as revision %d of epoch %s: the first one is kept", revision, epoch)

    async def extend(self, span: Span) -> int:
        head, before = span.first - 1, -1
        while head != before:
            before = head
            async with self._database.connection() as connection:
                await connection.execute(LOCK, [LOCK_NUMBER])
                head = await _extend(connection, span.epoch, span.first) or head
        return head

    async def ping(self) -> None:
        """Raise StoreUnavailable unless the log is there."""
        async with self._database.connection() as connection:
            await connection.execute("SELECT FROM audit_chain LIMIT 1")

    async def last_contiguous(self) -> int:
        """Return the revision up to which nothing is missing of the history."""
        last = 0
        for span in await self._lineage.spans():
            last = await self.extend(span)
            if last < span.last:
                break
        return last

    async def entries(self) -> AsyncIterator[Entry]:
        """Stream everything that is there now, in the order of epoch and revision. Raises StoreUnavailable."""
        connection = await self._database.dedicated()
        try:
            with self._database.translated():
                await connection.set_autocommit(False)
                # A whole log takes longer than any statement timeout; the cursor bounds the memory.
                await connection.execute("SET LOCAL statement_timeout = 0")
                await connection.execute("SET LOCAL enable_hashjoin = off")
                async with connection.cursor("audit_entries") as cursor:
                    cursor.itersize = WINDOW
                    await cursor.execute(ENTRIES)
                    async for row in cursor:
                        yield Entry(*row)
        finally:
            await connection.close()

    async def _first(self, epoch: str) -> int | None:
        """Find the first revision of an epoch. None when the history does not know it: it was lost in a restore."""
        if epoch not in self._spans:
            self._spans = {span.epoch: span for span in await self._lineage.spans()}
        span = self._spans.get(epoch)
        return span.first if span else None


async def _extend(connection: Connection, epoch: str, first: int | None) -> int | None:
    """Extend the chain by up to ``WINDOW`` links; the lock must be held. Returns its last revision, if it has begun."""
    row = await (await connection.execute(HEAD, [epoch])).fetchone()
    head: Head | None = (row[0], row[1]) if row else None
    links: list[Head] = []
    if head is None:
        if first is None:
            return None
        head = (first - 1, genesis(epoch))
        links.append(head)
    values = {"epoch": epoch, "head": head[0], "window": WINDOW}
    links += _links(head, await (await connection.execute(NEXT, values)).fetchall())
    if links:
        await connection.execute(LINK, [epoch, [number for number, _ in links], [digest for _, digest in links]])
        head = links[-1]
    return head[0]


def _links(head: Head, rows: Iterable[Sequence[object]]) -> list[Head]:
    """Link rows to ``head``, up to the first gap."""
    links = []
    for revision, change in rows:
        if revision != head[0] + 1 or not isinstance(change, bytes):
            break
        head = (head[0] + 1, link(head[1], change))
        links.append(head)
    return links
