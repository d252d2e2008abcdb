"""``ports.AuditLog`` on PostgreSQL."""

from collections.abc import Sequence

from pointsman_server.adapters.postgres.database import Database
from pointsman_server.encoding import change_to_message
from pointsman_server.routes import Change

APPEND = """
INSERT INTO audit_log (revision, change)
SELECT * FROM unnest(%s::bigint[], %s::bytea[]) ON CONFLICT (revision) DO NOTHING
"""


class PostgresAuditLog:
    """One row per revision: the change as it was published, bytes in a deterministic encoding."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, changes: Sequence[Change]) -> None:
        """See AuditLog.append."""
        revisions = [change.revision for change in changes]
        encoded = [change_to_message(change).SerializeToString(deterministic=True) for change in changes]
        async with self._database.connection() as connection:
            await connection.execute(APPEND, [revisions, encoded])

    async def last_contiguous(self) -> int:
        """Return the revision up to which nothing is missing."""
        sql = """
        SELECT coalesce(min(a.revision), 0) FROM (SELECT 0 AS revision UNION ALL SELECT revision FROM audit_log) AS a
         WHERE NOT EXISTS (SELECT FROM audit_log AS b WHERE b.revision = a.revision + 1)
        """
        async with self._database.connection() as connection:
            row = await (await connection.execute(sql)).fetchone()
        return int(row[0]) if row else 0
