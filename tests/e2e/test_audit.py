"""``pointsman-server audit verify``: what it says of a sound log, and of one that somebody has touched."""

import asyncio
import json
import re
from collections.abc import Iterator

import psycopg
import pytest

from pointsman import Client
from pointsman_server.adapters.postgres.audit_log import PostgresAuditLog
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.lineage import PostgresLineage
from pointsman_server.adapters.postgres.migrations import migrate
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.routes import ChangeKind, Draft, RouteKey
from pointsman_server.ports.store import ChangeQuery, Intent
from tests.support.changes import commit
from tests.support.engines import create_database, drop_database
from tests.support.processes import get_metric, run, serve
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
DOWN = "postgresql://u:canary@127.0.0.1:1/d"
UNREACHABLE = (
    "PostgreSQL at 127.0.0.1:1 cannot be reached: "
    'connection to server at "127.0.0.1", port 1 failed: Connection refused'
)


@pytest.fixture
def audit_url(database_url: str) -> Iterator[str]:
    """A database for the audit log alone."""
    url = create_database(database_url)
    migrate(database_url, url)
    yield url
    drop_database(url)


def write(database_url: str, audit_url: str, count: int, audited: int) -> None:
    """Make ``count`` changes, of which the first ``audited`` have reached the audit log."""

    async def work() -> None:
        databases = [Database(url, pool_min=1, pool_max=2, timeout=30) for url in (database_url, audit_url)]
        for database in databases:
            await database.open()
        store = PostgresStore(databases[0])
        keys = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(count)]
        changes = await commit(store, [Draft(ChangeKind.CREATED, key, None, URL, False) for key in keys], Intent("ann"))
        await PostgresAuditLog(databases[1], PostgresLineage(databases[0])).append(changes[:audited])
        assert len(await store.list_changes(ChangeQuery(limit=1000))) == count
        for database in databases:
            await database.close()

    asyncio.run(work())


def tamper(url: str, *statements: str) -> None:
    """Rewrite the log as only its owner can: by disabling the triggers."""
    with psycopg.connect(url) as connection:
        for table in ("audit_log", "audit_chain"):
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        for statement in statements:
            connection.execute(statement)
        for table in ("audit_log", "audit_chain"):
            connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def verify(database_url: str, *flags: str, **environ: str):
    return run("pointsman-server", "audit", "verify", *flags, DATABASE_URL=database_url, **environ)


def test_what_a_server_wrote_verifies_in_a_database_of_its_own(database_url, audit_url, redis_url, kafka_broker):
    both = {"DATABASE_URL": database_url, "POINTSMAN_AUDIT_DATABASE_URL": audit_url}
    environ = {
        **both,
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "POINTSMAN_KAFKA_TOPIC": f"audit-{audit_url.rpartition('/')[2]}",
    }
    # Written before there was an audit log: no consumer will ever bring it.
    write(database_url, database_url, 3, 3)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE relay SET revision = 3")

    with serve(**environ) as (process, address, http), Client(address) as client:
        client.create("team-a/orders/prod/v1", URL)
        last = client.update("team-a/orders/prod/v1", url=f"{URL}/new").revision
        assert eventually(lambda: get_metric(http, "pointsman_audit_chain_revision") == last, 60), process.errors
        assert get_metric(http, r'pointsman_dependency_up{dependency="audit"}') == 1
    done = run("pointsman-server", "audit", "verify", **both)

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"^5 rows, revisions 1 to 5, head [0-9a-f]{64} \(epoch [0-9a-f-]{36}\)$", done.stdout, re.MULTILINE
    )
    assert "the chain is 0 revisions behind the clock, which is at 5" in done.stdout


def test_it_says_how_far_behind_the_chain_is(database_url):
    nothing = verify(database_url)
    write(database_url, database_url, 5, 3)
    done, as_json = verify(database_url), verify(database_url, "--json")

    assert (nothing.returncode, nothing.stdout) == (0, "0 rows\nthe chain is 0 revisions behind the clock\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 rows, revisions 1 to 3, head " in done.stdout
    assert "the chain is 2 revisions behind the clock, which is at 5" in done.stdout
    report = json.loads(as_json.stdout)
    assert (report["ok"], report["broken"], report["behind"]) == (True, None, 2)
    assert [(chain["rows"], chain["first"], chain["last"]) for chain in report["epochs"]] == [(3, 1, 3)]


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (["UPDATE audit_log SET change = set_byte(change, 5, get_byte(change, 5) # 1) WHERE revision = 3"], "changed"),
        (["DELETE FROM audit_log WHERE revision = 3"], "missing revision"),
        (
            ["DELETE FROM audit_log WHERE revision = 3", "DELETE FROM audit_chain WHERE revision = 3"],
            "missing revision",
        ),
        (["UPDATE audit_chain SET hash = sha256('x') WHERE revision = 3"], "wrong link"),
        (["DELETE FROM audit_chain WHERE revision = 3"], "wrong link"),
    ],
)
def test_the_first_row_that_was_touched_is_named(database_url, statements, problem):
    write(database_url, database_url, 6, 6)
    tamper(database_url, *statements)
    done = verify(database_url, "--json")

    assert done.returncode == 1
    broken = json.loads(done.stdout)["broken"]
    assert broken["revision"] == 3
    assert broken["problem"].startswith(problem)


def test_a_broken_log_in_a_database_of_its_own_is_said_in_words(database_url, audit_url):
    write(database_url, audit_url, 6, 6)
    environ = {"POINTSMAN_AUDIT_DATABASE_URL": audit_url}
    before = verify(database_url, **environ)
    tamper(audit_url, "DELETE FROM audit_log WHERE revision = 4")
    done = verify(database_url, **environ)

    assert before.returncode == 0, before.stdout + before.stderr
    assert done.returncode == 1
    assert re.search(r"^BROKEN at revision 4 of epoch [0-9a-f-]{36}: missing revision", done.stdout, re.MULTILINE)


def test_a_database_that_is_down_is_named(database_url):
    down = verify(DOWN)
    audit_down = verify(database_url, POINTSMAN_AUDIT_DATABASE_URL=DOWN)

    for done in (down, audit_down):
        assert done.returncode == 1
        assert done.stderr == f"pointsman-server: {UNREACHABLE}\n"


def test_a_database_without_the_schema_is_named(engines):
    url = create_database(engines.urls["DATABASE_URL"])
    try:
        done = verify(url)
    finally:
        drop_database(url)

    assert done.returncode == 1
    assert "has no schema: run `pointsman-server migrate`" in done.stderr


def test_without_the_store_the_log_verifies_and_how_far_it_is_stays_unknown(database_url, audit_url):
    write(database_url, audit_url, 2, 2)
    done = verify(DOWN, POINTSMAN_AUDIT_DATABASE_URL=audit_url)

    assert done.returncode == 0, done.stderr
    assert "2 rows, revisions 1 to 2" in done.stdout
    assert f"not known: {UNREACHABLE}" in done.stdout
    assert "canary" not in done.stdout + done.stderr
