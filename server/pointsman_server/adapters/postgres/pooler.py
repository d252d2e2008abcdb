"""Poolers in front of PostgreSQL, which may lend another session to each transaction.

A pooler in session mode keeps a session for each connection. One in transaction mode (PgBouncer's
``pool_mode = transaction``) does not: what a session holds is lost there, or shared with others. That is prepared
statements, settings, advisory locks and LISTEN. Where it is known (``Database``'s ``pooled``), nothing of these is
used. Everywhere else a session is needed, and this module makes sure that there is one:

- A pooler shows itself: the process number that it sends at the start is not that of a process of PostgreSQL.
- ``examine`` opens other connections and looks whether one is led to the same process. It finds a pooler in
  transaction mode at once, so that the refusal is clear, and may miss one that is busy.
- ``guard`` is the guarantee: every transaction begins with a statement that fails outside the process in which the
  session began, and then nothing else of the transaction is executed.
"""

import asyncio
from collections.abc import Awaitable, Callable

import psycopg

from pointsman_server.adapters.postgres.connection import BEGIN, Connection, Statement, Step
from pointsman_server.adapters.postgres.session import NoSession

# How many other connections look for a process that is shared: a pooler lends what was returned last.
OTHERS = 3
EXAMINE_SECONDS = 1.0

PROCESS = Step(Statement("", "SELECT pg_backend_pid()"))
GUARD = Statement("", "SELECT 1 / (pg_backend_pid() = $1::int)::int")


def is_pooled(connection: "psycopg.Connection | Connection", process: int) -> bool:
    """Return whether a pooler stands between a connection and the ``process`` that it was led to."""
    return connection.pgconn.backend_pid != process


def holds(lock: int) -> str:
    """Return the SQL for whether this process holds an advisory lock already, for whatever connection."""
    return f"""EXISTS (
        SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND granted
           AND (classid::bigint << 32 | objid::bigint) = {lock})"""


def guard(process: int) -> Step:
    """Return the prologue of transactions that must run in ``process``."""
    return Step(GUARD, [str(process)])


async def examine(connection: Connection, process: int, connect: Callable[[], Awaitable[Connection]]) -> bool:
    """Raise NoSession if another connection is led to ``process``, where the first one began, or drives it out.

    Returns False when that cannot be found out, because no other connection is led anywhere.
    """
    others: list[Connection] = []
    try:
        shared = await _is_shared(connection, process, others, connect)
    except (psycopg.Error, TimeoutError):
        return False
    finally:
        for other in others:
            other.pgconn.finish()
    if shared:
        raise NoSession
    return True


async def _is_shared(
    connection: Connection, process: int, others: list[Connection], connect: Callable[[], Awaitable[Connection]]
) -> bool:
    # Each of the others keeps what it got, so that the next one gets another.
    async with asyncio.timeout(EXAMINE_SECONDS):
        for _ in range(OTHERS):
            others.append(await connect())
            others[-1].prepares = False
            _, ((found,),) = await others[-1].exchange(BEGIN, PROCESS)
            if found == process:
                return True
    return await _process_now(connection) != process


async def _process_now(connection: Connection) -> int:
    try:
        async with asyncio.timeout(EXAMINE_SECONDS):
            (((process,),),) = await connection.exchange(PROCESS)
    except TimeoutError:
        return 0  # the others have all sessions: this connection has none
    return int(process)


def examine_now(connection: psycopg.Connection, process: int, connect: Callable[[], psycopg.Connection]) -> None:
    """Do what ``examine`` does, with connections of the synchronous driver in autocommit."""
    with connect() as other, other.transaction():
        if _process(other) == process or _process(connection) != process:
            raise NoSession


def _process(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return int(row[0]) if row else 0
