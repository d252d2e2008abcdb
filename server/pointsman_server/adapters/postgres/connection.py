"""A connection to PostgreSQL that sends several statements in one packet, and waits once for all results.

That is the path of every mutation and of every read that no cache answers. The driver's own pipeline takes 230
microseconds of the processor for a round trip of three statements; what is done here with the driver's binding of libpq
(see "Pipeline Mode" in its manual) takes 40. All else stays the driver's: pool, settings, errors.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import AsyncRowFactory, TupleRow, tuple_row

Rows = list[tuple[Any, ...]]
BINARY = 1
CANCEL_SECONDS = 0.5
# What was prepared is gone, or its plan does not fit the tables any more: a new connection prepares anew.
Spoilt = psycopg.errors.InvalidSqlStatementName | psycopg.errors.FeatureNotSupported


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with $1, $2 …, which a connection prepares under ``name`` when it first sends it. Values go as text."""

    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class Step:
    """A statement with its values."""

    statement: Statement
    values: Sequence[str | None] = ()


BEGIN = Step(Statement("begin", "BEGIN"))
COMMIT = Step(Statement("commit", "COMMIT"))
ROLLBACK = Step(Statement("rollback", "ROLLBACK"))


class Connection(psycopg.AsyncConnection[TupleRow]):
    """A connection of the driver, and ``exchange``."""

    def __init__(self, pgconn: PGconn, row_factory: AsyncRowFactory[TupleRow] = tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        self._known: set[str] = set()

    async def exchange(self, *steps: Step) -> list[Rows]:
        """Send everything together, and give the rows of each statement.

        Raises the driver's errors: that of the first statement that failed, after which none was carried out. Whoever
        is cancelled meanwhile leaves a closed connection, for the answers that are still to come belong to nobody.
        """
        fresh = {step.statement.name: step.statement for step in steps if step.statement.name not in self._known}
        try:
            self._send(fresh.values(), steps)
            results = await _Answers(self.pgconn).all()
            self.pgconn.exit_pipeline_mode()
            self._hand_over_notifications()
        except BaseException:
            self.pgconn.finish()
            raise
        self._known.update(name for name, result in zip(fresh, results, strict=False) if _is_ok(result))
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise self._failed(result)
        return [self._rows(result) for result in results[len(fresh) :]]

    def _failed(self, result: PGresult) -> psycopg.Error:
        error = error_from_result(result)
        if isinstance(error, Spoilt):
            self.pgconn.finish()
        return error

    def _send(self, fresh: Iterable[Statement], steps: Iterable[Step]) -> None:
        libpq = self.pgconn
        libpq.enter_pipeline_mode()
        for statement in fresh:
            libpq.send_prepare(statement.name.encode(), statement.sql.encode())
        for step in steps:
            values = [None if value is None else value.encode() for value in step.values]
            libpq.send_query_prepared(step.statement.name.encode(), values, result_format=BINARY)
        libpq.pipeline_sync()

    def _hand_over_notifications(self) -> None:
        # What libpq has read already, ``notifies`` would wait for in vain.
        while self.pgconn.notify_handler and (notification := self.pgconn.notifies()):
            self.pgconn.notify_handler(notification)

    def _rows(self, result: PGresult) -> Rows:
        if not result.ntuples:
            return []
        transformer = Transformer(self)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    async def rollback(self) -> None:
        """Roll back. The driver would then forget every statement that was prepared, ours too."""
        if self.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            await self.exchange(ROLLBACK)
        await super().rollback()

    async def cancel_safe(self, *, timeout: float = CANCEL_SECONDS) -> None:  # noqa: ASYNC109 - the driver's
        """Cancel the statement under way, or close the connection: the driver would wait 10 s for an answer."""
        try:
            await super().cancel_safe(timeout=min(timeout, CANCEL_SECONDS))
        except psycopg.Error:
            self.pgconn.finish()
            raise


class _Answers:
    """Waits, and gives the results up to the end of the packet, one for each thing that was sent."""

    def __init__(self, libpq: PGconn) -> None:
        self._libpq = libpq
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._results: list[PGresult] = []

    async def all(self) -> list[PGresult]:
        socket = self._libpq.socket
        self._loop.add_reader(socket, self._guarded)
        if self._libpq.flush():
            self._loop.add_writer(socket, self._write)
        try:
            await self._done
        finally:
            self._loop.remove_writer(socket)
            self._loop.remove_reader(socket)
        return self._results

    def _write(self) -> None:
        if not self._libpq.flush():
            self._loop.remove_writer(self._libpq.socket)

    def _guarded(self) -> None:
        if self._done.done():
            return
        try:
            if self._read():
                self._done.set_result(None)
        except Exception as error:  # noqa: BLE001 - handed to who waits
            self._done.set_exception(error)

    def _read(self) -> bool:
        """Take what has come; says whether that was all of it."""
        self._libpq.consume_input()
        ended = True  # the last result of a statement is followed by None, and so is nothing at all
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
    """Write an array of texts, each quoted (PostgreSQL, section 8.15)."""
    return "{" + ",".join(['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]) + "}"
