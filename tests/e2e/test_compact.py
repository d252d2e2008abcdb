"""``pointsman-server compact`` and ``audit compact``, beside a server that works."""

import json

import psycopg
import pytest

from pointsman import Client
from tests.support.processes import get_metric, run, serve
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"


def test_compact_beside_a_running_server(database_url, redis_url, kafka_broker):
    environ = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
    }
    with serve(**environ) as (server, address, http_port), Client(address) as client:
        for number in range(6):
            client.create(f"team-a/payments/prod/v{number}", URL)
        assert eventually(lambda: get_metric(http_port, "pointsman_audit_chain_revision") == 6, 60)

        planned = run("pointsman-server", "compact", "--older-than=0", "--dry-run", **environ)
        done = run("pointsman-server", "compact", "--older-than=0", **environ)
        audit = run("pointsman-server", "audit", "compact", "--older-than=0", **environ)
        client.update("team-a/payments/prod/v0", url=f"{URL}/new")

        assert planned.stdout == "6 changes would be deleted; the history is compacted up to revision 6\n", planned
        assert done.stdout == "6 changes deleted; the history is compacted up to revision 6\n", done
        assert audit.stdout.startswith("6 rows deleted; the chain continues revision 6 (epoch "), audit
        assert client.resolve("team-a/payments/prod/v0").url == f"{URL}/new"
        assert eventually(lambda: get_metric(http_port, "pointsman_audit_chain_revision") == 7, 60)
        verified = json.loads(run("pointsman-server", "audit", "verify", "--json", **environ).stdout)
        assert (verified["ok"], verified["behind"]) == (True, 0)
        assert [(chain["first"], chain["last"]) for chain in verified["epochs"]] == [(7, 7)]
        assert server.process.poll() is None


@pytest.mark.parametrize("command", [("compact",), ("audit", "compact")])
def test_a_database_that_cannot_be_reached_is_named(command: tuple[str, ...]) -> None:
    done = run("pointsman-server", *command, "--older-than=1", DATABASE_URL="postgresql://u:canary@127.0.0.1:1/d")

    assert done.returncode == 1
    assert "pointsman-server: PostgreSQL at 127.0.0.1:1 cannot be reached" in done.stderr
    assert "canary" not in done.stderr + done.stdout


@pytest.mark.parametrize("command", [("compact",), ("audit", "compact")])
def test_an_age_must_be_given_and_may_not_be_negative(command: tuple[str, ...], database_url: str) -> None:
    for arguments, text in (((), "--older-than"), (("--older-than=-1",), "equal to 0")):
        done = run("pointsman-server", *command, *arguments, DATABASE_URL=database_url)
        assert done.returncode == 2
        assert text in done.stderr


def test_the_audit_log_in_its_own_database_holds_the_history(database_url: str) -> None:
    """Nothing is in the audit log yet, so nothing goes."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE relay SET revision = 9")

    done = run("pointsman-server", "compact", "--older-than=0", DATABASE_URL=database_url)

    assert done.stdout.startswith("0 changes deleted"), done
