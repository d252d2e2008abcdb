"""PostgreSQL behind PgBouncer in transaction mode: nothing outlives a transaction, and who needs a session has one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from pointsman_server.adapters.postgres.bulk_store import PostgresBulkStore
from pointsman_server.adapters.postgres.connection import BEGIN, COMMIT, Statement, Step
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.history.as_of import PostgresHistory
from pointsman_server.adapters.postgres.migrations import MigrationError, head, migrate
from pointsman_server.adapters.postgres.relay_log import PostgresLeadership, PostgresRelayLog
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import RouteKey, Wanted
from pointsman_server.ports.bulk_store import Existing
from pointsman_server.ports.store import Intent, RouteQuery
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Create
from tests.support.debian import find
from tests.support.engines import create_database, drop_database
from tests.support.fakes import MemoryCache
from tests.support.pgbouncer import pgbouncer
from tests.support.tools import require

URL = "https://payments.internal"
REFUSED = (
    "is behind a pooler in transaction mode, and this needs a session: set POINTSMAN_DATABASE_SESSION_URL to "
    "PostgreSQL itself, or to a pooler in session mode"
)
# What others may have set for the role or the database.
THEIRS = {"default_transaction_isolation": "serializable", "statement_timeout": "20000", "DateStyle": "German"}
SHOWN = Statement(
    "shown",
    "SELECT current_setting('statement_timeout'), current_setting('transaction_isolation'), current_setting('jit')",
)


def key(number: int) -> RouteKey:
    return RouteKey("team-a", "payments", "prod", f"v{number}")


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port
    return port


def through(url: str, pooler: int) -> str:
    return url.replace(f":{port_of(url)}/", f":{pooler}/")


@pytest.fixture(scope="module")
def pooler(engines) -> Iterator[int]:
    """The port of a PgBouncer that has three sessions for all connections."""
    require("PgBouncer", find("pgbouncer") is not None, "make tools fetches it")
    with pgbouncer(port_of(engines.urls["DATABASE_URL"]), "transaction", "default_pool_size = 3") as port:
        yield port


@pytest.fixture
def pooled(database_url: str, pooler: int) -> str:
    """The URL of an empty database through PgBouncer."""
    return through(database_url, pooler)


@asynccontextmanager
async def opened(url: str, *, size: int = 4, patience: float = 1.5, **options: object) -> AsyncIterator[Database]:
    database = Database(url, pool_min=size, pool_max=2 * size, timeout=patience, **options)  # type: ignore[arg-type]
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def test_reads_writes_and_imports_share_few_sessions(pooled: str, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name, value in THEIRS.items():
            alter = sql.SQL("ALTER DATABASE {} SET {} = {}")
            database_name = sql.Identifier(database_url.rpartition("/")[2])
            connection.execute(alter.format(database_name, sql.Identifier(name), value))
    async with opened(pooled, patience=5.0, session_url=database_url) as database:
        store, bulk, history = PostgresStore(database), PostgresBulkStore(database), PostgresHistory(database)
        committer = GroupCommitter(store, MemoryCache(), lambda _: None)

        async def create(number: int) -> None:
            await committer.create(Create(key(number), URL, {"n": str(number)}), Intent("ann"))

        async def load(number: int) -> None:
            for other in (key(number + 1), key(number).family_key):
                snapshots = await store.load([key(number), other])
                assert snapshots[0].as_of == snapshots[1].as_of
            assert await history.list_routes_as_of(RouteQuery(), 0) == []
            assert [snapshot.value for snapshot in await history.load_as_of([key(number)], 0)] == [None]

        async def add(number: int) -> None:
            wanted = [Wanted(key(1000 * number + place), URL, {}, None, 0) for place in range(50)]
            async with bulk.begin_import() as transaction:
                await transaction.stage(wanted)
                await transaction.lock("", Intent("ann"), Existing.UPDATE)
                await transaction.merge()

        async def scan() -> None:
            async with store.scan(RouteQuery(limit=7)) as table:
                assert sum([len(batch) async for batch in table.batches]) == table.clock.revision

        work = [*map(create, range(40)), *map(load, range(40)), *map(add, range(1, 5)), *(scan() for _ in range(10))]
        await asyncio.gather(*work)

        assert (await store.clock()).revision == 40 + 4 * 50
        assert len(await store.list_routes(RouteQuery(limit=1000))) == 40 + 4 * 50
        assert await database.exchange(Step(SHOWN)) == [[("5s", "serializable", "off")]]
        async with database.connection() as connection:
            assert await connection.exchange(BEGIN, Step(SHOWN), COMMIT) == [[], [("5s", "read committed", "off")], []]
        async with database.connection() as connection:
            shown = await (await connection.execute(SHOWN.sql)).fetchone()
            assert shown == ("5s", "read committed", "off")
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as connection:
        left = "SELECT count(*) FROM pg_class WHERE relname = 'staged_routes'"
        assert connection.execute(left).fetchone() == (0,)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("20s",)


async def test_a_server_that_is_not_told_of_the_pooler_refuses_it(pooled: str) -> None:
    async with opened(pooled, size=1) as database:
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as raised:
                await PostgresStore(database).clock()
            assert database.explain(raised.value) == REFUSED
        with pytest.raises(StoreUnavailable) as raised:
            await database.dedicated()
        assert database.explain(raised.value) == REFUSED


@asynccontextmanager
async def held(pooled: str, process: int) -> AsyncIterator[None]:
    """Keep ``process``, one of the pooler's three, in a transaction, and leave the others free."""
    holders = {}
    while process not in holders:
        holder = await psycopg.AsyncConnection.connect(pooled)
        row = await (await holder.execute("SELECT pg_backend_pid()")).fetchone()
        assert row
        holders[row[0]] = holder
    for other in holders.keys() - {process}:
        await holders[other].close()
    yield
    await holders[process].close()


