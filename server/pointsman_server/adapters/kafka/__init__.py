"""The broker: changes go out by ``KafkaPublisher`` and come in by ``KafkaSource``."""

from pointsman_server.adapters.kafka.cluster import KafkaCluster, check_broker, ensure_topic
from pointsman_server.adapters.kafka.dead_letters import DeadLetters, dead_letter_topic
from pointsman_server.adapters.kafka.publisher import KafkaPublisher
from pointsman_server.adapters.kafka.source import KafkaSource

__all__ = [
    "DeadLetters",
    "KafkaCluster",
    "KafkaPublisher",
    "KafkaSource",
    "check_broker",
    "dead_letter_topic",
    "ensure_topic",
]
