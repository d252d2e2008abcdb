"""Clients of librdkafka for one task each. What fails in their blocks is raised as BrokerUnavailable, in words."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from pointsman_server.adapters.kafka.client_errors import ClientErrors
from pointsman_server.adapters.kafka.cluster import KafkaCluster


@contextmanager
def admin_client(cluster: KafkaCluster, topic: str) -> Iterator[AdminClient]:
    """Connect to ask about ``topic``, or to create it."""
    errors = ClientErrors()
    client: AdminClient | None = None
    try:
        # Also for clusters that create topics on request: asking must not create one.
        client = AdminClient(cluster.config(errors, allow_auto_create_topics=False))
        yield client
    except KafkaException as error:
        if client is not None:
            # Reports why there is no connection.
            client.poll(0)
        raise cluster.unavailable(error, errors, topic=topic) from error


@contextmanager
def reader(cluster: KafkaCluster, name: str, topic: str) -> Iterator[Consumer]:
    """Connect to read ``topic`` without a group; librdkafka requires the ``name`` of one all the same."""
    errors = ClientErrors()
    consumer: Consumer | None = None
    try:
        consumer = Consumer(cluster.config(errors, group_id=cluster.group(name), enable_auto_commit=False))
        yield consumer
    except KafkaException as error:
        if consumer is not None:
            # Reports why there is no connection.
            consumer.poll(0)
        raise cluster.unavailable(error, errors, topic=topic) from error
    finally:
        if consumer is not None:
            consumer.close()
