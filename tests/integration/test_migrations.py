"""The schema: made once, whoever comes first, and the same for everyone."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from pointsman_server.adapters.postgres import migrations
from pointsman_server.adapters.postgres.migrations import AUDIT, LOCK, STORE, MigrationError, head, migrate, upgrade
from pointsman_server.audit.hash_chain import canonical
from pointsman_server.embedded import Engines
from tests.support.changes import make_change
from tests.support.engines import create_database, drop_database
from tests.support.waiting import eventually

AUDIT_TABLES = {"audit_chain", "audit_compactions", "audit_log", "audit_version"}
TABLES = AUDIT_TABLES | {
    "alembic_version",
    "api_keys",
    "clock",
    "history_compactions",
    "relay",
    "requests",
    "route_changes",
    "routes",
    "traffic",
}
REWRITES = ("UPDATE audit_log SET change = 'y'", "DELETE FROM audit_log", "TRUNCATE audit_log")
MIGRATE = "import sys; from pointsman_server.adapters.postgres.migrations import migrate; print(*migrate(sys.argv[1]))"


@pytest.fixture
def empty_database(engines: Engines) -> Iterator[str]:
    url = create_database(engines.urls["DATABASE_URL"])
    yield url
    drop_database(url)


def query(url: str, sql: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(sql).fetchall()


def tables(url: str) -> set[str]:
    return {name for (name,) in query(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def schema(url: str) -> list[tuple[Any, ...]]:
    """Describe every column, index, constraint and trigger."""
    return query(
        url,
        """
        SELECT 'column', table_name::text, column_name::text, data_type || is_nullable || coalesce(collation_name, '')
          FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
                    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid)
                    FROM pg_trigger WHERE NOT tgisinternal
        ORDER BY 1, 2, 3, 4
        """,
    )


def check_one_clean_schema(url: str) -> None:
    assert tables(url) == TABLES
    assert query(url, "SELECT version_num FROM alembic_version") == [(head(),)]
    assert query(url, "SELECT count(*), min(revision) FROM clock") == [(1, 0)]
    assert query(url, "SELECT count(*), min(revision) FROM relay") == [(1, 0)]


def test_an_empty_database_gets_the_schema_and_the_answer_says_from_and_to(empty_database: str) -> None:
    assert migrate(empty_database) == (None, head())
    check_one_clean_schema(empty_database)


def test_a_second_run_changes_nothing(empty_database: str) -> None:
    migrate(empty_database)
    before, epoch = schema(empty_database), query(empty_database, "SELECT epoch FROM clock")
    assert migrate(empty_database) == (head(), head())
    assert schema(empty_database) == before
    assert query(empty_database, "SELECT epoch FROM clock") == epoch


def test_four_threads_at_once_all_succeed_and_one_of_them_does_it(empty_database: str, template_database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(migrate, [empty_database] * 4))
    assert sorted(results, key=str) == [(head(), head())] * 3 + [(None, head())]
    check_one_clean_schema(empty_database)


def test_two_processes_at_once_all_succeed_and_one_of_them_does_it(empty_database: str) -> None:
    command = [sys.executable, "-c", MIGRATE, empty_database]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = sorted(process.communicate(timeout=120)[0].strip() for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == [f"{head()} {head()}", f"None {head()}"]
    check_one_clean_schema(empty_database)


def test_every_database_has_an_epoch_of_its_own(empty_database: str, database_url: str) -> None:
    migrate(empty_database)
    epochs = [query(url, "SELECT epoch FROM clock") for url in (empty_database, database_url)]
    # A copy has the epoch of what it was copied from: it has its history, too.
    assert epochs[0] != epochs[1]


def test_who_finds_another_migrator_waits_only_so_long_and_changes_nothing(empty_database: str) -> None:
    with psycopg.connect(empty_database) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        with pytest.raises(MigrationError, match="another migration holds the lock"):
            migrate(empty_database, patience=0.0)
    assert tables(empty_database) == set()
    assert migrate(empty_database) == (None, head())


def test_the_lock_is_free_again_after_a_migration_that_failed(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE routes (in_the_way int)")
    with pytest.raises(Exception, match="already exists"):
        migrate(empty_database)
    assert tables(empty_database) == {"routes"}  # what came before the failure is rolled back
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("DROP TABLE routes")
    assert migrate(empty_database, patience=0.0) == (None, head())
    check_one_clean_schema(empty_database)


def test_a_database_that_cannot_be_reached_is_an_error_at_once(unused_tcp_port: int) -> None:
    with pytest.raises(
        MigrationError, match=r"PostgreSQL at 127\.0\.0\.1:\d+ cannot be reached: .*Connection refused$"
    ) as raised:
        migrate(f"postgresql://pointsman:SECRET@127.0.0.1:{unused_tcp_port}/pointsman")
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO clock DEFAULT VALUES",
        "INSERT INTO clock (single) VALUES (false)",
        "UPDATE clock SET revision = -1",
        "INSERT INTO relay DEFAULT VALUES",
    ],
)
def test_there_is_one_clock_and_one_relay(database_url: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.IntegrityError):
        query(database_url, statement)


def test_the_audit_log_is_append_only(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO audit_log (epoch, revision, change) VALUES ('e', 1, 'x')")
        connection.execute("INSERT INTO audit_chain (epoch, revision, hash) VALUES ('e', 1, sha256('x'))")
    for statement in (*REWRITES, "UPDATE audit_chain SET revision = 2", "DELETE FROM audit_chain"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            query(database_url, statement)
    assert query(database_url, "SELECT revision, change FROM audit_log") == [(1, b"x")]


def test_the_audit_log_may_have_a_database_of_its_own(empty_database: str, engines: Engines) -> None:
    audit = create_database(engines.urls["DATABASE_URL"])
    try:
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(migrate, [empty_database] * 4, [audit] * 4))
        assert sorted(results, key=str) == [(head(), head())] * 3 + [(None, head())]
        assert tables(audit) == AUDIT_TABLES
        assert query(audit, "SELECT version_num FROM audit_version") == [(head(AUDIT),)]
    finally:
        drop_database(audit)


def test_an_audit_database_that_cannot_be_reached_is_named(empty_database: str, unused_tcp_port: int) -> None:
    with pytest.raises(
        MigrationError, match=r"the audit database: PostgreSQL at 127\.0\.0\.1:\d+ cannot be reached"
    ) as raised:
        migrate(empty_database, f"postgresql://u:SECRET@127.0.0.1:{unused_tcp_port}/d")
    assert "SECRET" not in str(raised.value)


def test_an_audit_log_without_epochs_keeps_its_rows(empty_database: str) -> None:
    upgrade(empty_database, STORE)
    rows = [(revision, canonical(make_change(revision, epoch=f"e{revision % 2}"))) for revision in range(1, 2501)]
    with psycopg.connect(empty_database, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO audit_log (revision, change) VALUES (%s, %s)", rows)
    migrate(empty_database)
    kept = query(empty_database, "SELECT epoch, revision, change FROM audit_log ORDER BY revision")
    assert kept == [(f"e{revision % 2}", revision, change) for revision, change in rows]
    for statement in REWRITES:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            query(empty_database, statement)


# A row of route_changes, in the form of every schema.
CHANGE = """
INSERT INTO route_changes (revision, event_id, kind, tenant, service, env, version, before, after, actor, reason,
                           request_id, occurred_at, epoch, traceparent)
