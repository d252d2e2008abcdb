"""What the driver raises becomes what the ports promise; and the pool recovers by itself."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from pointsman_server.adapters.postgres.connection import Statement, Step, array
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.migrations import migrate
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.errors import Overloaded, RouteExists, StoreUnavailable
from pointsman_server.domain.routes import RouteKey
from pointsman_server.embedded import start
from pointsman_server.ports.store import Clock, Intent
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Create
from tests.support.fakes import MemoryCache, Wire

ENDED = "terminating connection due to administrator command"
KEY = RouteKey("team-a", "payments", "prod", "v1")
LONG = 60.0  # nothing here takes as long: what waits for it fails


class Failures:
    """Counts what the metrics would."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
async def database(database_url: str, failures: Failures) -> AsyncIterator[Database]:
    database = Database(database_url, pool_min=1, pool_max=2, timeout=30.0, failed=failures)
    await database.open()
    yield database
    await database.close()


async def test_the_time_of_the_server_is_that_of_its_clock(database: Database) -> None:
    store = PostgresStore(database)
    before = await store.time()
    async with database.connection() as connection:
        row = await (await connection.execute("SELECT extract(epoch FROM clock_timestamp())")).fetchone()
    assert row
    assert before <= float(row[0]) <= await store.time()


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port
    return port


def through(wire: Wire, url: str) -> str:
    return url.replace(f":{port_of(url)}/", f":{wire.port}/")


async def answers(store: PostgresStore) -> Clock:
    """Ask until the store answers, as clients do; connections that died fail once each."""
    async with asyncio.timeout(LONG):
        while True:
            try:
                return await store.clock()
            except StoreUnavailable:
                await asyncio.sleep(0.01)


# Translation


async def test_a_block_that_ends_commits_and_one_that_raises_rolls_back(database: Database) -> None:
    async def write(revision: int, *, then_fail: bool) -> None:
        async with database.connection() as connection:
            await connection.execute("UPDATE relay SET revision = %s", [revision])
            if then_fail:
                raise RuntimeError("give up")

    await write(7, then_fail=False)
    with pytest.raises(RuntimeError, match="give up"):
        await write(8, then_fail=True)
    async with database.connection() as connection:
        assert await (await connection.execute("SELECT revision FROM relay")).fetchone() == (7,)


async def test_an_error_of_the_domain_passes_as_it_is_and_counts_as_no_failure(
    database: Database, failures: Failures
) -> None:
    with pytest.raises(RouteExists):
        async with database.connection():
            raise RouteExists(str(KEY), 1)
    assert failures.count == 0


async def run(database: Database, statement: str) -> None:
    async with database.connection() as connection:
        await connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "cause", "explanation"),
    [
        ("SELECT * FROM nowhere", psycopg.errors.UndefinedTable, "has no schema: run `pointsman-server migrate`"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", psycopg.errors.AdminShutdown, f"cannot be reached: {ENDED}"),
        (
            "SET default_transaction_read_only = on; COMMIT; UPDATE relay SET revision = 1",
            psycopg.errors.ReadOnlySqlTransaction,
            "is read-only",
        ),
        (
            "SET LOCAL statement_timeout = 1; SELECT pg_sleep(60)",
            psycopg.errors.QueryCanceled,
            "does not answer within 30 s",
        ),
    ],
    ids=["no schema", "connection ended", "read-only standby", "too slow"],
)
async def test_a_database_that_cannot_do_its_work_is_unavailable_and_the_cause_is_kept(
    database: Database, failures: Failures, statement: str, cause: type[Exception], explanation: str
) -> None:
    with pytest.raises(StoreUnavailable) as raised:
        await run(database, statement)
    assert isinstance(raised.value.__cause__, cause)
    assert database.explain(raised.value) == explanation
    assert failures.count == 1


async def test_a_bug_in_our_sql_is_no_unavailability(database: Database, failures: Failures) -> None:
    """It would be retried without end, and the alert would name the wrong cause."""
    with pytest.raises(psycopg.errors.SyntaxError):
        await run(database, "SELEKT")
    assert failures.count == 0


