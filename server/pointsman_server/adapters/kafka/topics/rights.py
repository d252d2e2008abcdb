"""Whether Kafka has what a server needs, and lets it: asked without side effects."""

from collections.abc import Iterator, Sequence
from enum import Enum

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, TopicDescription

from pointsman_server.adapters.kafka.explanations import GRANT
from pointsman_server.adapters.kafka.topics.creation import CannotCreate, create_topic, describe_topics
from pointsman_server.adapters.kafka.topics.needs import Needs


def missing_topics(client: AdminClient, needs: Needs, brokers: int, seconds: float, user: str) -> Iterator[str]:
    """Say which topics are missing and cannot be created, and which rights on the others. Raises KafkaException.

    Each is the end of a sentence that begins with the brokers.
    """
    found = describe_topics(client, list(needs.rights), seconds) if needs.rights else {}
    for name, wanted in needs.rights.items():
        topic = found[name]
        if isinstance(topic, TopicDescription):
            if lacking := _lacking(wanted, topic.authorized_operations):
                yield _denied(user, lacking, f"the topic {name}")
        elif topic.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            # A server creates it; here we only try whether that is allowed.
            try:
                create_topic(client, needs.topics[name].on(brokers), seconds, user, validate_only=True)
            except CannotCreate as error:
                yield str(error)
        elif topic.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            # The answer is the same for a topic that is missing.
            yield _denied(user, wanted, f"the topic {name}", "if there is one")
        else:
            yield f"failed: topic {name}: {topic.str()}"


def missing_groups(client: AdminClient, needs: Needs, seconds: float, user: str) -> Iterator[str]:
    """Say which groups we may not join. A coordinator that does not answer is no answer."""
    if not needs.groups:
        return
    asked = client.describe_consumer_groups(
        list(needs.groups), include_authorized_operations=True, request_timeout=seconds
    )
    for name, future in asked.items():
        try:
            lacking = _lacking(frozenset({"READ"}), future.result().authorized_operations)
        except KafkaException as error:
            denied = error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED
            lacking = frozenset({"READ"}) if denied else frozenset()
        if lacking:
            yield _denied(user, lacking, f"the group {name}")


def _lacking(wanted: frozenset[str], allowed: Sequence[Enum] | None) -> frozenset[str]:
    """Return what is not allowed; nothing if the brokers are too old to say."""
    return wanted - {operation.name for operation in allowed} if allowed is not None else frozenset()


def _denied(user: str, rights: frozenset[str], what: str, unless: str = "") -> str:
    names = " and ".join(right.capitalize() for right in sorted(rights))
    return f"does not let {user} use {what}{f', {unless}' if unless else ''}: {GRANT} {names} on it"
