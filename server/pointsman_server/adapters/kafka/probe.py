"""The health check of the brokers: they answer, and have and allow what this server needs."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pointsman_server.adapters.kafka.client_errors import ClientErrors
from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.topics.needs import Needs
from pointsman_server.ports.broker import BrokerUnavailable

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

# How often the coordinators are asked, while all is well.
GROUP_SECONDS = 10.0


class KafkaProbe:
    """Keeps its connection between checks, so that each costs one small request."""

    def __init__(
        self,
        cluster: KafkaCluster,
        needs: Needs | None = None,
        timeout_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._needs = needs or Needs()
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._errors = ClientErrors()
        self._client: AdminClient | None = None
        # None on librdkafka's mock cluster, which has no controller and no rights.
        self._brokers: int | None = None
        self._groups_checked = 0.0

    async def check(self) -> None:
        """Ask for the topics and the groups. Raises BrokerUnavailable, which says what is wrong and what to do."""
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        # Imported on use: it takes megabytes, and not every server uses Kafka.
        from confluent_kafka import KafkaException

        try:
            client = self._connected()
            # Empties the event queue of the client, which grows while the brokers are down.
            client.poll(0)
            problems = self._problems(client)
        except KafkaException as error:
            raise self._failed(error) from error
        self._errors.clear()
        if problems:
            self._groups_checked = 0.0
            raise BrokerUnavailable(f"Kafka at {self._cluster.bootstrap_servers} {'; '.join(problems)}")

    def _connected(self) -> "AdminClient":
        from confluent_kafka.admin import AdminClient

        if self._client is None:
            self._errors.clear()
            client = self._client = AdminClient(self._cluster.config(self._errors))
            self._brokers = None
        if self._brokers is None:
            client = self._client
            metadata = client.list_topics(timeout=self._timeout_seconds)
            self._brokers = len(metadata.brokers) if metadata.controller_id in metadata.brokers else None
        return self._client

    def _problems(self, client: "AdminClient") -> list[str]:
        if self._brokers is None:
            return []
        from pointsman_server.adapters.kafka.topics.rights import missing_groups, missing_topics

        needs, user, seconds = self._needs, self._cluster.user, self._timeout_seconds
        problems = list(missing_topics(client, needs, self._brokers, seconds, user))
        if not self._groups_checked or self._clock() - self._groups_checked > GROUP_SECONDS:
            denied = list(missing_groups(client, needs, seconds, user))
            self._groups_checked = self._clock()
            problems += denied
        return problems

    def _failed(self, error: Exception) -> BrokerUnavailable:
        if self._client is not None:
            # Reports why there is no connection.
            self._client.poll(0)
        unavailable = self._cluster.unavailable(error, self._errors)
        if self._errors.refused:
            # Another client reads new certificates.
            self._client = None
        return unavailable