async def test_a_pooler_that_is_found_out_late_is_refused_before_anything_is_written(
    pooled: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While others use the pooler, its mode may not show at once: the guard of each transaction is what counts."""

    async def find_nothing(*_: object) -> None: ...

    monkeypatch.setattr("pointsman_server.adapters.postgres.pooler.examine", find_nothing)
    database = Database(pooled)
    async with AsyncExitStack() as stack:
        connection = await database.dedicated()
        stack.push_async_callback(connection.close)
        assert connection.prologue
        await stack.enter_async_context(held(pooled, int(connection.prologue.values[0] or 0)))
        with pytest.raises(StoreUnavailable) as raised:
            await database.exchange_on(connection, Step(Statement("", "CREATE TABLE written (number int)")))
        assert database.explain(raised.value) == REFUSED
        assert connection.closed
    with psycopg.connect(database_url) as direct:
        assert direct.execute("SELECT to_regclass('written')").fetchone() == (None,)


async def test_two_leaders_do_not_share_a_session(engines, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session lock is granted again to who has it: of two connections that share one, both would lead."""

    async def find_nothing(*_: object) -> None: ...

    monkeypatch.setattr("pointsman_server.adapters.postgres.pooler.examine", find_nothing)
    with pgbouncer(port_of(database_url), "transaction", "default_pool_size = 1") as port:
        shared = through(database_url, port)
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(opened(shared, session_url=shared))
            leaders = []
            for _ in range(2):
                connection = await database.dedicated()
                stack.push_async_callback(connection.close)
                connection.prepares = False  # as if the pooler prepared statements wherever they are needed
                leaders.append(PostgresLeadership(database, connection))
            await leaders[0].begin()
            with pytest.raises(StoreUnavailable) as raised:
                await leaders[1].begin()
            assert database.explain(raised.value) == REFUSED


async def test_the_relay_leads_by_the_session_url(pooled: str, database_url: str) -> None:
    async with opened(pooled, session_url=database_url) as database:
        log = PostgresRelayLog(database)
        await log.check_session()
        async with log.lead() as leadership:
            committer = GroupCommitter(PostgresStore(database), MemoryCache(), lambda _: None)
            waiting = asyncio.create_task(leadership.wait(30))
            await committer.create(Create(key(1), URL, {}), Intent("ann"))
            async with asyncio.timeout(10):
                await waiting
            assert [change.revision for change in await leadership.unpublished(10)] == [1]


async def test_a_session_url_of_another_database_is_refused(
    pooled: str, template_database: str, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE clock SET epoch = gen_random_uuid()")
    async with opened(pooled, session_url=template_database) as database:
        log = PostgresRelayLog(database)
        with pytest.raises(StoreUnavailable) as raised:
            await log.check_session()
        assert (
            database.explain(raised.value) == "is another database than that of DATABASE_URL: its epoch is another one"
        )
        with pytest.raises(StoreUnavailable):
            async with log.lead():
                pass


def test_a_migration_needs_a_session(pooled: str, database_url: str) -> None:
    with pytest.raises(MigrationError) as raised:
        migrate(pooled)
    assert str(raised.value).endswith(REFUSED)
    assert migrate(database_url) == (head(), head())


def test_a_migration_that_lost_its_lock_changes_nothing(engines, pooler: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pooler was not found out, and lends another session, where the lock is not held."""
    monkeypatch.setattr("pointsman_server.adapters.postgres.migrations.examine_now", lambda *_: None)
    monkeypatch.setattr("pointsman_server.adapters.postgres.migrations.holds", lambda _lock: "false")
    url = create_database(engines.urls["DATABASE_URL"])
    try:
        with pytest.raises(MigrationError) as raised:
            migrate(through(url, pooler))
        assert str(raised.value).endswith(REFUSED)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT to_regclass('routes')").fetchone() == (None,)
    finally:
        drop_database(url)
