"""The last change in every partition, as read at the start of a server."""

import pytest
from confluent_kafka import Producer

from pointsman_server.adapters.kafka import KafkaCluster, last_changes
from pointsman_server.ports.broker import BrokerUnavailable
from tests.support.kafka import free_port, read_all
from tests.support.kafka_clients import decode, make_topic, many, publish_all


async def test_the_last_change_of_every_partition_is_read(real: KafkaCluster) -> None:
    topic = await make_topic(real)
    await publish_all(real, topic, many(1, 30))
    last = {message.partition(): decode(message) for message in read_all(real.bootstrap_servers, topic)}
    found = await last_changes(real, topic)
    assert sorted(change.revision for change in found) == sorted(change.revision for change in last.values())
    assert max(change.revision for change in found) == 30
    assert all(change in last.values() for change in found)


async def test_a_last_message_that_cannot_be_decoded_is_left_out(real: KafkaCluster) -> None:
    topic = await make_topic(real, partitions=1)
    await publish_all(real, topic, many(1, 2))
    producer = Producer({"bootstrap.servers": real.bootstrap_servers})
    producer.produce(topic, b"\xff")
    assert producer.flush(10) == 0
    assert await last_changes(real, topic) == []


async def test_an_empty_topic_has_no_last_change(real: KafkaCluster) -> None:
    assert await last_changes(real, await make_topic(real)) == []


async def test_without_a_broker_it_fails() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnavailable, match=address):
        await last_changes(KafkaCluster(address), "none", 0.5)
