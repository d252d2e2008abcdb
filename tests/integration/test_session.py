"""Neither the URL nor the database replaces our session settings, and a database that is not in UTF-8 is refused."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.migrations import MigrationError, head, migrate
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import ChangeKind, Draft, RouteKey
from pointsman_server.embedded import Engines
from pointsman_server.ports.store import Intent, RouteQuery
from tests.support.changes import commit
from tests.support.engines import create_database, drop_database

KEY = RouteKey("team-a", "payments", "prod", "v1")
LABELS = {"owner": 'é ß 東京 \\ "'}
OURS = {
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": "5s",
    "default_transaction_isolation": "read committed",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "jit": "off",
}
THEIRS = {
    "statement_timeout": "500",
    "idle_in_transaction_session_timeout": "60000",
    "default_transaction_isolation": "serializable",
    "lock_timeout": "60000",
    "transaction_timeout": "60000",
    "idle_session_timeout": "60000",
    "client_encoding": "LATIN1",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "standard_conforming_strings": "off",
    "jit": "on",
}


async def settings_of(url: str) -> dict[str, Any]:
    """Read the settings of a pooled session, after using the store in it."""
    database = Database(url, pool_min=1, pool_max=1, timeout=5.0)
    await database.open()
    try:
        store = PostgresStore(database)
        await commit(store, [Draft(ChangeKind.CREATED, KEY, None, "https://x.internal", True, LABELS)], Intent("ann"))
        (route,) = await store.list_routes(RouteQuery())
        assert route.labels == LABELS
        async with database.connection() as connection:
            return {
                name: (await (await connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name)))).fetchone())[0]  # type: ignore[index]
                for name in OURS
            }
    finally:
        await database.close()


def set_for_database(url: str, settings: dict[str, str]) -> None:
    name = url.rpartition("/")[2]
    with psycopg.connect(url, autocommit=True, options="-c statement_timeout=0") as connection:
        for setting, value in settings.items():
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(sql.Identifier(name), sql.Identifier(setting), value)
            )


async def test_settings_of_the_database_do_not_replace_ours(database_url: str) -> None:
    set_for_database(database_url, THEIRS)
    assert await settings_of(database_url) == OURS


async def test_options_and_encoding_in_the_url_do_not_replace_ours(database_url: str) -> None:
    options = " ".join(f"-c {name}={value}" for name, value in THEIRS.items() if name != "client_encoding")
    assert await settings_of(f"{database_url}?options={quote(options)}&client_encoding=LATIN1") == OURS


async def test_a_dedicated_session_has_the_same_settings(database_url: str) -> None:
    set_for_database(database_url, THEIRS)
    connection = await Database(database_url, timeout=5.0).dedicated()
    for name, value in OURS.items():
        shown = await (await connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name)))).fetchone()
        assert shown == (value,), name
    await connection.close()


def test_settings_of_the_database_do_not_stop_a_migration(empty_database: str) -> None:
    set_for_database(empty_database, THEIRS)
    assert migrate(empty_database) == (None, head())


async def test_the_search_path_is_that_of_the_url(empty_database: str) -> None:
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE SCHEMA routing")
    url = f"{empty_database}?options={quote('-c search_path=routing')}"
    assert migrate(url) == (None, head())
    assert await settings_of(url) == OURS
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT count(*) FROM routing.routes").fetchone() == (1,)


# Databases that are not in UTF-8


@pytest.fixture
def empty_database(engines: Engines) -> Iterator[str]:
    url = create_database(engines.urls["DATABASE_URL"])
    yield url
    drop_database(url)


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def other_encoding(engines: Engines, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A database in another encoding: its URL, and the encoding."""
    url = create_database(engines.urls["DATABASE_URL"], encoding=request.param)
    yield url, request.param
    drop_database(url)


def refusal(encoding: str) -> str:
    return (
        f"has a database in the encoding {encoding}, and Pointsman needs UTF8: create another one with "
        "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it in the URL"
    )


def test_migrate_refuses_a_database_that_is_not_in_utf_8(other_encoding: tuple[str, str]) -> None:
    url, encoding = other_encoding
    with pytest.raises(MigrationError) as raised:
        migrate(url)
    assert str(raised.value).endswith(refusal(encoding))
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_migrate_refuses_an_audit_database_that_is_not_in_utf_8(
    empty_database: str, other_encoding: tuple[str, str]
) -> None:
    url, encoding = other_encoding
    with pytest.raises(MigrationError, match=r"^the audit database: PostgreSQL at ") as raised:
        migrate(empty_database, url)
    assert str(raised.value).endswith(refusal(encoding))


async def test_the_store_refuses_a_database_that_is_not_in_utf_8(other_encoding: tuple[str, str]) -> None:
    """Also one that has the schema, from a version that did not look."""
    url, encoding = other_encoding
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE clock AS SELECT gen_random_uuid() AS epoch, 0::bigint AS revision")
    database = Database(url, pool_min=1, pool_max=1, timeout=1.0)
    await database.open()
    with pytest.raises(StoreUnavailable) as raised:
        await PostgresStore(database).clock()
    assert database.explain(raised.value) == refusal(encoding)
    with pytest.raises(StoreUnavailable) as raised:
        await database.dedicated()
    assert database.explain(raised.value) == refusal(encoding)
    await database.close()
