"""What a server would be refused, asked without side effects by a command.

Not for a server: librdkafka 2.16 aborts the process when the answer to a description of groups comes too late
(confluentinc/librdkafka#4605). There the clients say what they are refused.
"""

import asyncio
from collections.abc import Iterator, Sequence
from enum import Enum

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from pointsman_server.adapters.kafka.clients import admin_client
from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.explanations import GRANT
from pointsman_server.adapters.kafka.topics.creation import CannotCreate, create_topic
from pointsman_server.adapters.kafka.topics.needs import Needs


async def missing_rights(cluster: KafkaCluster, needs: Needs, seconds: float = 3.0) -> list[str]:
    """Say which topics are missing and cannot be created, and which rights on the others and on the groups.

    Each is the end of a sentence that begins with the brokers. Raises BrokerUnavailable.
    """
    return await asyncio.to_thread(_missing_rights, cluster, needs, seconds)


def _missing_rights(cluster: KafkaCluster, needs: Needs, seconds: float) -> list[str]:
    with admin_client(cluster, ", ".join(needs.rights)) as client:
        metadata = client.list_topics(next(iter(needs.rights)), timeout=seconds)
        if metadata.controller_id not in metadata.brokers:
            # librdkafka's mock cluster, which has no rights.
            return []
        topics = _topics(client, needs, len(metadata.brokers), seconds, cluster.user)
        return [*topics, *_groups(client, needs, seconds, cluster.user)]


def _topics(client: AdminClient, needs: Needs, brokers: int, seconds: float, user: str) -> Iterator[str]:
    names = TopicCollection(list(needs.rights))
    asked = client.describe_topics(names, include_authorized_operations=True, request_timeout=seconds)
    for name, wanted in needs.rights.items():
        try:
            lacking = _lacking(wanted, asked[name].result().authorized_operations)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                # A server creates it; here we only try whether that is allowed.
                try:
                    create_topic(client, needs.topics[name].on(brokers), seconds, user, validate_only=True)
                except CannotCreate as refusal:
                    yield str(refusal)
            elif error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                # The answer is the same for a topic that is missing.
                yield _denied(user, wanted, f"the topic {name}", "if there is one")
            else:
                raise
        else:
            if lacking:
                yield _denied(user, lacking, f"the topic {name}")


def _groups(client: AdminClient, needs: Needs, seconds: float, user: str) -> Iterator[str]:
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
