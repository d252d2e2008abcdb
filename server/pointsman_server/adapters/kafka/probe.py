"""The health check of the brokers: they answer, and have and allow what this server needs."""

import asyncio
from typing import TYPE_CHECKING

from pointsman_server.adapters.kafka.client_errors import ClientErrors
from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.explanations import is_denied
from pointsman_server.adapters.kafka.topics.needs import Needs, creation_of
from pointsman_server.ports.broker import BrokerUnavailable

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient


class KafkaProbe:
    """Keeps its connection between checks, so that each costs one small request for a topic."""

    def __init__(self, cluster: KafkaCluster, needs: Needs | None = None, timeout_seconds: float = 2.0) -> None:
        self._cluster = cluster
        self._topics = tuple(needs.rights) if needs else ()
        self._timeout_seconds = timeout_seconds
        self._errors = ClientErrors()
        self._client: AdminClient | None = None

    async def check(self) -> None:
        """Ask for the topics. Raises BrokerUnavailable, which says what is wrong and what to do.

        What other clients of the cluster are refused is wrong, too.
        """
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        # Imported on use: it takes megabytes, and not every server uses Kafka.
        from confluent_kafka import KafkaException

        try:
            problems = self._problems(self._connected())
        except KafkaException as error:
            raise self._failed(error) from error
        self._errors.clear()
        if problems := list(dict.fromkeys([*problems, *self._cluster.refusals.current()])):
            raise BrokerUnavailable("; ".join(problems))

    def _connected(self) -> "AdminClient":
        from confluent_kafka.admin import AdminClient

        if self._client is None:
            self._errors.clear()
            # Also for clusters that create topics on request: asking must not create one.
            self._client = AdminClient(self._cluster.config(self._errors, allow_auto_create_topics=False))
        # Empties the event queue of the client, which grows while the brokers are down.
        self._client.poll(0)
        return self._client

    def _problems(self, client: "AdminClient") -> list[str]:
        if not self._topics:
            client.list_topics(timeout=self._timeout_seconds)
        problems = []
        for name in self._topics:
            error = client.list_topics(name, timeout=self._timeout_seconds).topics[name].error
            if error is None:
                self._cluster.refusals.clear(creation_of(name))
            elif is_denied(error):
                problems.append(str(self._cluster.unavailable(error, topic=name)))
            # A topic that is missing is created, unless that is refused.
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
