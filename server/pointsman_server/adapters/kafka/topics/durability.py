"""How many brokers a topic may lose: its replicas, and what is risky about them."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from pointsman_server.adapters.kafka.clients import admin_client
from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.topics.needs import REPLICAS


@dataclass(frozen=True, slots=True)
class Durability:
    """The replicas of a topic: those of the partition that has fewest, and how many partitions lack some of them.

    ``min_insync`` is None where we may not read it.
    """

    topic: str
    brokers: int
    replicas: int
    incomplete: int = 0
    min_insync: int | None = None

    def warnings(self) -> Iterator[str]:
        """Say in one sentence each what may go wrong, and what to do."""
        enough = min(REPLICAS, self.brokers)
        if self.replicas < enough:
            yield (
                f"topic {self.topic} has too few replicas, {self.replicas} on {self.brokers} brokers: changes wait "
                f"while a broker is down, and messages are lost with its disk; make it {enough} "
                "(kafka-reassign-partitions)"
            )
        if self.incomplete:
            yield (
                f"topic {self.topic} has {self.incomplete} partitions with replicas that are not in sync: "
                "a broker is down, or slow"
            )
        if self.min_insync is None or self.replicas == 1:
            return
        if self.min_insync == 1 and self.replicas >= REPLICAS:
            yield (
                f"topic {self.topic} has min.insync.replicas 1: a message may be on one broker alone, and be lost with "
                f"it; set it to {self.replicas - 1} (kafka-configs)"
            )
        if self.min_insync >= self.replicas:
            yield (
                f"topic {self.topic} has min.insync.replicas {self.min_insync} of {self.replicas} replicas: nothing is "
                f"published while one broker is down; set it to {self.replicas - 1} (kafka-configs)"
            )


async def read_durability(cluster: KafkaCluster, topic: str, seconds: float = 3.0) -> Durability | None:
    """Read the replicas of ``topic``. None if it is missing, or the brokers do not say. Raises BrokerUnavailable."""
    return await asyncio.to_thread(_read, cluster, topic, seconds)


def _read(cluster: KafkaCluster, topic: str, seconds: float) -> Durability | None:
    with admin_client(cluster, topic) as client:
        metadata = client.list_topics(topic, timeout=seconds)
        partitions = metadata.topics[topic].partitions.values()
        if metadata.controller_id not in metadata.brokers or not partitions:
            # librdkafka's mock cluster, or there is no such topic.
            return None
        replicas = min(len(partition.replicas) for partition in partitions)
        incomplete = sum(len(partition.isrs) < len(partition.replicas) for partition in partitions)
        return Durability(topic, len(metadata.brokers), replicas, incomplete, _min_insync(client, topic, seconds))


def _min_insync(client: AdminClient, topic: str, seconds: float) -> int | None:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        found = client.describe_configs([resource], request_timeout=seconds)[resource].result()
    except KafkaException:
        # It takes the right DescribeConfigs, which a server does not need otherwise.
        return None
    return int(found["min.insync.replicas"].value)
