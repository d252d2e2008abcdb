"""The feed on a real Kafka, PostgreSQL and Redis: every server hears of every change."""

import asyncio
import os

import pytest

from pointsman_server.adapters.kafka import KafkaCluster, ensure_topic
from pointsman_server.adapters.kafka.broadcast_consumer import BroadcastConsumer
from pointsman_server.adapters.kafka.publisher import KafkaPublisher
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.broker import BrokerUnavailable
from tests.support.changes import make_change
from tests.support.kafka import KafkaBroker
from tests.support.servers import serving, settings
from tests.support.waiting import eventually

PATIENCE = 30.0
KEYS = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(20)]


@pytest.fixture
async def topic(kafka_broker: KafkaBroker) -> str:
    """A topic of this test alone, with several partitions."""
    name = f"feed-{os.urandom(4).hex()}"
    await ensure_topic(KafkaCluster(kafka_broker.bootstrap_servers), name, 3, 1)
    return name


async def test_the_stream_brings_every_partition_from_its_beginning_on(kafka_broker, topic):
    cluster = KafkaCluster(kafka_broker.bootstrap_servers)
    publisher, stream = KafkaPublisher(cluster, topic), BroadcastConsumer(cluster, topic)
    changes = [make_change(2 + number, f"service-{number}") for number in range(20)]
    found: set[int] = set()
    try:
        await publisher.publish([make_change(1)])
        async with asyncio.timeout(PATIENCE):
            # Published again and again: where the partitions end is found out some time after the first look.
            while not found >= {change.revision for change in changes}:
                found |= {change.revision for change in await stream.receive(0.2)}
                await publisher.publish(changes)
    finally:
        await stream.close()
        await publisher.close()

    assert found == {change.revision for change in changes}


async def test_a_stream_without_a_broker_says_so_and_recovers(kafka_broker, topic):
    nobody = BroadcastConsumer(KafkaCluster("127.0.0.1:1"), topic, timeout_seconds=0.5)
    try:
        for _ in range(2):
            with pytest.raises(BrokerUnavailable):
                await nobody.receive(0.1)
    finally:
        await nobody.close()


@pytest.mark.parametrize("kafka", ["with kafka", "without kafka"])
def test_what_one_server_writes_another_one_hears(kafka, request, database_url, redis_url):
    """Redis is out for both, and the local caches live long: only the feed can tell."""
    servers = request.getfixturevalue("kafka_broker").bootstrap_servers if kafka == "with kafka" else ""
    chosen = settings(
        database_url=database_url,
        redis_url="redis://127.0.0.1:1/0",
        redis_timeout_seconds=0.01,
        kafka_bootstrap_servers=servers,
        kafka_topic=f"feed-{os.urandom(4).hex()}",
        cache_local_ttl_seconds=300,
        cache_negative_ttl_seconds=300,
        roles="api,relay" if servers else "api",
    )
    with serving(chosen) as one, serving(chosen) as two:
        from pointsman import Client, NotFound

        with Client(one.address) as writer, Client(two.address) as reader:
            for server in (one, two):
                server.run(fed(server, 0))
            with pytest.raises(NotFound):
                reader.resolve(str(KEYS[0]))
            revision = writer.create(str(KEYS[0]), "https://new.internal").revision
            two.run(fed(two, revision))

            answer = reader.resolve(str(KEYS[0]), min_revision=0)
            again = reader.resolve(str(KEYS[0]), min_revision=revision)

            assert answer.route.url == again.route.url == "https://new.internal"
            assert again.source.value == "LOCAL"


async def fed(server, revision: int) -> None:
    """Wait until the feed of ``server`` is at ``revision``, and has begun."""
    async with asyncio.timeout(PATIENCE):
        while server.app.running.feed._epoch == "" or server.app.running.feed.revision < revision:  # noqa: ASYNC110 - another loop
            await asyncio.sleep(0.01)


def test_a_heartbeat_measures_how_stale_each_layer_is(kafka_broker, database_url, redis_url):
    chosen = settings(
        database_url=database_url,
        redis_url=redis_url,
        kafka_bootstrap_servers=kafka_broker.bootstrap_servers,
        kafka_topic=f"feed-{os.urandom(4).hex()}",
        heartbeat_seconds=0.3,
        roles="api,relay,cache",
    )
    with serving(chosen) as server:

        def measured(layer: str) -> float:
            name = "pointsman_cache_staleness_seconds_count"
            return server.app.metrics.registry.get_sample_value(name, {"layer": layer}) or 0.0

        assert eventually(lambda: measured("local") >= 3 and measured("redis") >= 3)
