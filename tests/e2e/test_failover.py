"""PostgreSQL fails over under a running server, which goes on without a restart."""

import time
from pathlib import Path

import pytest

from pointsman import Client
from pointsman.errors import Unavailable
from pointsman_server.adapters.postgres.migrations import migrate
from tests.support.pooler import proxy
from tests.support.postgres import Cluster, primary_and_standby
from tests.support.processes import get_json, get_metric, serve
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
# Of the failover itself, the health check that notices it takes a second, and connecting anew at most two.
WRITES_AGAIN_SECONDS = 10.0


def turn_read_only(old: Cluster, new: Cluster) -> None:
    """As an operator or a fence does it: every connection stays open."""
    old.refuse_writes()
    new.promote(old)


def return_as_standby(old: Cluster, new: Cluster) -> None:
    """As Patroni does it: the old primary starts again behind the new one, and takes reads."""
    new.promote(old)
    old.stop()
    old.follow(new)
    old.begin()


@pytest.mark.parametrize("fail_over", [turn_read_only, return_as_standby])
def test_writes_and_the_relay_go_on_at_the_new_primary(tmp_path: Path, redis_url, kafka_broker, fail_over):
    with primary_and_standby(tmp_path) as (old, new), proxy(old.port) as address:
        migrate(old.url)
        environ = {
            "DATABASE_URL": old.url.replace(f":{old.port}/", f":{address.port}/"),
            "REDIS_URL": redis_url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
            "POINTSMAN_KAFKA_TOPIC": f"failover-{address.port}",
        }
        with serve(**environ) as (process, server, http), Client(server) as client:
            client.create("team-a/payments/prod/v1", URL)
            process.wait_for_log("the relay leads")

            fail_over(old, new)
            address.server = new.port
            began = time.monotonic()
            create_soon(client, "team-a/payments/prod/v2")
            took = time.monotonic() - began

            assert took < WRITES_AGAIN_SECONDS, process.errors
            assert eventually(lambda: get_json(f"{http}/health/ready")[1]["status"] == "ready"), process.errors
            process.wait_for_log("the relay leads", 2)
            assert eventually(lambda: get_metric(http, "pointsman_relay_lag_revisions") == 0), process.errors
            assert client.resolve("team-a/payments/prod/v1").url == URL
            assert new.run_sql("SELECT count(*) FROM pointsman.public.routes") == [(2,)]


def create_soon(client: Client, key: str) -> None:
    """Write as a caller does that retries by itself."""
    give_up = time.monotonic() + 6 * WRITES_AGAIN_SECONDS
    while True:
        try:
            client.create(key, URL, timeout=WRITES_AGAIN_SECONDS)
        except Unavailable:
            assert time.monotonic() < give_up
        else:
            return
