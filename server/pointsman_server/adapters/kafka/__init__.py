"""The broker: changes go out by ``KafkaPublisher`` and come in by ``KafkaSource``."""

from pointsman_server.adapters.kafka.cluster import KafkaCluster, ensure_topic
from pointsman_server.adapters.kafka.dead_letters import DeadLetters, dead_letter_topic
from pointsman_server.adapters.kafka.probe import KafkaProbe
from pointsman_server.adapters.kafka.publisher import KafkaPublisher
from pointsman_server.adapters.kafka.source import KafkaSource

__all__ = [
    "DeadLetters",
    "KafkaCluster",
    "KafkaProbe",
    "KafkaPublisher",
    "KafkaSource",
    "dead_letter_topic",
    "ensure_topic",
]
