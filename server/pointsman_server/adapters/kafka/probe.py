"""Whether the brokers answer, asked again and again through one client."""

import asyncio
from typing import TYPE_CHECKING

from pointsman_server.adapters.kafka.cluster import KafkaCluster

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient


class KafkaProbe:
    """Keeps the connection, so that a check every second costs one small request."""

    def __init__(self, cluster: KafkaCluster, timeout_seconds: float = 2.0) -> None:
        self._cluster = cluster
        self._timeout_seconds = timeout_seconds
        self._client: AdminClient | None = None

    @property
    def servers(self) -> str:
        """The brokers that are asked first."""
        return self._cluster.bootstrap_servers

    async def check(self) -> None:
        """Ask the brokers who they are. Raises BrokerUnavailable when none answers within the timeout."""
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        # Here: it is megabytes, and the constructor starts threads. A process without Kafka's roles needs none of them.
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        self._client = self._client or AdminClient(self._cluster.config())
        # Empties the queue of events, which otherwise grows while the brokers are away.
        self._client.poll(0)
        try:
            self._client.list_topics(timeout=self._timeout_seconds)
        except KafkaException as error:
            raise self._cluster.unavailable(error) from error
