"""Creates topics, and checks their partitions."""

import asyncio
from concurrent.futures import Future
from typing import cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic  # type: ignore[attr-defined]

from pointsman_server.adapters.kafka.cluster import KafkaCluster


def _describe(cluster: KafkaCluster, seconds: float) -> ClusterMetadata:
    try:
        return AdminClient(cluster.config()).list_topics(timeout=seconds)
    except KafkaException as error:
        raise cluster.unavailable(error) from error


async def ensure_topic(
    cluster: KafkaCluster,
    topic: str,
    partitions: int,
    replication_factor: int,
    timeout: float = 10.0,  # noqa: ASYNC109 - librdkafka's own
) -> str | None:
    """Create ``topic`` unless it exists. Return a warning if it has another number of partitions.

    The number is never changed: keys would move to other partitions, and lose their order. Raises BrokerUnavailable if
    the brokers refuse, or do not answer in ``timeout`` seconds.
    """
    return await asyncio.to_thread(_ensure_topic, cluster, NewTopic(topic, partitions, replication_factor), timeout)


def _ensure_topic(cluster: KafkaCluster, wanted: NewTopic, seconds: float) -> str | None:
    metadata = _describe(cluster, seconds)
    if wanted.topic not in metadata.topics:
        if metadata.controller_id not in metadata.brokers:
            _touch_topic(cluster, wanted.topic, seconds)
            return None
        _create_topic(cluster, wanted, seconds)
        metadata = _describe(cluster, seconds)
    existing = metadata.topics.get(wanted.topic)
    # A broker may not list a topic right after its creation.
    if existing is None or len(existing.partitions) == wanted.num_partitions:
        return None
    return (
        f"topic {wanted.topic} has {len(existing.partitions)} partitions, not {wanted.num_partitions}: left as it is, "
        "because changing the number breaks the order per key"
    )


def _create_topic(cluster: KafkaCluster, wanted: NewTopic, seconds: float) -> None:
    client = AdminClient(cluster.config())
    created = client.create_topics([wanted], operation_timeout=seconds, request_timeout=seconds)
    try:
        cast("Future[None]", created[wanted.topic]).result()
    except KafkaException as error:
        # Another server created it first.
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise cluster.unavailable(error) from error


def _touch_topic(cluster: KafkaCluster, topic: str, seconds: float) -> None:
    """Create ``topic`` on librdkafka's mock cluster, which has no controller and creates topics on request."""
    try:
        found = AdminClient(cluster.config()).list_topics(topic, timeout=seconds).topics[topic]
    except KafkaException as error:
        raise cluster.unavailable(error) from error
    if found.error is not None:
        raise cluster.unavailable(found.error)
