"""What ``Connection.exchange`` promises, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from pointsman_server.adapters.postgres.connection import BEGIN, COMMIT, ROLLBACK, Connection, Statement, Step, array

ONE = Statement("one", "SELECT $1::int, $2::text")
FAILS = Step(Statement("fails", "SELECT 1 / $1::int"), ["0"])
SLEEP = Step(Statement("sleep", "SELECT pg_sleep(30)"))
TEMPORARY = Step(Statement("temporary", "CREATE TEMPORARY TABLE seen (number int)"))
INSERT = Statement("insert", "INSERT INTO seen VALUES ($1::int)")
SEEN = Step(Statement("seen", "SELECT number FROM seen ORDER BY number"))
ECHO = Statement("echo", "SELECT unnest($1::text[])")
PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE name = 'one'"


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    connection = await Connection.connect(database_url, autocommit=True)
    yield connection
    await connection.close()


async def test_each_statement_has_its_rows(connection: Connection) -> None:
    first, second = await connection.exchange(Step(ONE, ["1", "a"]), Step(ONE, ["2", None]))
    assert (first, second) == ([(1, "a")], [(2, None)])


async def test_a_statement_is_prepared_once(connection: Connection) -> None:
    for _ in range(3):
        await connection.exchange(Step(ONE, ["1", "a"]))
    assert await (await connection.execute(PREPARED)).fetchone() == (1,)


async def test_after_the_first_failure_nothing_is_carried_out(connection: Connection) -> None:
    await connection.exchange(TEMPORARY)
    with pytest.raises(psycopg.errors.DivisionByZero):
        await connection.exchange(BEGIN, Step(INSERT, ["1"]), FAILS, Step(INSERT, ["2"]), COMMIT)
    assert connection.pgconn.transaction_status == TransactionStatus.INERROR
    await connection.rollback()
    assert await connection.exchange(SEEN) == [[]]


async def test_what_was_prepared_outlives_failures_and_rollbacks(connection: Connection) -> None:
    # The driver deallocates all statements of a connection when it rolls back, if it has prepared any itself.
    for _ in range(6):
        await connection.execute("SELECT 1", prepare=True)
    await connection.exchange(BEGIN, Step(ONE, ["1", "a"]))
    await connection.rollback()
    with pytest.raises(psycopg.errors.DivisionByZero):
        await connection.exchange(FAILS, Step(ONE, ["1", "a"]))
    for _ in range(2):
        assert await connection.exchange(Step(ONE, ["1", "a"])) == [[(1, "a")]]


async def test_a_statement_that_cannot_be_prepared_is_tried_anew(connection: Connection) -> None:
    for _ in range(2):
        with pytest.raises(psycopg.errors.UndefinedTable):
            await connection.exchange(SEEN)
    await connection.exchange(TEMPORARY)
    assert await connection.exchange(SEEN) == [[]]


async def test_transactions_are_those_of_the_steps(connection: Connection) -> None:
    await connection.exchange(TEMPORARY)
    await connection.exchange(BEGIN, Step(INSERT, ["1"]))
    assert connection.pgconn.transaction_status == TransactionStatus.INTRANS
    await connection.exchange(COMMIT)
    await connection.exchange(BEGIN, Step(INSERT, ["2"]), ROLLBACK)
    assert await connection.exchange(SEEN) == [[(1,)]]


async def test_packets_larger_than_any_buffer_go_through_in_both_directions(connection: Connection) -> None:
    large = [f"{number}" * 1000 for number in range(3000)]
    ((rows),) = await connection.exchange(Step(ECHO, [array(large)]))
    assert [text for (text,) in rows] == large


async def test_arrays_hold_any_text(connection: Connection) -> None:
    texts = ["", "NULL", 'a"b', "a\\b", "{a,b}", " é ", "\n"]
    ((rows),) = await connection.exchange(Step(ECHO, [array(texts)]))
    assert [text for (text,) in rows] == texts


async def test_who_is_cancelled_leaves_a_closed_connection(connection: Connection) -> None:
    waiting = asyncio.create_task(connection.exchange(SLEEP))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert connection.closed


async def test_a_connection_that_is_ended_raises_what_the_driver_raises(
    connection: Connection, database_url: str
) -> None:
    waiting = asyncio.create_task(connection.exchange(SLEEP))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:
        await other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        await waiting
    assert connection.closed
