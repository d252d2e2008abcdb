"""A server behind PgBouncer in session mode, which refuses startup parameters that it does not track."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import pytest

from pointsman import Client
from tests.support.debian import find
from tests.support.engines import create_database, drop_database
from tests.support.pgbouncer import pgbouncer
from tests.support.pooler import pooler
from tests.support.processes import get_json, run, serve
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
URL = "https://payments.internal:8443"
REFUSED = "unsupported startup parameter: options"
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
