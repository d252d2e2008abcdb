"""Where messages go that are no changes."""

from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.producing import Headers, OrderedProducer, Record
from pointsman_server.ports import Poison


def dead_letter_topic(topic: str) -> str:
    """Name the topic for what was refused from ``topic``."""
    return f"{topic}.dead-letters"


class DeadLetters:
    """Keeps refused messages, as they were, in a topic of their own."""

    def __init__(self, cluster: KafkaCluster, topic: str = "route-events", *, timeout_seconds: float = 10.0) -> None:
        """``topic`` is that of the changes."""
        self._cluster = cluster
        self._producer = OrderedProducer(cluster, dead_letter_topic(topic), timeout_seconds)

    async def set_aside(self, poison: Poison) -> None:
        """Store the message, with headers that say where it lay and what is wrong. Raises BrokerUnavailable."""
        where = {"topic": poison.topic, "partition": str(poison.partition), "offset": str(poison.offset)}
        headers: Headers = [("problem", poison.problem), *where.items()]
        record = Record("/".join(where.values()).encode(), poison.payload, headers)
        if not await self._producer.send([record]):
            raise self._cluster.unavailable(self._producer.error)

    async def close(self) -> None:
        """Let go of the broker."""
        await self._producer.close()
