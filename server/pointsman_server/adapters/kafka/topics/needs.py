"""What a server needs of Kafka: its topics, its groups, and the rights to use them. Imports no driver."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pointsman_server.config.settings import Settings
from pointsman_server.config.types import ServerRole

# The replicas of a new topic where there are as many brokers.
REPLICAS = 3


def dead_letter_topic(topic: str) -> str:
    """Return the name of the dead-letter topic of ``topic``."""
    return f"{topic}.dead-letters"


def creation_of(topic: str) -> str:
    """Name the creation of ``topic`` among the refusals."""
    return f"create {topic}"


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic as it is to be created.

    0 ``replicas`` are REPLICAS, or as many as there are brokers. 0 ``min_insync`` is one fewer than there are replicas,
    and at least 1: then one broker may stop, and nothing that was acknowledged is lost.
    """

    name: str
    partitions: int
    replicas: int = 0
    min_insync: int = 0

    def on(self, brokers: int) -> "NewTopic":
        """Return it with every number chosen, for a cluster of so many brokers."""
        replicas = self.replicas or max(1, min(REPLICAS, brokers))
        min_insync = self.min_insync or max(1, replicas - 1)
        return NewTopic(self.name, self.partitions, replicas, min(min_insync, replicas))


@dataclass(frozen=True, slots=True)
class Needs:
    """``rights`` on each topic and ``groups`` to join; ``topics``: how those of ``rights`` are created."""

    rights: Mapping[str, frozenset[str]] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    topics: Mapping[str, NewTopic] = field(default_factory=dict)


def changes_topic(settings: Settings) -> NewTopic:
    """Return the topic of the changes."""
    return _topic(settings, settings.kafka_topic, settings.kafka_partitions)


def letters_topic(settings: Settings) -> NewTopic:
    """Return the topic of the dead letters."""
    return _topic(settings, dead_letter_topic(settings.kafka_topic), 1)


def _topic(settings: Settings, name: str, partitions: int) -> NewTopic:
    return NewTopic(name, partitions, settings.kafka_replication_factor, settings.kafka_min_insync_replicas)


def needs_of(settings: Settings) -> Needs:
    """Return what the roles of ``settings`` need."""
    consumers = [role for role in (ServerRole.CACHE, ServerRole.AUDIT) if role in settings.roles]
    changes, letters = changes_topic(settings), letters_topic(settings)
    write = {"WRITE"} if ServerRole.RELAY in settings.roles else set()
    rights = {changes.name: frozenset({"READ", *write})}
    topics = {changes.name: changes}
    if consumers:
        rights[letters.name] = frozenset({"WRITE"})
        topics[letters.name] = letters
    return Needs(rights, tuple(f"{settings.kafka_group_prefix}-{role}" for role in consumers), topics)
