"""Creates topics, and checks their partitions."""

import asyncio
from concurrent.futures import Future
from typing import cast

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka import admin as driver
from confluent_kafka.admin import AdminClient, TopicDescription

from pointsman_server.adapters.kafka.client_errors import words
from pointsman_server.adapters.kafka.clients import admin_client
from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.topics.needs import NewTopic
from pointsman_server.ports.broker import BrokerUnavailable

FORBIDDEN = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}


class CannotCreate(Exception):
    """The brokers refuse to create a topic that is missing. The text is the end of a sentence about the brokers."""


async def ensure_topic(
    cluster: KafkaCluster,
    topic: NewTopic,
    timeout: float = 10.0,  # noqa: ASYNC109 - librdkafka's own
) -> str | None:
    """Create ``topic`` unless it exists. Return a warning if it has another number of partitions.

    The number is never changed: keys would move to other partitions, and lose their order. Raises BrokerUnavailable if
    the brokers refuse, or do not answer in ``timeout`` seconds.
    """
    return await asyncio.to_thread(_ensure_topic, cluster, topic, timeout)


def _ensure_topic(cluster: KafkaCluster, wanted: NewTopic, seconds: float) -> str | None:
    with admin_client(cluster, wanted.name) as client:
        try:
            partitions = _partitions_of(client, wanted, seconds, cluster.user)
        except CannotCreate as error:
            raise BrokerUnavailable(f"Kafka at {cluster.bootstrap_servers} {error}") from error
    if partitions == wanted.partitions:
        return None
    return (
        f"topic {wanted.name} has {partitions} partitions, not {wanted.partitions}: left as it is, "
        "because changing the number breaks the order per key"
    )


def _partitions_of(client: AdminClient, wanted: NewTopic, seconds: float, user: str) -> int:
    """Count the partitions of a topic, which is created if it is missing. Raises KafkaException and CannotCreate."""
    metadata = client.list_topics(timeout=seconds)
    if metadata.controller_id not in metadata.brokers:
        _touch_topic(client, wanted.name, seconds)
        return wanted.partitions
    existing = describe_topics(client, [wanted.name], seconds)[wanted.name]
    if isinstance(existing, TopicDescription):
        return len(existing.partitions)
    if existing.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise KafkaException(existing)
    create_topic(client, wanted.on(len(metadata.brokers)), seconds, user)
    return wanted.partitions


def describe_topics(client: AdminClient, names: list[str], seconds: float) -> dict[str, TopicDescription | KafkaError]:
    """Describe topics, with what we may do with each; or say why not. Never creates one. Raises KafkaException."""
    asked = client.describe_topics(TopicCollection(names), include_authorized_operations=True, request_timeout=seconds)
    found: dict[str, TopicDescription | KafkaError] = {}
    for name, future in asked.items():
        try:
            found[name] = future.result()
        except KafkaException as error:
            if error.args[0].code() < 0:
                # Of librdkafka: no broker has answered.
                raise
            found[name] = error.args[0]
    return found


def create_topic(
    client: AdminClient, topic: NewTopic, seconds: float, user: str, *, validate_only: bool = False
) -> None:
    """Create a topic, or try whether we may. Raises CannotCreate, and KafkaException if no broker answers."""
    new = driver.NewTopic(
        topic.name, topic.partitions, topic.replicas, config={"min.insync.replicas": str(topic.min_insync)}
    )
    created = client.create_topics(
        [new], operation_timeout=seconds, request_timeout=seconds, validate_only=validate_only
    )
    try:
        cast("Future[None]", created[topic.name]).result()
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            # Another server created it first.
            return
        if code < 0:
            raise
        why = (
            f"{user} may not create it: create it, or grant Create"
            if code in FORBIDDEN
            else f"it cannot be created: {words(error.args[0])}"
        )
        raise CannotCreate(f"has no topic {topic.name}, and {why}") from error


def _touch_topic(client: AdminClient, topic: str, seconds: float) -> None:
    """Create ``topic`` on librdkafka's mock cluster, which has no controller and creates topics on request."""
    found = client.list_topics(topic, timeout=seconds).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
