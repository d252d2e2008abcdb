"""The broker on Kafka: ``KafkaPublisher`` publishes changes; ``GroupConsumer`` and ``BroadcastConsumer`` read them.

Names are imported on first use, or all at once by ``load``: librdkafka takes 4 MB, and not every server uses Kafka.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pointsman_server.adapters.kafka.broadcast_consumer import BroadcastConsumer
    from pointsman_server.adapters.kafka.cluster import KafkaCluster
    from pointsman_server.adapters.kafka.dead_letters import DeadLetters, dead_letter_topic
    from pointsman_server.adapters.kafka.group_consumer import GroupConsumer
    from pointsman_server.adapters.kafka.last_changes import last_changes
    from pointsman_server.adapters.kafka.probe import KafkaProbe
    from pointsman_server.adapters.kafka.publisher import KafkaPublisher
    from pointsman_server.adapters.kafka.topics import ensure_topic

__all__ = [
    "BroadcastConsumer",
    "DeadLetters",
    "GroupConsumer",
    "KafkaCluster",
    "KafkaProbe",
    "KafkaPublisher",
    "dead_letter_topic",
    "ensure_topic",
    "last_changes",
    "load",
]

_HOMES = {
    "DeadLetters": "dead_letters",
    "KafkaCluster": "cluster",
    "KafkaProbe": "probe",
    "KafkaPublisher": "publisher",
    "GroupConsumer": "group_consumer",
    "BroadcastConsumer": "broadcast_consumer",
    "dead_letter_topic": "dead_letters",
    "ensure_topic": "topics",
    "last_changes": "last_changes",
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
