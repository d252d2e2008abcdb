"""The last change in every partition: evidence of how far the history once reached."""

import asyncio
import time
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from pointsman_server.adapters.kafka.clients import reader
from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.decoder import NotAChange, change_from_bytes
from pointsman_server.adapters.kafka.topics.partitions import of_partitions, partition_numbers
from pointsman_server.domain.routes import Change


async def last_changes(cluster: KafkaCluster, topic: str, seconds: float = 5.0) -> list[Change]:
    """Read the last message of every partition. ``seconds`` bounds each request. Raises BrokerUnavailable."""
    return await asyncio.to_thread(_last_changes, cluster, topic, seconds)


def _last_changes(cluster: KafkaCluster, topic: str, seconds: float) -> list[Change]:
    changes: list[Change] = []
    with reader(cluster, "tail", topic) as consumer:
        places = _ends(consumer, topic, seconds)
        consumer.assign(places)
        for message in _read(consumer, len(places), seconds):
            if (error := message.error()) is not None:
                raise KafkaException(error)
            with suppress(NotAChange):
                changes.append(change_from_bytes(message.value() or b""))
    return changes


def _read(consumer: Consumer, count: int, seconds: float) -> list[Message]:
    """Read ``count`` messages, or fewer if time is up."""
    messages: list[Message] = []
    give_up = time.monotonic() + seconds
    while (left := give_up - time.monotonic()) > 0 and len(messages) < count:
        messages += of_partitions(consumer.consume(count - len(messages), timeout=left))
    return messages


def _ends(consumer: Consumer, topic: str, seconds: float) -> list[TopicPartition]:
    found = []
    for number in partition_numbers(consumer, topic, seconds):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=seconds)
        if high > low:
            found.append(TopicPartition(topic, number, high - 1))
    return found
