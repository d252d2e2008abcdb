"""A connection to PostgreSQL that sends several statements in one packet and waits once for all results.

Every mutation and every read that no cache answers goes this way. The driver's own pipeline takes 230 microseconds of
CPU time for a round trip of three statements; this one, on the driver's binding of libpq ("Pipeline Mode" in its
manual), takes 40. The pool, the settings and the errors are the driver's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import psycopg
from psycopg import AsyncCursor
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import AsyncRowFactory, TupleRow, tuple_row

from pointsman_server.adapters.postgres.session import NoSession
from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.spans import Kind

Rows = list[tuple[Any, ...]]
BINARY = 1
# Attributes of spans.
SYSTEM = {"db.system.name": "postgresql"}
CANCEL_SECONDS = 0.5
# A prepared statement is gone, or its plan no longer fits the tables: a new connection prepares it again.
StaleStatement = psycopg.errors.InvalidSqlStatementName | psycopg.errors.FeatureNotSupported
# Our own statements divide by nothing: only the guard does.
OfSharedSession = (
    psycopg.errors.DivisionByZero | psycopg.errors.DuplicatePreparedStatement | psycopg.errors.InvalidSqlStatementName
)


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with $1, $2 …, prepared under ``name`` when a connection first sends it. Values are sent as text.

    Without a name it is sent anew each time.
    """

    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class Step:
    """A statement with its values."""

    statement: Statement
    values: Sequence[str | None] = ()


