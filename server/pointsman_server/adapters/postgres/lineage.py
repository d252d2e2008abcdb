"""Which epochs the history in PostgreSQL consists of."""

from collections.abc import AsyncIterator

from pointsman_server.adapters.postgres.connection import Connection
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.ports.audit_log import Span

# The clock may be ahead of the history: what counts are changes.
AT_OR_BELOW = "SELECT revision, epoch::text FROM route_changes WHERE revision <= %s ORDER BY revision DESC LIMIT 1"

HIGHEST = 2**63 - 1


class PostgresLineage:
    """``ports.Lineage`` on ``route_changes``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def spans(self) -> list[Span]:
        async with self._database.connection() as connection:
            found = [span async for span in _newest_first(connection)]
        return found[::-1]


class KnownLineage:
    """``ports.Lineage`` as it was read before."""

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans

    async def spans(self) -> list[Span]:
        return self._spans


async def _newest_first(connection: Connection) -> AsyncIterator[Span]:
    newest = await _at_or_below(connection, HIGHEST)
    while newest is not None:
        last, epoch = newest
        first = await _first_of(connection, epoch, last)
        yield Span(epoch, first, last)
        newest = await _at_or_below(connection, first - 1)


async def _first_of(connection: Connection, epoch: str, last: int) -> int:
    # Halving: an epoch is one run of revisions, and an index by epoch would cost every write.
    low, first = 0, last
    while low < first:
        found = await _at_or_below(connection, (low + first) // 2)
        if found is not None and found[1] == epoch:
            first = found[0]
        else:
            low = (low + first) // 2 + 1
    return first


async def _at_or_below(connection: Connection, revision: int) -> tuple[int, str] | None:
    row = await (await connection.execute(AT_OR_BELOW, [revision])).fetchone()
    return (row[0], row[1]) if row else None