VALUES ({revision}, gen_random_uuid(), '{kind}', 'a', 's', 'e', '{version}', {before}, {after}, 'ann', '', '', now(),
        gen_random_uuid(), '')
"""


def change(revision: int, kind: str = "CREATED", version: str = "v1", before: str = "NULL", after: str = "'{}'") -> str:
    return CHANGE.format(revision=revision, kind=kind, version=version, before=before, after=after)


@pytest.fixture
def before_traffic(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a database with some history and the schema before that of traffic."""
    to_the_end = migrations.command.upgrade
    with monkeypatch.context() as patched:
        patched.setattr(migrations.command, "upgrade", lambda config, _head: to_the_end(config, "0005"))
        upgrade(empty_database, STORE)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        for number in range(1, 4):
            connection.execute(change(number, version=f"v{number}").encode())
        connection.execute(change(4, "DELETED", before="'{}'", after="NULL").encode())
    return empty_database


BUILDING = """
SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'
"""


def history_file(url: str) -> object:
    return query(url, "SELECT pg_relation_filenode('route_changes')")


def is_indexed(url: str) -> list[tuple[Any, ...]]:
    return query(url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'route_changes_deleted'::regclass")


def test_traffic_comes_without_a_rewrite_of_the_history(before_traffic: str) -> None:
    file = history_file(before_traffic)
    rows = query(before_traffic, "SELECT * FROM route_changes ORDER BY revision")
    assert upgrade(before_traffic, STORE) == "0005"
    assert history_file(before_traffic) == file
    assert [row[:-2] for row in query(before_traffic, "SELECT * FROM route_changes ORDER BY revision")] == rows
    columns = "SELECT DISTINCT change_set_id, change_set_size FROM route_changes"
    assert query(before_traffic, columns) == [(0, 0)]
    assert is_indexed(before_traffic) == [(True,)]


def test_what_an_interrupted_migration_left_of_the_index_is_built_again(before_traffic: str) -> None:
    with psycopg.connect(before_traffic, autocommit=True) as connection:
        connection.execute("CREATE INDEX route_changes_deleted ON route_changes (tenant)")
    upgrade(before_traffic, STORE)
    assert is_indexed(before_traffic) == [(True,)]
    ((definition,),) = query(before_traffic, "SELECT pg_get_indexdef('route_changes_deleted'::regclass)")
    assert definition.endswith("(tenant, service, env, version, revision) WHERE (kind = 'DELETED'::text)")


def test_writers_go_on_while_the_index_waits_for_one_of_them(before_traffic: str) -> None:
    with ThreadPoolExecutor(1) as pool, psycopg.connect(before_traffic) as slow:
        slow.execute(change(5, version="v5").encode())
        migrating = pool.submit(upgrade, before_traffic, STORE)
        with psycopg.connect(before_traffic, autocommit=True) as other:
            assert eventually(lambda: (other.execute(BUILDING).fetchone() or (0,))[0] == 1)
            other.execute("SET statement_timeout = '10s'")
            other.execute(change(6, version="v6").encode())
        slow.commit()
        assert migrating.result(timeout=60) == "0005"
    assert is_indexed(before_traffic) == [(True,)]


@pytest.mark.parametrize(
    "statement",
    [
        change(1, "OTHER"),
        change(1, "CREATED", before="'{}'"),
        change(1, "UPDATED"),
        change(1, "DELETED", before="'{}'"),
        change(1, "CREATED", version=""),
        change(1, "TRAFFIC_SET"),
        change(1, "TRAFFIC_SET", version="", after="NULL"),
        change(1, "TRAFFIC_DELETED", version="", after="NULL"),
        change(1, "TRAFFIC_DELETED", version="", before="'{}'"),
    ],
)
def test_the_history_takes_no_change_that_cannot_be(database_url: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        query(database_url, statement.encode())


def test_the_history_takes_changes_of_traffic(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in (
            change(1, "TRAFFIC_SET", version=""),
            change(2, "TRAFFIC_SET", version="", before="'{}'"),
            change(3, "TRAFFIC_DELETED", version="", before="'{}'", after="NULL"),
        ):
            connection.execute(statement.encode())
