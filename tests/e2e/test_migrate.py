"""``pointsman-server migrate``: what it says of a URL, a role or a database that it cannot work with."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from pointsman_server.adapters.postgres.migrations import head, migrate
from tests.support.engines import create_database, drop_database
from tests.support.postgres import Cluster, primary_and_standby
from tests.support.processes import free_port, get_json, run, serve

SECRET = "canary"
NEEDED = "the role that migrates needs CREATE on the schema and must own its tables"
ACCESS = "host all guarded 127.0.0.1/32 scram-sha-256\n"


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Cluster]]:
    """A primary, with a role that may create nothing and one that needs a password; and its standby."""
    with primary_and_standby(tmp_path_factory.mktemp("clusters"), access=ACCESS) as (primary, standby):
        primary.run_sql("CREATE ROLE guest LOGIN")
        primary.run_sql("CREATE ROLE guarded LOGIN PASSWORD 'right'")
        yield primary, standby


@pytest.fixture
def empty_database(engines) -> Iterator[str]:
    url = create_database(engines.urls["DATABASE_URL"])
    yield url
    drop_database(url)


def line(command: str, url: str, code: int, **environ: str) -> str:
    """Run a command that fails with ``code``, and return the one line that it prints."""
    done = run("pointsman-server", *command.split(), DATABASE_URL=url, **environ)
    assert done.returncode == code, done.stderr
    assert SECRET not in done.stderr
    (said,) = done.stderr.splitlines()
    return said.removeprefix("pointsman-server: ")


def test_a_url_of_several_hosts_migrates_the_one_that_takes_writes(clusters: tuple[Cluster, Cluster]) -> None:
    primary, standby = clusters
    primary.run_sql("CREATE DATABASE several OWNER pointsman")
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
    done = run(
        "pointsman-server",
        "migrate",
        DATABASE_URL=f"postgresql://pointsman@{hosts}/several?target_session_attrs=read-write",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"the schema is at {head()}, it was at nothing\n"


@pytest.mark.parametrize("command", ["migrate", "check", "serve", "restore --yes", "audit verify", "keys list"])
def test_a_parameter_that_postgresql_does_not_have_is_named(command: str) -> None:
    engines = {"REDIS_URL": "redis://127.0.0.1:1/0", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    said = line(command, f"postgresql://u:{SECRET}@127.0.0.1:1/d?schema=public", 2, **engines)
    assert said == "DATABASE_URL: PostgreSQL has no connection parameter 'schema'"


@pytest.mark.parametrize("url", [f"postgresql://u:p/{SECRET}@h/d", f"postgresql://u:{SECRET}%zz@h/d"])
def test_a_password_that_breaks_the_url_is_not_printed(url: str) -> None:
    assert "percent-encode special characters" in line("migrate", url, 2)


def test_the_url_of_the_audit_database_is_named(empty_database: str) -> None:
    other = f"postgresql://u:{SECRET}@h/d?pool=5"
    said = line("migrate", empty_database, 2, POINTSMAN_AUDIT_DATABASE_URL=other)
    assert said == "POINTSMAN_AUDIT_DATABASE_URL: PostgreSQL has no connection parameter 'pool'"


def test_a_value_that_a_parameter_cannot_have_is_named(empty_database: str) -> None:
    assert 'invalid sslmode value: "sometimes"' in line("migrate", f"{empty_database}?sslmode=sometimes", 1)


@pytest.mark.parametrize(
    ("role", "database", "words"),
    [
        (
            "guest",
            "pointsman",
            f"refuses a right: permission denied for schema public; {NEEDED}",
        ),
        ("pointsman", "nowhere", 'FATAL: database "nowhere" does not exist'),
        ("nobody", "pointsman", 'FATAL: role "nobody" does not exist'),
        (f"guarded:{SECRET}", "pointsman", 'FATAL: password authentication failed for user "guarded"'),
        ("pointsman", "pointsman?sslmode=require", "server does not support SSL, but SSL was required"),
        (
            "pointsman",
            "pointsman?options=-csearch_path%3Dabsent",
            "has no schema to create tables in: no schema has been selected to create in; check the search_path",
        ),
        (
            "pointsman",
            "pointsman?options=-cdefault_transaction_read_only%3Don",
            "is read-only: name the primary, or several hosts with target_session_attrs=read-write",
        ),
    ],
    ids=["no right", "no database", "no role", "wrong password", "no TLS", "no schema", "read-only"],
)
def test_what_the_server_refuses_is_said_in_one_line(
    clusters: tuple[Cluster, Cluster], role: str, database: str, words: str
) -> None:
    place = f"127.0.0.1:{clusters[0].port}"
    said = line("migrate", f"postgresql://{role}@{place}/{database}", 1)
    assert said.startswith(f"PostgreSQL at {place} ")
    assert said.endswith(words)


def test_a_standby_is_refused(clusters: tuple[Cluster, Cluster]) -> None:
    _, standby = clusters
    said = line("migrate", standby.url, 1)
    assert said == (
        f"PostgreSQL at 127.0.0.1:{standby.port} is read-only: "
        "name the primary, or several hosts with target_session_attrs=read-write"
    )


@pytest.mark.parametrize("table", ["alembic_version", "audit_version"])
def test_a_schema_of_a_newer_version_is_left_alone(empty_database: str, table: str) -> None:
    migrate(empty_database)
    with psycopg.connect(empty_database) as connection:
        connection.execute(sql.SQL("UPDATE {} SET version_num = 'z9'").format(sql.Identifier(table)))
    assert "the schema is at z9, which a newer version of pointsman-server made" in line("migrate", empty_database, 1)
    with psycopg.connect(empty_database) as connection:
        shown = connection.execute(sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(table)))
        assert shown.fetchall() == [("z9",)]


def test_migrate_check_and_serve_name_an_encoding_that_is_not_utf_8(engines, redis_url: str) -> None:
    url = create_database(engines.urls["DATABASE_URL"], encoding="SQL_ASCII")
    refusal = "has a database in the encoding SQL_ASCII, and Pointsman needs UTF8"
    environ = {"DATABASE_URL": url, "REDIS_URL": redis_url, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    try:
        migrated, checked = (run("pointsman-server", command, **environ) for command in ("migrate", "check"))
        with serve(**environ) as (process, _, http):
            code, health = get_json(f"{http}/health/ready")
            logged = process.log("a dependency is down, trying again")
            errors = process.errors
    finally:
        drop_database(url)

    assert (migrated.returncode, checked.returncode, code) == (1, 1, 503)
    assert refusal in migrated.stderr
    assert refusal in " ".join(checked.stdout.split())
    assert refusal in health["dependencies"]["postgres"]["detail"]
    assert any(refusal in event["detail"] for event in logged)
    assert "Traceback" not in migrated.stderr + checked.stderr + errors
