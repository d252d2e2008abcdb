"""The broadcast consumer reads every partition, and reports brokers that cannot be reached."""

import asyncio

import pytest
from confluent_kafka import Producer

from pointsman_server.adapters.kafka import KafkaCluster
from pointsman_server.adapters.kafka.broadcast_consumer import BroadcastConsumer
from pointsman_server.adapters.kafka.publisher import KafkaPublisher
from pointsman_server.ports.broker import BrokerUnavailable
from tests.support.changes import make_change
from tests.support.kafka import mock_cluster
from tests.support.kafka_clients import make_topic
from tests.support.waiting import becomes

PATIENCE = 30.0


async def test_changes_of_every_partition_are_received_and_none_from_before(real: KafkaCluster) -> None:
    topic = await make_topic(real)
    publisher, consumer = KafkaPublisher(real, topic), BroadcastConsumer(real, topic)
    changes = [make_change(2 + number, f"service-{number}") for number in range(20)]
    found: set[int] = set()
    try:
        await publisher.publish([make_change(1)])
        async with asyncio.timeout(PATIENCE):
            # Published repeatedly: librdkafka looks up the ends of the partitions some time after the first receive.
            while not found >= {change.revision for change in changes}:
                found |= {change.revision for change in await consumer.receive(0.2)}
                await publisher.publish(changes)
    finally:
        await consumer.close()
        await publisher.close()

    assert found == {change.revision for change in changes}


async def test_without_a_broker_every_receive_fails() -> None:
    consumer = BroadcastConsumer(KafkaCluster("127.0.0.1:1"), "none", timeout_seconds=0.5)
    try:
        for _ in range(2):
            with pytest.raises(BrokerUnavailable):
                await consumer.receive(0.1)
    finally:
        await consumer.close()


async def test_brokers_that_go_away_are_reported_though_no_message_says_so() -> None:
    with mock_cluster() as servers:
        producer = Producer({"bootstrap.servers": servers, "log_level": 0})
        producer.produce("changes", b"makes the topic")
        producer.flush(PATIENCE)
        consumer = BroadcastConsumer(KafkaCluster(servers), "changes")
        assert await consumer.receive(0.1) == []

    async def is_reported() -> bool:
        try:
            await consumer.receive(0.1)
        except BrokerUnavailable:
            return True
        return False

    try:
        assert await becomes(is_reported)
        assert await is_reported()
    finally:
        await consumer.close()