async def test_the_timeout_is_the_statement_timeout_of_every_connection(database_url: str) -> None:
    database = Database(database_url, pool_min=1, timeout=1.5)
    await database.open()
    async with database.connection() as connection:
        shown = await (await connection.execute("SHOW statement_timeout")).fetchone()
    assert shown == ("1500ms",)
    dedicated = await database.dedicated()
    assert await (await dedicated.execute("SHOW statement_timeout")).fetchone() == shown
    await dedicated.close()
    await database.close()


async def test_a_statement_that_takes_longer_than_the_timeout_is_cancelled_in_the_database(database_url: str) -> None:
    database = Database(database_url, pool_min=1, timeout=0.2)
    await database.open()
    with pytest.raises(StoreUnavailable):
        await run(database, "SELECT pg_sleep(60)")
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        assert await (await other.execute(sleeping)).fetchone() == (0,)
    await database.close()


async def test_the_address_for_messages_holds_no_password() -> None:
    database = Database("postgresql://someone:SECRET@db.internal:5433/pointsman")
    assert database.address == "db.internal:5433"


# Busy or dead


async def test_a_pool_that_is_exhausted_while_the_database_lives_is_overload(
    database_url: str, failures: Failures
) -> None:
    database = Database(database_url, pool_min=1, pool_max=1, timeout=0.5, failed=failures)
    await database.open()
    await answers(PostgresStore(database))
    failures.count = 0
    async with database.connection():
        with pytest.raises(Overloaded) as raised:
            await PostgresStore(database).clock()
    assert raised.value.metadata == {"limit": "store_connections"}
    assert database.explain(raised.value) == "has no free connection in the pool"
    assert failures.count == 1
    assert (await PostgresStore(database).clock()).revision == 0
    await database.close()


async def test_more_who_wait_than_the_pool_allows_are_refused_at_once(database_url: str) -> None:
    database = Database(database_url, pool_min=1, pool_max=1, timeout=LONG)
    await database.open()
    store = PostgresStore(database)
    await store.clock()
    async with database.connection():
        waiting = [asyncio.create_task(store.clock()) for _ in range(100)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
    assert all(isinstance(task.exception(), Overloaded) for task in done)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(result, Clock) for result in results) == 20
    await database.close()


async def test_a_database_that_never_answered_is_unavailable_not_busy(unused_tcp_port: int) -> None:
    database = Database(f"postgresql://pointsman@127.0.0.1:{unused_tcp_port}/x", pool_min=1, timeout=0.2)
    await database.open()
    with pytest.raises(StoreUnavailable) as raised:
        await PostgresStore(database).clock()
    refused = f'connection to server at "127.0.0.1", port {unused_tcp_port} failed: Connection refused'
    assert database.explain(raised.value) == f"cannot be reached: {refused}"
    with pytest.raises(StoreUnavailable):
        await database.dedicated()
    await database.close()


async def test_a_closed_database_is_unavailable(database_url: str) -> None:
    database = Database(database_url, pool_min=1)
    await database.open()
    await database.close()
    with pytest.raises(StoreUnavailable):
        await PostgresStore(database).clock()


# Faults


async def test_a_database_that_accepts_and_never_answers_is_unavailable_within_bounds(
    database_url: str,
) -> None:
    async with Wire(port_of(database_url)) as wire:
        database = Database(through(wire, database_url), pool_min=1, pool_max=1, timeout=0.5)
        await database.open()
        store = PostgresStore(database)
        await answers(store)
        wire.replies.close()
        async with asyncio.timeout(LONG):
            with pytest.raises(StoreUnavailable):
                await store.clock()
        wire.replies.open()
        assert (await answers(store)).revision == 0
        await database.close()


async def test_a_connection_that_dies_in_a_transaction_is_unavailable_and_leaves_nothing(database_url: str) -> None:
    async with Wire(port_of(database_url)) as wire:
        database = Database(through(wire, database_url), pool_min=1, timeout=30.0)
        await database.open()
        store = PostgresStore(database)

        class CuttingCache(MemoryCache):
            """Cuts the wire in the middle of a mutation."""

            async def mark(self, *_: object) -> None:
                await wire.cut()

        with pytest.raises(StoreUnavailable):
            await GroupCommitter(store, CuttingCache(), lambda _: None).create(
                Create(KEY, "https://x", {}), Intent("alice")
            )
        await wire.mend()
        assert (await answers(store)).revision == 0
        assert (await store.load([KEY]))[0].route is None
        await database.close()


