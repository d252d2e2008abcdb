"""The topic of messages that cannot be decoded."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pointsman_server.adapters.kafka.clients import reader
from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.producer import Headers, OrderedProducer, Record
from pointsman_server.adapters.kafka.topics.needs import dead_letter_topic
from pointsman_server.adapters.kafka.topics.partitions import of_partitions, partition_numbers
from pointsman_server.ports.broker import Poison

READ_SECONDS = 5.0
BATCH = 500


class DeadLetters:
    """Stores messages that cannot be decoded, unchanged, in a topic of their own."""

    def __init__(
        self,
        cluster: KafkaCluster,
        topic: str = "route-events",
        *,
        timeout_seconds: float = 10.0,
        create_topic: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """``topic`` is the topic of the changes.

        ``create_topic`` is called before a message if the one before failed because the topic does not exist.
        """
        self._create_topic = create_topic
        self._producer = OrderedProducer(cluster, dead_letter_topic(topic), timeout_seconds)

    async def set_aside(self, poison: Poison) -> None:
        """Store the message, with its origin and the problem as headers. Raises BrokerUnavailable."""
        where = {"topic": poison.topic, "partition": str(poison.partition), "offset": str(poison.offset)}
        headers: Headers = [("problem", poison.problem), *where.items()]
        record = Record("/".join(where.values()).encode(), poison.payload, headers)
        if self._producer.lacks_topic and self._create_topic:
            await self._create_topic()
        if not await self._producer.send([record]):
            raise self._producer.unavailable()

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
    with reader(cluster, "dead-letters", topic) as consumer:
        for partition in partition_numbers(consumer, topic, READ_SECONDS):
            place = TopicPartition(topic, partition)
            low, high = consumer.get_watermark_offsets(place, timeout=READ_SECONDS)
            consumer.assign([TopicPartition(topic, partition, low)])
            yield from map(_letter, _messages(consumer, low, high))


def _messages(consumer: Consumer, position: int, high: int) -> Iterator[Message]:
    """Read the assigned partition from offset ``position`` until before ``high``. Raises KafkaException."""
    while position < high:
        # No more than there are: it waits until it has so many.
        answer = consumer.consume(min(BATCH, high - position), timeout=READ_SECONDS)
        found = of_partitions(answer)
        if answer and not found:
            continue
        if not found or found[0].error() is not None:
            raise KafkaException(found[0].error() if found else KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001
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
