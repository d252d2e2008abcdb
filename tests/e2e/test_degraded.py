"""Health tells the truth: what is out, and whether reads can be answered all the same."""

import os
import signal

import psycopg
import pytest

from pointsman import Client, Unavailable
from pointsman_server.embedded import Engines, start
from tests.support.processes import get_json, get_metric, run, serve
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
KEY = "team-a/payments/prod/v1"


@pytest.fixture
def own(tmp_path) -> Engines:
    """A PostgreSQL and a Redis of this test alone, to be stopped."""
    with start(tmp_path / "engines", ("postgres", "redis"), durable=False) as engines:
        run("pointsman-server", "migrate", DATABASE_URL=engines.urls["DATABASE_URL"])
        yield engines


def environ(own: Engines) -> dict[str, str]:
    return {
        "DATABASE_URL": own.urls["DATABASE_URL"],
        "REDIS_URL": own.urls["REDIS_URL"],
        "POINTSMAN_ROLES": "api",
        "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
        "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "1",
    }


def status(http: str) -> tuple[int, str]:
    code, body = get_json(f"{http}/health/ready")
    return code, str(body["status"])


def test_with_postgresql_down_what_is_cached_is_served_and_flagged_and_no_write_is_ok(own):
    with serve(**environ(own)) as (_, address, http), Client(address, max_attempts=1) as client:
        created = client.create(KEY, URL)
        assert eventually(lambda: status(http) == (200, "ready"))

        os.kill(own.pids["postgres"], signal.SIGKILL)
        assert eventually(lambda: status(http) == (200, "degraded"))

        answer = client.resolve(KEY, min_revision=0)
        assert answer.route.url == URL
        assert answer.source.value in ("LOCAL", "REDIS")
        assert answer.as_of_revision >= created.revision
        with pytest.raises(Unavailable):
            client.update(KEY, url=f"{URL}/new")
        with pytest.raises(Unavailable):
            client.resolve("team-a/payments/prod/never-asked", min_revision=0)
        assert get_metric(http, r'pointsman_dependency_up{dependency="postgres"}') == 0

        # Without PostgreSQL and Redis nothing can be answered for long.
        os.kill(own.pids["redis"], signal.SIGKILL)
        assert eventually(lambda: status(http) == (503, "not ready"))


def test_with_redis_down_reads_and_writes_go_on(own):
    with serve(**environ(own)) as (_, address, http), Client(address) as client:
        os.kill(own.pids["redis"], signal.SIGKILL)
        assert eventually(lambda: status(http) == (200, "degraded"))

        client.create(KEY, URL)
        assert client.resolve(KEY).route.url == URL
        assert get_metric(http, r'pointsman_dependency_up{dependency="redis"}') == 0


def test_a_read_only_postgresql_is_told_and_reads_go_on(own):
    with serve(**environ(own)) as (_, address, http), Client(address, max_attempts=1) as client:
        client.create(KEY, URL)
        with psycopg.connect(own.urls["DATABASE_URL"], autocommit=True) as connection:
            database = connection.info.dbname
            connection.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

        def writes() -> str:
            return get_json(f"{http}/health/ready")[1]["dependencies"]["writes"]["detail"]

        # The connections were cut too: it takes a moment until others are there.
        assert eventually(lambda: "read-only" in writes() and status(http) == (200, "degraded"))
        assert client.resolve(KEY).route.url == URL
        with pytest.raises(Unavailable):
            client.update(KEY, url=f"{URL}/new")
