"""The partitions of a topic, as a consumer sees that joins no group."""

from collections.abc import Collection, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message


def partition_numbers(consumer: Consumer, topic: str, seconds: float) -> Collection[int]:
    """Return the numbers of the partitions; none if there is no topic. Raises KafkaException."""
    found = consumer.list_topics(topic, timeout=seconds).topics[topic]
    if found.error is not None and found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise KafkaException(found.error)
    return list(found.partitions)


def of_partitions(messages: Sequence[Message]) -> list[Message]:
    """Leave out the errors about the group, which librdkafka looks for even if it is not joined: no right is needed."""
    return [message for message in messages if not _is_about_the_group(message.error())]


def _is_about_the_group(error: KafkaError | None) -> bool:
    return error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