BEGIN = Step(Statement("begin", "BEGIN ISOLATION LEVEL READ COMMITTED"))
# What follows is read in one snapshot of the database. Nothing in its packet may have a name: preparing a query takes
# a snapshot already.
BEGIN_SNAPSHOT = Step(Statement("", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
COMMIT = Step(Statement("commit", "COMMIT"))
ROLLBACK = Step(Statement("rollback", "ROLLBACK"))


class Connection(psycopg.AsyncConnection[TupleRow]):
    """A connection of the driver, and ``exchange``.

    ``server`` is the start time of the server process that it reached: another time is another server.

    ``prologue``: a statement that every transaction begins with. ``prepares``: whether statements are prepared, which
    needs a session that stays with this connection.
    """

    def __init__(self, pgconn: PGconn, row_factory: AsyncRowFactory[TupleRow] = tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        self.server: datetime | None = None
        self.prologue: Step | None = None
        self.prepares = True
        self._known: set[str] = set()

    @classmethod
    async def connect(  # type: ignore[override]  # the pool passes the two as keywords
        cls,
        conninfo: str = "",
        *,
        begin: "Callable[[Connection], Awaitable[None]] | None" = None,
        on_failure: Callable[[Exception], None] = lambda _error: None,
        **options: Any,
    ) -> Self:
        """Connect as the driver does, then call ``begin``; ``on_failure`` gets the error of either."""
        try:
            connection = await super().connect(conninfo, **options)
            try:
                if begin:
                    await begin(connection)
            except BaseException:
                connection.pgconn.finish()
                raise
        except Exception as error:
            on_failure(error)
            raise
        return connection

    async def exchange(self, *steps: Step) -> list[Rows]:
        """Send all steps in one packet and return the rows of each.

        Raises the driver's error of the first statement that failed; those after it were not executed. Cancelling
        closes the connection, because the results still to come would be read by its next user.
        """
        if self.prologue is None or self.pgconn.transaction_status != TransactionStatus.IDLE:
            return await self._exchange(*steps)
        first = 1 if steps[0] in (BEGIN, BEGIN_SNAPSHOT) else 0
        rows = await self._exchange(*steps[:first], self.prologue, *steps[first:])
        return rows[:first] + rows[first + 1 :]

    async def _exchange(self, *steps: Step) -> list[Rows]:
        with spans.span("postgresql exchange", Kind.CLIENT) as span:
            if span.recording:
                names = " ".join(step.statement.name for step in steps)
                span.set({**SYSTEM, "db.query.summary": names, "db.operation.batch.size": len(steps)})
            return await self._exchange_packet(*steps)

    async def _exchange_packet(self, *steps: Step) -> list[Rows]:
        fresh = {step.statement.name: step.statement for step in steps if self._is_new(step.statement)}
        try:
            self._send(fresh.values(), steps)
            results = await _ResultReader(self.pgconn).all()
            self.pgconn.exit_pipeline_mode()
            self._deliver_notifications()
        except BaseException:
            self.pgconn.finish()
            raise
        self._known.update(name for name, result in zip(fresh, results, strict=False) if _is_ok(result))
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise self._failed(result)
        return [self._rows(result) for result in results[len(fresh) :]]

    async def execute(self, query: Any, params: Any = None, **options: Any) -> AsyncCursor[TupleRow]:
        """Execute as the driver does; where transactions have a prologue, that begins one and sends it first."""
        if self.prologue and not self.autocommit and self.pgconn.transaction_status == TransactionStatus.IDLE:
            await self.exchange(BEGIN)
        return await super().execute(query, params, **options)

    def _is_new(self, statement: Statement) -> bool:
        return self.prepares and bool(statement.name) and statement.name not in self._known

    def _failed(self, result: PGresult) -> psycopg.Error:
        error = error_from_result(result)
        if isinstance(error, StaleStatement):
            self.pgconn.finish()
        if self.prologue and isinstance(error, OfSharedSession):
            # The guard of ``pooler``, or a statement that another connection has prepared in this process or another.
            self.pgconn.finish()
            return NoSession()
        return error

    def _send(self, fresh: Iterable[Statement], steps: Iterable[Step]) -> None:
        libpq = self.pgconn
        libpq.enter_pipeline_mode()
        for statement in fresh:
            libpq.send_prepare(statement.name.encode(), statement.sql.encode())
        for step in steps:
            values = [None if value is None else value.encode() for value in step.values]
            if self.prepares and step.statement.name:
                libpq.send_query_prepared(step.statement.name.encode(), values, result_format=BINARY)
            else:
                libpq.send_query_params(step.statement.sql.encode(), values, result_format=BINARY)
        libpq.pipeline_sync()

    def _deliver_notifications(self) -> None:
        # ``notifies`` waits for the socket, and libpq has already read these from it.
        while self.pgconn.notify_handler and (notification := self.pgconn.notifies()):
            self.pgconn.notify_handler(notification)

    def _rows(self, result: PGresult) -> Rows:
        if not result.ntuples:
            return []
        transformer = Transformer(self)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    async def rollback(self) -> None:
        """Roll back by a statement of ours: the driver's own deallocates every prepared statement, ours too."""
        if self.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            await self.exchange(ROLLBACK)
        await super().rollback()

    async def cancel_safe(self, *, timeout: float = CANCEL_SECONDS) -> None:  # noqa: ASYNC109 - the driver's
        """Cancel the running statement, or close the connection: the driver would wait 10 s for an answer."""
        try:
            await super().cancel_safe(timeout=min(timeout, CANCEL_SECONDS))
        except psycopg.Error:
            self.pgconn.finish()
            raise


class _ResultReader:
    """Reads the results of one packet, one for each message that was sent."""

    def __init__(self, libpq: PGconn) -> None:
        self._libpq = libpq
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._results: list[PGresult] = []

    async def all(self) -> list[PGresult]:
        socket = self._libpq.socket
        self._loop.add_reader(socket, self._on_readable)
        if self._libpq.flush():
            self._loop.add_writer(socket, self._on_writable)
        try:
            await self._done
        finally:
            self._loop.remove_writer(socket)
            self._loop.remove_reader(socket)
        return self._results

    def _on_writable(self) -> None:
        if not self._libpq.flush():
            self._loop.remove_writer(self._libpq.socket)

    def _on_readable(self) -> None:
        if self._done.done():
            return
        try:
            if self._read():
                self._done.set_result(None)
        except Exception as error:  # noqa: BLE001 - raised where the result is awaited
            self._done.set_exception(error)

    def _read(self) -> bool:
        """Read what has arrived; return whether the packet is complete."""
        self._libpq.consume_input()
        ended = True  # None follows the last result of a statement, and also comes when there is no result
        while not self._libpq.is_busy():
            result = self._libpq.get_result()
            if result is None:
                if ended:
                    return False
                ended = True
            elif result.status == ExecStatus.PIPELINE_SYNC:
                return True
            else:
                self._results.append(result)
                ended = False
        return False


def _is_ok(result: PGresult) -> bool:
    return result.status == ExecStatus.COMMAND_OK


def array(values: Sequence[str]) -> str:
    """Write a PostgreSQL array literal of texts, each quoted (PostgreSQL manual, 8.15)."""
    return "{" + ",".join(['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]) + "}"
