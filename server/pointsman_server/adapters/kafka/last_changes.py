"""The last change in every partition: evidence of how far the history once reached."""

import asyncio

from confluent_kafka import Consumer, KafkaException, TopicPartition

from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.decoder import NotAChange, change_from_bytes
from pointsman_server.domain.routes import Change


async def last_changes(cluster: KafkaCluster, topic: str, seconds: float = 5.0) -> list[Change]:
    """Read the last message of every partition. ``seconds`` bounds each request. Raises BrokerUnavailable."""
    return await asyncio.to_thread(_last_changes, cluster, topic, seconds)


def _last_changes(cluster: KafkaCluster, topic: str, seconds: float) -> list[Change]:
    # librdkafka requires a group; it is never joined.
    consumer = Consumer(cluster.config(group_id="pointsman-tail", enable_auto_commit=False))
    try:
        places = _ends(consumer, topic, seconds)
        consumer.assign(places)
        messages = consumer.consume(len(places), timeout=seconds) if places else []
    except KafkaException as error:
        raise cluster.unavailable(error) from error
    finally:
        consumer.close()
    changes: list[Change] = []
    for message in messages:
        try:
            changes.append(change_from_bytes(message.value() or b""))
        except NotAChange:
            continue
    return changes


def _ends(consumer: Consumer, topic: str, seconds: float) -> list[TopicPartition]:
    found = []
    for number in consumer.list_topics(topic, timeout=seconds).topics[topic].partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=seconds)
        if high > low:
            found.append(TopicPartition(topic, number, high - 1))
    return found
