"""The topic of messages that cannot be decoded."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.producer import Headers, OrderedProducer, Record
from pointsman_server.ports.broker import Poison

READ_SECONDS = 5.0
BATCH = 500


def dead_letter_topic(topic: str) -> str:
    """Return the name of the dead-letter topic of ``topic``."""
    return f"{topic}.dead-letters"


class DeadLetters:
    """Stores messages that cannot be decoded, unchanged, in a topic of their own."""

    def __init__(self, cluster: KafkaCluster, topic: str = "route-events", *, timeout_seconds: float = 10.0) -> None:
        """``topic`` is the topic of the changes."""
        self._cluster = cluster
        self._producer = OrderedProducer(cluster, dead_letter_topic(topic), timeout_seconds)

    async def set_aside(self, poison: Poison) -> None:
        """Store the message, with its origin and the problem as headers. Raises BrokerUnavailable."""
        where = {"topic": poison.topic, "partition": str(poison.partition), "offset": str(poison.offset)}
        headers: Headers = [("problem", poison.problem), *where.items()]
        record = Record("/".join(where.values()).encode(), poison.payload, headers)
        if not await self._producer.send([record]):
            raise self._cluster.unavailable(self._producer.error)

    async def close(self) -> None:
        await self._producer.close()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A stored message: its origin and its problem. ``payload`` may hold secrets, and must not be shown."""

    topic: str
    partition: str
    offset: str
    problem: str
    payload: bytes = field(repr=False)


async def read_dead_letters(cluster: KafkaCluster, topic: str) -> list[DeadLetter]:
    """Read all dead letters of ``topic``, without a group. Raises BrokerUnavailable."""
    return await asyncio.to_thread(lambda: list(_read(cluster, dead_letter_topic(topic))))


def _read(cluster: KafkaCluster, topic: str) -> Iterator[DeadLetter]:
    # librdkafka requires a group; it is never joined.
    consumer = Consumer(cluster.config(group_id="pointsman-dead-letters", enable_auto_commit=False))
    try:
        for partition in consumer.list_topics(topic, timeout=READ_SECONDS).topics[topic].partitions:
            place = TopicPartition(topic, partition)
            low, high = consumer.get_watermark_offsets(place, timeout=READ_SECONDS)
            consumer.assign([TopicPartition(topic, partition, low)])
            yield from map(_letter, _messages(cluster, consumer, low, high))
    except KafkaException as error:
        raise cluster.unavailable(error) from error
    finally:
        consumer.close()


def _messages(cluster: KafkaCluster, consumer: Consumer, position: int, high: int) -> Iterator[Message]:
    """Read the assigned partition from offset ``position`` until before ``high``."""
    while position < high:
        found = consumer.consume(BATCH, timeout=READ_SECONDS)
        if not found or found[0].error() is not None:
            raise cluster.unavailable(found[0].error() if found else None)
        for message in found:
            position = (message.offset() or 0) + 1
            if position <= high:
                yield message


def _letter(message: Message) -> DeadLetter:
    found = dict(message.headers() or [])
    topic, partition, offset, problem = (_text(found.get(name)) for name in ("topic", "partition", "offset", "problem"))
    return DeadLetter(topic, partition, offset, problem, message.value() or b"")


def _text(header: object) -> str:
    # Any producer may have written it.
    text = header.decode(errors="replace") if isinstance(header, bytes) else "?"
    return "".join(character if character.isprintable() else "?" for character in text)
