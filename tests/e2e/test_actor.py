"""Who made a change is told wherever the change is told: in the history, in Kafka, and in the audit log."""

import json

import psycopg

from pointsman import Client
from pointsman.v1 import route_pb2
from tests.support.kafka import read_all
from tests.support.processes import get_metric, run, serve
from tests.support.waiting import eventually


def test_the_actor_is_the_authenticated_subject_everywhere(database_url, redis_url, kafka_broker):
    topic = f"actor-{database_url.rpartition('/')[2]}"
    environ = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "POINTSMAN_KAFKA_TOPIC": topic,
        "POINTSMAN_KAFKA_PARTITIONS": "1",
        "POINTSMAN_API_KEYS": "true",
    }
    made = run("pointsman-server", "keys", "create", "ci", "--grant", "admin:*", "--json", DATABASE_URL=database_url)
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)["key"]

    with serve(**environ) as (process, address, http), Client(address, token=key) as client:
        revision = client.create("team-a/orders/prod/v1", "https://orders.internal:8443").revision
        (change,) = client.changes(tenant="team-a")
        assert eventually(lambda: get_metric(http, "pointsman_audit_chain_revision") == revision, 60), process.errors

    with psycopg.connect(database_url) as connection:
        (row,) = connection.execute("SELECT actor FROM route_changes").fetchall()
        (audited,) = connection.execute("SELECT change FROM audit_log").fetchall()
    (event,) = read_all(kafka_broker.bootstrap_servers, topic)
    told = [route_pb2.RouteChange.FromString(data).actor for data in (audited[0], event.value())]
    assert [change.actor, row[0], *told] == ["key:ci"] * 4
