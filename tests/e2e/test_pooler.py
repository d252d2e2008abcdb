"""A server behind PgBouncer: in session mode, where it refuses startup parameters, and in transaction mode."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import pytest

from pointsman import Client, Consistency, ImportedRoute
from pointsman_server.adapters.postgres.migrations import migrate
from tests.support.debian import find
from tests.support.engines import create_database, drop_database
from tests.support.pgbouncer import pgbouncer
from tests.support.pooler import pooler
from tests.support.processes import get_json, get_metric, run, serve
from tests.support.tools import require
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
URL = "https://payments.internal:8443"
REFUSED = "unsupported startup parameter: options"
NO_SESSION = "is behind a pooler in transaction mode, and this needs a session: set POINTSMAN_DATABASE_SESSION_URL"
# The proxy speaks PgBouncer's words everywhere; PgBouncer itself is tried where it can be had.
POOLERS = {"proxy": pooler} | ({"pgbouncer": pgbouncer} if find("pgbouncer") else {})


@pytest.fixture(params=POOLERS.values(), ids=POOLERS)
def pooled(engines, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database, through a pooler."""
    run_pooler: Callable[[int], AbstractContextManager[int]] = request.param
    url = create_database(engines.urls["DATABASE_URL"])
    server = urlsplit(url).port
    assert server
    try:
        with run_pooler(server) as port:
            yield url.replace(f":{server}/", f":{port}/")
    finally:
        drop_database(url)


@pytest.fixture
def direct(engines) -> Iterator[str]:
    """The URL of an empty database."""
    url = create_database(engines.urls["DATABASE_URL"])
    yield url
    drop_database(url)


@pytest.fixture
def in_transactions(direct: str) -> Iterator[str]:
    """The URL of the same database through PgBouncer in transaction mode, which has three sessions for everyone."""
    require("PgBouncer", find("pgbouncer") is not None, "make tools fetches it")
    server = urlsplit(direct).port
    assert server
    with pgbouncer(server, "transaction", "default_pool_size = 3") as port:
        yield direct.replace(f":{server}/", f":{port}/")


def test_a_server_works_through_a_pooler_in_transaction_mode(direct, in_transactions, redis_url, kafka_broker):
    environ = {
        "DATABASE_URL": in_transactions,
        "POINTSMAN_DATABASE_SESSION_URL": direct,
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "POINTSMAN_KAFKA_TOPIC": f"transactions-{direct.rpartition('/')[2]}",
        "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
        "POINTSMAN_API_KEYS": "true",
    }
    migrated = run("pointsman-server", "migrate", **environ)
    assert migrated.returncode == 0, migrated.stderr
    made = run("pointsman-server", "keys", "create", "ci", "--grant", "admin:*", **environ)
    assert made.returncode == 0, made.stderr
    with serve(**environ) as (process, address, http), Client(address, token=made.stdout.strip()) as client:
        assert eventually(lambda: get_json(f"{http}/health/ready")[0] == 200, 30), process.errors
        assert process.wait_for_log("the relay leads")
        with ThreadPoolExecutor(8) as pool:
            routes = list(pool.map(lambda number: client.create(f"team-a/payments/prod/v{number}", URL), range(60)))
        assert sorted(route.revision for route in routes) == list(range(1, 61))
        client.import_routes([ImportedRoute(f"team-b/orders/prod/v{number}", URL) for number in range(200)])
        assert len(list(client.list())) == 260
        assert client.resolve("team-b/orders/prod/v7", consistency=Consistency.FULLY_CONSISTENT).revision == 68
        assert eventually(lambda: get_metric(http, "pointsman_audit_chain_revision") == 260, 30), process.errors
        assert get_metric(http, "pointsman_relay_lag_revisions") == 0
        assert [event for event in process.log_lines() if event["level"] == "error"] == []
    checked = run("pointsman-server", "check", **environ)
    assert checked.returncode == 0, checked.stdout
    verified = run("pointsman-server", "audit", "verify", **environ)
    assert "260 rows" in verified.stdout, verified.stderr
    restored = run("pointsman-server", "restore", "--yes", **environ)
    assert restored.returncode == 0, restored.stderr


def test_a_pooler_in_transaction_mode_is_refused_where_no_url_leads_past_it(direct, in_transactions, redis_url):
    migrate(direct)
    environ = {"DATABASE_URL": in_transactions, "REDIS_URL": redis_url, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    migrated, checked = (run("pointsman-server", command, **environ) for command in ("migrate", "check"))
    with serve(**environ) as (_, _, http):
        code, health = get_json(f"{http}/health/ready")

    assert (migrated.returncode, checked.returncode, code) == (1, 1, 503)
    assert NO_SESSION in migrated.stderr
    assert NO_SESSION in " ".join(checked.stdout.split())
    assert NO_SESSION in health["dependencies"]["postgres"]["detail"]


def test_a_session_url_that_leads_to_the_pooler_too_is_refused(direct, in_transactions, redis_url, kafka_broker):
    migrate(direct)
    environ = {
        "DATABASE_URL": in_transactions,
        "POINTSMAN_DATABASE_SESSION_URL": in_transactions,
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "POINTSMAN_KAFKA_TOPIC": f"twice-{direct.rpartition('/')[2]}",
    }
    migrated, checked = (run("pointsman-server", command, **environ) for command in ("migrate", "check"))

    assert (migrated.returncode, checked.returncode) == (1, 1)
    assert NO_SESSION in migrated.stderr
    assert "down relay: the relay has no session: PostgreSQL at 127.0.0.1" in " ".join(checked.stdout.split())
    assert NO_SESSION in " ".join(checked.stdout.split())


def test_a_server_works_through_a_pooler_in_session_mode(pooled, redis_url, kafka_broker):
    environ = {
        "DATABASE_URL": pooled,
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "POINTSMAN_KAFKA_TOPIC": f"pooled-{pooled.rpartition('/')[2]}",
        "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
    }
    migrated = run("pointsman-server", "migrate", DATABASE_URL=pooled)
    assert migrated.returncode == 0, migrated.stderr
    with serve(**environ) as (process, address, http), Client(address) as client:
        assert eventually(lambda: get_json(f"{http}/health/ready")[0] == 200, 30), process.errors
        client.create(KEY, URL)
        assert client.resolve(KEY).url == URL
        assert process.wait_for_log("the relay leads")
    checked = run("pointsman-server", "check", **environ)
    assert checked.returncode == 0, checked.stdout


def test_a_startup_parameter_that_the_pooler_refuses_is_named(pooled, redis_url):
    url = f"{pooled}?options=-c%20work_mem%3D8MB"
    environ = {"DATABASE_URL": url, "REDIS_URL": redis_url, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    migrated, checked = (run("pointsman-server", command, **environ) for command in ("migrate", "check"))
    with serve(**environ) as (process, _, http):
        code, health = get_json(f"{http}/health/ready")
        logged = process.log("a dependency is down, trying again")

    assert (migrated.returncode, checked.returncode, code) == (1, 1, 503)
    assert REFUSED in migrated.stderr
    assert REFUSED in " ".join(checked.stdout.split())
    assert REFUSED in health["dependencies"]["postgres"]["detail"]
    assert any(REFUSED in event["detail"] for event in logged)
