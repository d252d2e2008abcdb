"""The health check of the brokers."""

import asyncio
from typing import TYPE_CHECKING

from pointsman_server.adapters.kafka.cluster import KafkaCluster

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient


class KafkaProbe:
    """Keeps its connection between checks, so that each costs one small request."""

    def __init__(self, cluster: KafkaCluster, timeout_seconds: float = 2.0) -> None:
        self._cluster = cluster
        self._timeout_seconds = timeout_seconds
        self._client: AdminClient | None = None

    @property
    def servers(self) -> str:
        """The bootstrap servers."""
        return self._cluster.bootstrap_servers

    async def check(self) -> None:
        """Request the metadata of the cluster. Raises BrokerUnavailable if no broker answers within the timeout."""
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        # Imported on use: it takes megabytes, and not every server uses Kafka.
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        self._client = self._client or AdminClient(self._cluster.config())
        # Empties the event queue of the client, which grows while the brokers are down.
        self._client.poll(0)
        try:
            self._client.list_topics(timeout=self._timeout_seconds)
        except KafkaException as error:
            raise self._cluster.unavailable(error) from error
