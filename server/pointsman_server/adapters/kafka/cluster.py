"""Which brokers, how to reach them, and whether the topic is as it should be."""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic  # type: ignore[attr-defined]

from pointsman_server.ports import BrokerUnavailable

logger = logging.getLogger(__name__)


class _Quiet(logging.LoggerAdapter[logging.Logger]):
    """Takes the lines of librdkafka, which has much to say of every lost connection; adapters say what matters."""

    def log(self, _level: int, msg: object, *args: object, **kwargs: Any) -> None:  # type: ignore[override]
        """Log at DEBUG, whatever librdkafka thinks of it."""
        super().log(logging.DEBUG, msg, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class KafkaCluster:
    """Where the brokers are. ``options`` are further settings of librdkafka, as for TLS and SASL; they hold secrets."""

    bootstrap_servers: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def config(self, **settings: object) -> dict[str, Any]:
        """Build the settings of a client; in ``settings`` every ``_`` stands for a dot, and they win."""
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": "pointsman",
            # Half-open connections and stopped brokers are found out in this time.
            "socket.timeout.ms": 10_000,
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 2_000,
            "logger": _Quiet(logger, {}),
            "error_cb": _ignore,
            **self.options,
            **{name.replace("_", "."): value for name, value in settings.items()},
        }

    def unavailable(self, cause: Exception | KafkaError | None = None) -> BrokerUnavailable:
        """Say that these brokers cannot be reached; a KafkaError becomes part of the text."""
        error = cause.args[0] if isinstance(cause, KafkaException) else cause
        detail = f"failed: {error.str()}" if isinstance(error, KafkaError) else "cannot be reached"
        return BrokerUnavailable(f"Kafka at {self.bootstrap_servers} {detail}")


def _ignore(_error: KafkaError) -> None:
    """Whoever uses the client sees its errors in the answers."""


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
    """Create ``topic`` unless it is there, and return a warning when it has another number of partitions.

    That number is never changed here: keys would move to other partitions, and their order would be lost. Raises
    BrokerUnavailable when the brokers do not answer in ``timeout`` seconds, or refuse.
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
    # Right after its creation a broker may not know it yet; then it is as we made it.
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
        # Another server was faster.
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise cluster.unavailable(error) from error


def _touch_topic(cluster: KafkaCluster, topic: str, seconds: float) -> None:
    """Ask librdkafka's own local cluster for the topic: it has no controller, and makes topics when they are named."""
    try:
        found = AdminClient(cluster.config()).list_topics(topic, timeout=seconds).topics[topic]
    except KafkaException as error:
        raise cluster.unavailable(error) from error
    if found.error is not None:
        raise cluster.unavailable(found.error)
