"""``ports.ChangeStream`` on Kafka: reads every partition from its end, without a group."""

import asyncio
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from pointsman_server.adapters.kafka.client_errors import ClientErrors
from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.decoder import NotAChange, change_from_bytes
from pointsman_server.adapters.kafka.topics.partitions import of_partitions
from pointsman_server.domain.routes import Change
from pointsman_server.ports.broker import BrokerUnavailable

BATCH = 500
# How long a broker that was away may take to answer. The feed waits meanwhile, and then asks PostgreSQL.
ANSWER_SECONDS = 0.1


class BroadcastConsumer:
    """Reads new messages of ``topic``, in a thread of its own because librdkafka blocks.

    It joins no group and commits nothing, so servers start and stop without a rebalance. Messages that cannot be
    decoded are skipped: the group consumers move them to the dead letters.
    """

    def __init__(self, cluster: KafkaCluster, topic: str = "route-events", *, timeout_seconds: float = 3.0) -> None:
        self._cluster = cluster
        self._topic = topic
        self._timeout_seconds = timeout_seconds
        self._errors = ClientErrors()
        self._consumer: Consumer | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-stream")

    async def receive(self, seconds: float) -> Sequence[Change]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._receive, seconds)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _receive(self, seconds: float) -> list[Change]:
        try:
            self._consumer = self._consumer or self._open()
            # ``consume`` alone would wait until the batch is full.
            first = self._consumer.poll(seconds)
            messages = [first, *self._consumer.consume(BATCH - 1, timeout=0)] if first is not None else []
        except KafkaException as error:
            raise self._unavailable(error) from error
        if messages:
            self._errors.clear()
        elif self._errors.refused:
            # Another client reads new certificates.
            self._close()
            raise self._unavailable(None)
        elif self._errors.all_down and not self._answers(self._consumer):
            raise self._unavailable(None)
        return self._decode(of_partitions(messages))

    def _answers(self, consumer: Consumer) -> bool:
        """Ask a broker: librdkafka says when all connections are lost, and not when one is there again."""
        try:
            consumer.list_topics(self._topic, timeout=ANSWER_SECONDS)
        except KafkaException:
            return False
        self._errors.clear()
        return True

    def _unavailable(self, cause: "KafkaException | KafkaError | None") -> BrokerUnavailable:
        return self._cluster.unavailable(cause, self._errors, topic=self._topic)

    def _open(self) -> Consumer:
        """Assign every partition, from its end. Raises KafkaException, and BrokerUnavailable if there is no topic."""
        self._errors.clear()
        consumer = Consumer(
            self._cluster.config(
                self._errors,
                group_id=self._cluster.group("feed"),  # librdkafka requires one; it is never joined
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="latest",
                fetch_wait_max_ms=100,
            )
        )
        try:
            consumer.assign([TopicPartition(self._topic, number, OFFSET_END) for number in self._numbers(consumer)])
        except BaseException:
            # Reports why there is no connection.
            consumer.poll(0)
            consumer.close()
            raise
        return consumer

    def _numbers(self, consumer: Consumer) -> Collection[int]:
        """Return the numbers of the partitions, of which there is at least one."""
        found = consumer.list_topics(self._topic, timeout=self._timeout_seconds).topics[self._topic]
        if not found.partitions:
            raise self._unavailable(found.error)
        return list(found.partitions)

    def _decode(self, messages: Sequence[Message]) -> list[Change]:
        changes: list[Change] = []
        for message in messages:
            error = message.error()
            if error is not None:
                # The next receive reopens at the end; the feed reads the missed changes from the history.
                self._close()
                raise self._unavailable(error)
            try:
                changes.append(change_from_bytes(message.value() or b""))
            except NotAChange:
                continue
        return changes

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()
