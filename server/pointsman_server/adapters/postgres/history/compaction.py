"""Delete old changes from the history, and old rows from the audit log, and keep what is left verifiable.

The words are etcd's: what is *compacted* up to a revision cannot be read any more, and everything later can.

Invariants:

- A row up to which the tables are compacted is committed before the first row is deleted; triggers refuse to delete
  anything later. So who reads the history, and afterwards a compacted revision that is not above where the read began,
  has read it without a gap (``RouteStore.compacted``).
- The history keeps what the broker or the audit log does not have yet, and never a part of a change set.
- The audit log keeps the link of the revision up to which it is compacted: the next link continues it.
- A compaction that is interrupted is finished by the next one.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pointsman_server.adapters.postgres.connection import Connection
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.store import COMPACTED

# Rows deleted in one transaction: other sessions never wait long, and a replica stays near.
BATCH = 5000

FIRST = "SELECT coalesce(min(revision), 0), coalesce(max(revision), 0) FROM route_changes"
OLD = "SELECT occurred_at < now() - %s FROM route_changes WHERE revision >= %s ORDER BY revision LIMIT 1"
PUBLISHED = "SELECT revision FROM relay"
# The last revision, at or before the given one, at which a change set ends.
WHOLE_SETS = """
SELECT revision FROM route_changes
 WHERE revision <= %s AND greatest(revision, change_set_end) <= %s ORDER BY revision DESC LIMIT 1
"""
COMPACT = "INSERT INTO history_compactions (revision) VALUES (%s) ON CONFLICT DO NOTHING"
DELETE = "DELETE FROM route_changes WHERE revision <= %s"

AUDIT_EPOCHS = """
SELECT epoch, min(revision), max(revision) FROM audit_chain GROUP BY epoch ORDER BY 1
"""
# Rows arrive out of order: all of those up to the one before are older.
AUDIT_YOUNG = "SELECT min(revision) FROM audit_log WHERE epoch = %s AND recorded_at >= now() - %s"
AUDIT_COMPACT = """
INSERT INTO audit_compactions (epoch, revision, hash)
SELECT epoch, revision, hash FROM audit_chain WHERE epoch = %s AND revision = %s ON CONFLICT DO NOTHING
"""
AUDIT_FIRST = """
SELECT least((SELECT min(revision) FROM audit_log WHERE epoch = %(epoch)s AND revision <= %(revision)s),
             (SELECT min(revision) FROM audit_chain WHERE epoch = %(epoch)s AND revision < %(revision)s))
"""
AUDIT_DELETE = (
    "DELETE FROM audit_log WHERE epoch = %(epoch)s AND revision <= %(until)s",
    "DELETE FROM audit_chain WHERE epoch = %(epoch)s AND revision <= %(until)s AND revision < %(revision)s",
)


@dataclass(frozen=True, slots=True)
class HistoryPlan:
    """What a compaction of the history would do: delete ``rows`` rows, those up to ``revision``.

    ``held_by`` names what keeps rows that are old enough: "the broker" or "the audit log", which do not have them yet.
    """

    revision: int
    rows: int
    held_by: str = ""


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """What a compaction of one epoch of the audit log would do: delete ``rows`` rows, those up to ``revision``."""

    epoch: str
    revision: int
    rows: int


class HistoryCompaction:
    """The compaction of ``route_changes``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def plan(self, older_than: timedelta, audited: int) -> HistoryPlan:
        """Find what is older, published, and not above ``audited``. Raises StoreUnavailable."""
        async with self._database.connection() as connection:
            first, last = await _row(connection, FIRST)
            old = await _last_old(connection, older_than, first, last)
            (published,) = await _row(connection, PUBLISHED)
            allowed = min(old, published, audited)
            held_by = "" if allowed == old else "the broker" if published < audited else "the audit log"
            (compacted,) = await _row(connection, COMPACTED.statement.sql)
            (revision,) = await _row(connection, WHOLE_SETS, allowed, allowed) or (0,)
            revision = max(revision, compacted)
            return HistoryPlan(revision, max(0, revision - first + 1) if first else 0, held_by)

    async def run(self, plan: HistoryPlan) -> AsyncIterator[int]:
        """Compact, and yield the number of rows after each transaction. Raises StoreUnavailable."""
        if not plan.revision:
            return
        async with self._database.connection() as connection:
            await connection.execute(COMPACT, [plan.revision])
        while True:
            async with self._database.connection() as connection:
                first, _ = await _row(connection, FIRST)
                if not 0 < first <= plan.revision:
                    return
                done = await connection.execute(DELETE, [min(first + BATCH - 1, plan.revision)])
            yield done.rowcount


class AuditCompaction:
    """The compaction of ``audit_log`` and ``audit_chain``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def plan(self, older_than: timedelta) -> list[AuditPlan]:
        """Find, for each epoch, what is older and in the chain. Raises StoreUnavailable."""
        connection = await self._database.dedicated()
        try:
            with self._database.translated():
                await connection.set_autocommit(False)
                # A whole log takes longer than any statement timeout.
                await connection.execute("SET LOCAL statement_timeout = 0")
                epochs = await (await connection.execute(AUDIT_EPOCHS)).fetchall()
                return [await _audit_plan(connection, older_than, *epoch) for epoch in epochs]
        finally:
            await connection.close()

    async def run(self, plan: AuditPlan) -> AsyncIterator[int]:
        """Compact one epoch, and yield the number of rows after each transaction. Raises StoreUnavailable."""
        if not plan.rows:
            return
        async with self._database.connection() as connection:
            await connection.execute(AUDIT_COMPACT, [plan.epoch, plan.revision])
        while True:
            async with self._database.connection() as connection:
                (first,) = await _row(connection, AUDIT_FIRST, epoch=plan.epoch, revision=plan.revision)
                if first is None:
                    return
                until = min(first + BATCH - 1, plan.revision)
                values = {"epoch": plan.epoch, "until": until, "revision": plan.revision}
                rows, _ = [await connection.execute(statement, values) for statement in AUDIT_DELETE]
            yield rows.rowcount


async def _audit_plan(connection: Connection, older_than: timedelta, epoch: str, first: int, head: int) -> AuditPlan:
    (young,) = await _row(connection, AUDIT_YOUNG, epoch, older_than)
    revision = head if young is None else min(head, young - 1)
    return AuditPlan(epoch, max(revision, first), max(0, revision - first))


async def _last_old(connection: Connection, older_than: timedelta, first: int, last: int) -> int:
    """Return the last revision that is older, by halving: times never go back as revisions go on."""
    low, high = first - 1, last
    while low < high:
        middle = (low + high + 1) // 2
        row = await _row(connection, OLD, older_than, middle)
        low, high = (middle, high) if row and row[0] else (low, middle - 1)
    return max(low, 0)


async def _row(connection: Connection, sql: str, *values: object, **named: object) -> tuple[Any, ...]:
    """Return the only row; empty if there is none."""
    row = await (await connection.execute(sql.encode(), named or values)).fetchone()
    return tuple(row) if row else ()
