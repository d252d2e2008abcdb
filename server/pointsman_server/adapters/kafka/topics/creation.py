"""Creates topics, and checks their partitions."""

import asyncio
from concurrent.futures import Future
from typing import cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import admin as driver
from confluent_kafka.admin import AdminClient

from pointsman_server.adapters.kafka.client_errors import ClientErrors, words
from pointsman_server.adapters.kafka.clients import admin_client
from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.topics.needs import NewTopic
from pointsman_server.ports.broker import BrokerUnavailable

FORBIDDEN = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}


class TopicRefused(BrokerUnavailable):
    """The topic is missing, and the brokers refuse to create it."""


class CannotCreate(Exception):
    """The brokers refuse to create a topic that is missing. The text is the end of a sentence about the brokers."""


async def ensure_topic(
    cluster: KafkaCluster,
    topic: NewTopic,
    timeout: float = 10.0,  # noqa: ASYNC109 - librdkafka's own
) -> str | None:
    """Create ``topic`` unless it exists. Return a warning if it has another number of partitions.

    The number is never changed: keys would move to other partitions, and lose their order. Raises TopicRefused if the
    brokers refuse, and BrokerUnavailable if they do not answer in ``timeout`` seconds.
    """
    return await asyncio.to_thread(_ensure_topic, cluster, topic, timeout)


def _ensure_topic(cluster: KafkaCluster, wanted: NewTopic, seconds: float) -> str | None:
    with admin_client(cluster, wanted.name) as client:
        metadata = client.list_topics(wanted.name, timeout=seconds)
        if metadata.controller_id not in metadata.brokers and _touch_topic(cluster, wanted.name, seconds):
            return None
        found = metadata.topics[wanted.name]
        if found.error is not None and found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(found.error)
        if found.error is not None or not found.partitions:
            try:
                create_topic(client, wanted.on(len(metadata.brokers)), seconds, cluster.user)
            except CannotCreate as error:
                raise TopicRefused(f"Kafka at {cluster.bootstrap_servers} {error}") from error
            return None
    if len(found.partitions) == wanted.partitions:
        return None
    return (
        f"topic {wanted.name} has {len(found.partitions)} partitions, not {wanted.partitions}: left as it is, "
        "because changing the number breaks the order per key"
    )


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


def _touch_topic(cluster: KafkaCluster, topic: str, seconds: float) -> bool:
    """Create ``topic`` on librdkafka's mock cluster, which has no controller and creates topics on request.

    Returns False where it is not created: a real cluster may be without a controller for a moment, too.
    """
    client = AdminClient(cluster.config(ClientErrors()))
    found = client.list_topics(topic, timeout=seconds).topics[topic]
    if found.error is None:
        return True
    if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return False
    raise KafkaException(found.error)
