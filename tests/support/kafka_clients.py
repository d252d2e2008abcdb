"""Topics, publishers and consumers for the tests of the Kafka adapters."""

import asyncio
import contextlib
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence

from confluent_kafka import Message

from pointsman.v1 import route_pb2
from pointsman_server.adapters.kafka import (
    GroupConsumer,
    KafkaCluster,
    KafkaPublisher,
    NewTopic,
    ensure_topic,
)
from pointsman_server.domain.codec import change_from_message
from pointsman_server.domain.routes import Change
from pointsman_server.ports.broker import Delivery, Poison
from tests.support.changes import make_change

PARTITIONS = 3


def new_name() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


async def make_topic(cluster: KafkaCluster, partitions: int = PARTITIONS) -> str:
    topic = new_name()
    await ensure_topic(cluster, NewTopic(topic, partitions, 1))
    return topic


@contextlib.asynccontextmanager
async def publishing(cluster: KafkaCluster, topic: str, seconds: float = 20) -> AsyncIterator[KafkaPublisher]:
    publisher = KafkaPublisher(cluster, topic, timeout_seconds=seconds)
    try:
        yield publisher
    finally:
        await publisher.close()


@contextlib.asynccontextmanager
async def consuming(cluster: KafkaCluster, topic: str, group: str, batch: int = 500) -> AsyncIterator[GroupConsumer]:
    source = GroupConsumer(cluster, group, topic, batch=batch)
    try:
        yield source
    finally:
        await source.close()


async def publish_all(cluster: KafkaCluster, topic: str, changes: Sequence[Change]) -> None:
    async with publishing(cluster, topic) as publisher:
        assert await publisher.publish(changes) == len(changes)


async def receive(source: GroupConsumer, count: int) -> Delivery:
    """Receive until ``count`` messages have been delivered."""
    changes: list[Change] = []
    poison: list[Poison] = []
    async with asyncio.timeout(30):
        while len(changes) + len(poison) < count:
            delivery = await source.receive(0.5)
            changes += delivery.changes
            poison += delivery.poison
    return Delivery(changes, poison)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a consumer has no event for what it counts
            await asyncio.sleep(0.02)


def revisions_by_key(changes: Sequence[Change]) -> dict[str, list[int]]:
    found = defaultdict(list)
    for change in changes:
        found[str(change.key)].append(change.revision)
    return dict(found)


def decode(message: Message) -> Change:
    return change_from_message(route_pb2.RouteChange.FromString(message.value() or b""))


def many(first: int, last: int) -> list[Change]:
    return [make_change(revision, f"service-{revision % 7}") for revision in range(first, last + 1)]
