"""The broker on Kafka: ``KafkaPublisher`` publishes changes; ``GroupConsumer`` and ``BroadcastConsumer`` read them.

Names are imported on first use, or all at once by ``load``: librdkafka takes 4 MB, and not every server uses Kafka.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pointsman_server.adapters.kafka.broadcast_consumer import BroadcastConsumer
    from pointsman_server.adapters.kafka.cluster import KafkaCluster
    from pointsman_server.adapters.kafka.dead_letters import DeadLetters
    from pointsman_server.adapters.kafka.group_consumer import GroupConsumer
    from pointsman_server.adapters.kafka.last_changes import last_changes
    from pointsman_server.adapters.kafka.probe import KafkaProbe
    from pointsman_server.adapters.kafka.publisher import KafkaPublisher
    from pointsman_server.adapters.kafka.security import cluster_of, unreadable_files
    from pointsman_server.adapters.kafka.topics.creation import ensure_topic
    from pointsman_server.adapters.kafka.topics.durability import Durability, read_durability
    from pointsman_server.adapters.kafka.topics.needs import NewTopic, dead_letter_topic, needs_of
    from pointsman_server.adapters.kafka.topics.required import RequiredTopics
    from pointsman_server.adapters.kafka.topics.rights import missing_rights

__all__ = [
    "BroadcastConsumer",
    "DeadLetters",
    "Durability",
    "GroupConsumer",
    "KafkaCluster",
    "KafkaProbe",
    "KafkaPublisher",
    "NewTopic",
    "RequiredTopics",
    "cluster_of",
    "dead_letter_topic",
    "ensure_topic",
    "last_changes",
    "load",
    "missing_rights",
    "needs_of",
    "read_durability",
    "unreadable_files",
]

_HOMES = {
    "DeadLetters": "dead_letters",
    "KafkaCluster": "cluster",
    "KafkaProbe": "probe",
    "KafkaPublisher": "publisher",
    "GroupConsumer": "group_consumer",
    "BroadcastConsumer": "broadcast_consumer",
    "dead_letter_topic": "topics.needs",
    "Durability": "topics.durability",
    "NewTopic": "topics.needs",
    "RequiredTopics": "topics.required",
    "needs_of": "topics.needs",
    "read_durability": "topics.durability",
    "cluster_of": "security",
    "ensure_topic": "topics.creation",
    "last_changes": "last_changes",
    "missing_rights": "topics.rights",
    "unreadable_files": "security",
}


def load() -> None:
    """Import every name now, so that no call waits for an import."""
    for name in _HOMES:
        __getattr__(name)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
