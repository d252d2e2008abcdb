"""``ports.ChangeStream`` on Kafka: every partition, no group, from the end on."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.decoder import NotAChange, change_from_bytes
from pointsman_server.domain.routes import Change

BATCH = 500


class BroadcastConsumer:
    """Reads ``topic`` as it grows. librdkafka blocks, so it gets one thread of its own.

    It never commits and belongs to no group, so servers come and go without a rebalance. Messages that are no
    changes are left to the consumers, which set them aside.
    """

    def __init__(self, cluster: KafkaCluster, topic: str = "route-events", *, timeout_seconds: float = 3.0) -> None:
        self._cluster = cluster
        self._topic = topic
        self._timeout_seconds = timeout_seconds
        self._consumer: Consumer | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-stream")

    async def receive(self, seconds: float) -> Sequence[Change]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._receive, seconds)

    async def close(self) -> None:
        """Close the connections to the brokers."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _receive(self, seconds: float) -> list[Change]:
        try:
            self._consumer = self._consumer or self._open()
            # ``consume`` alone would wait until the batch is full.
            first = self._consumer.poll(seconds)
            messages = [first, *self._consumer.consume(BATCH - 1, timeout=0)] if first is not None else []
        except KafkaException as error:
            raise self._cluster.unavailable(error) from error
        return self._decode(messages)

    def _open(self) -> Consumer:
        """Begin at the end of every partition. Raises KafkaException, and BrokerUnavailable without a topic."""
        consumer = Consumer(
            self._cluster.config(
                group_id="pointsman-feed",  # never joined: librdkafka requires a name
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="latest",
                fetch_wait_max_ms=100,
            )
        )
        try:
            partitions = consumer.list_topics(self._topic, timeout=self._timeout_seconds).topics[self._topic].partitions
            consumer.assign([TopicPartition(self._topic, number, OFFSET_END) for number in partitions])
        except BaseException:
            consumer.close()
            raise
        if not partitions:
            consumer.close()
            raise self._cluster.unavailable()
        return consumer

    def _decode(self, messages: Sequence[Message]) -> list[Change]:
        changes: list[Change] = []
        for message in messages:
            error = message.error()
            if error is not None:
                # Opened anew, from the end: what is missed in between comes from the history.
                self._close()
                raise self._cluster.unavailable(error)
            try:
                changes.append(change_from_bytes(message.value() or b""))
            except NotAChange:
                continue
        return changes

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()