async def test_it_recovers_by_itself_when_postgresql_stops_and_comes_back(tmp_path: Path) -> None:
    """A restart at the same address: open connections die, then new ones are refused, then it is all there again."""
    engines = start(tmp_path, ["postgres"], durable=False)
    try:
        url = engines.urls["DATABASE_URL"]
        await asyncio.to_thread(migrate, url)
        async with Wire(port_of(url)) as wire:
            database = Database(through(wire, url), pool_min=2, pool_max=4, timeout=2.0)
            await database.open()
            store = PostgresStore(database)
            committer = GroupCommitter(store, MemoryCache(), lambda _: None)
            await committer.create(Create(KEY, "https://x.internal", {}), Intent("alice"))
            before = await store.clock()

            await asyncio.to_thread(engines.stop)
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await store.clock()

            engines = await asyncio.to_thread(start, tmp_path, ["postgres"], durable=False)
            wire.target = port_of(engines.urls["DATABASE_URL"])
            assert await answers(store) == before
            assert [snapshot.as_of for snapshot in await store.load([KEY])] == [1]
            await database.close()
    finally:
        await asyncio.to_thread(engines.stop)


# Statements by themselves

ECHO = Statement("echo", "SELECT name, length(name), NULL::text FROM unnest($1::text[]) AS name")
SLEEP = Statement("sleep", "SELECT pg_sleep($1::float8)")


def echo(*names: str) -> Step:
    return Step(ECHO, [array(names)])


async def test_statements_give_their_rows_and_leave_no_transaction(database: Database) -> None:
    for _ in range(2):
        assert await database.exchange(echo("a", "b"), echo()) == [[("a", 1, None), ("b", 1, None)], []]
    async with database.connection() as connection:
        assert connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE


async def test_a_connection_whose_statements_are_of_no_use_any_more_is_replaced(database_url: str) -> None:
    database = Database(database_url, pool_min=1, pool_max=1, timeout=LONG)
    await database.open()
    await database.exchange(echo("a"))
    async with database.connection() as connection:
        await connection.execute("DEALLOCATE ALL")
    with pytest.raises(psycopg.errors.InvalidSqlStatementName):
        await database.exchange(echo("a"))
    assert await database.exchange(echo("b")) == [[("b", 1, None)]]
    await database.close()


async def test_a_statement_that_takes_too_long_is_unavailable_and_its_connection_goes_on(database_url: str) -> None:
    database = Database(database_url, pool_min=1, pool_max=1, timeout=0.1)
    await database.open()
    with pytest.raises(StoreUnavailable):
        async with database.connection() as connection:
            await connection.exchange(Step(SLEEP, ["60"]))
    assert not connection.closed
    assert await database.exchange(echo("a")) == [[("a", 1, None)]]
    await database.close()


async def test_who_gives_up_a_statement_leaves_no_answer_for_the_next_one(database: Database) -> None:
    asking = asyncio.create_task(database.exchange(Step(SLEEP, ["60"])))
    for _ in range(20):
        await database.exchange(echo("a"))  # in the meantime it comes as far as it can
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    async with asyncio.timeout(LONG):
        assert await database.exchange(echo("a")) == [[("a", 1, None)]]


async def test_a_connection_that_dies_under_a_statement_is_unavailable(database_url: str) -> None:
    async with Wire(port_of(database_url)) as wire:
        database = Database(through(wire, database_url), pool_min=1, pool_max=1, timeout=30.0)
        await database.open()
        store = PostgresStore(database)
        await answers(store)
        wire.replies.close()
        asking = asyncio.create_task(store.load([KEY]))
        await wire.replies.arrivals()
        await wire.cut()
        with pytest.raises(StoreUnavailable):
            await asking
        wire.replies.open()
        await wire.mend()
        await answers(store)
        assert await store.load([KEY])
        await database.close()
