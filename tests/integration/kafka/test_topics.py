"""Topics are created once, left as they are, and created again when deleted."""

import asyncio
import contextlib

import pytest

from pointsman_server.adapters.kafka import (
    KafkaCluster,
    KafkaPublisher,
    NewTopic,
    ensure_topic,
)
from pointsman_server.ports.broker import BrokerUnavailable
from tests.support.kafka import admin
from tests.support.kafka_clients import consuming, make_topic, many, new_name, receive


async def test_a_topic_is_created_with_the_partitions_asked_for_and_never_changed(real: KafkaCluster) -> None:
    topic = new_name()
    assert await ensure_topic(real, NewTopic(topic, 5, 1)) is None
    assert await ensure_topic(real, NewTopic(topic, 5, 1)) is None
    warning = await ensure_topic(real, NewTopic(topic, 8, 1))
    assert warning is not None
    assert f"topic {topic} has 5 partitions, not 8" in warning
    assert len(admin(real.bootstrap_servers).list_topics(timeout=5).topics[topic].partitions) == 5


async def test_servers_that_start_together_create_a_topic_once(real: KafkaCluster) -> None:
    topic = new_name()
    assert await asyncio.gather(*(ensure_topic(real, NewTopic(topic, 4, 1)) for _ in range(4))) == [None] * 4


async def test_a_topic_that_the_brokers_refuse_is_an_error(real: KafkaCluster) -> None:
    with pytest.raises(BrokerUnavailable, match=real.bootstrap_servers):
        await ensure_topic(real, NewTopic(new_name(), 1, 3))


async def test_the_local_cluster_makes_topics_by_itself(kafka_mock: str) -> None:
    topic = new_name()
    assert await ensure_topic(KafkaCluster(kafka_mock), NewTopic(topic, 12, 1)) is None
    assert topic in admin(kafka_mock).list_topics(timeout=5).topics


async def test_a_deleted_topic_is_named_and_created_again_and_the_lag_recovers(
    real: KafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await make_topic(real, partitions=1)

    async def create() -> object:
        return await ensure_topic(real, NewTopic(topic, 1, 1))

    publisher = KafkaPublisher(real, topic, timeout_seconds=3, create_topic=create)
    async with consuming(real, topic, new_name()) as source:
        assert await publisher.publish(many(1, 20)) == 20
        await receive(source, 20)
        await source.commit()
        client = admin(real.bootstrap_servers)
        await asyncio.to_thread(client.delete_topics([topic])[topic].result, 30)
        assert await publisher.publish(many(21, 23)) == 0
        assert f"Kafka at {real.bootstrap_servers} has no topic {topic}" in caplog.text
        async with asyncio.timeout(60):
            while await publisher.publish(many(21, 23)) < 3:
                pass
        found: set[int] = set()
        async with asyncio.timeout(120):
            while not found >= {21, 22, 23}:
                with contextlib.suppress(BrokerUnavailable):
                    found |= {change.revision for change in (await source.receive(0.5)).changes}
        await source.commit()
        assert await source.lag() == 0
        assert await publisher.publish(many(24, 24)) == 1
        await receive(source, 1)
        assert await source.lag() == 0
    await publisher.close()
