"""``ports.ChangeSource`` on Kafka: a member of a consumer group with manual commits."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pointsman_server.adapters.kafka.client_errors import ClientErrors
from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.decoder import NotAChange, change_from_bytes
from pointsman_server.adapters.kafka.explanations import is_denied
from pointsman_server.domain.routes import Change
from pointsman_server.ports.broker import BrokerUnavailable, Delivery, Poison

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
QUERY_SECONDS = 5.0
# The limits of a commit and of leaving the group. librdkafka has none: after a group loses its coordinator, a commit
# may wait for its reply without end, and leaving waits for the commit.
COMMIT_SECONDS = 5.0
CLOSE_SECONDS = 10.0
THREADS = "kafka-"
# The interval at which a commit polls for its reply.
STEP_SECONDS = 0.005


@dataclass(slots=True)
class _Partition:
    """The progress in an assigned partition; every number is an offset.

    ``position``: the next message. ``uncommitted``: the first message received since the last commit. ``seek``: where
    the next ``receive`` starts. ``high``: the last known end of the partition.
    """

    position: int | None = None
    uncommitted: int | None = None
    seek: int | None = None
    high: int = 0


class GroupConsumer:
    """Reads ``topic`` as a member of ``group``, from the oldest message. Joins at the first ``receive``.

    With ``cooperative-sticky`` assignment only the partitions that move pause when a server starts or stops; with
    ``range`` every restart would pause all members twice. librdkafka blocks, and runs callbacks within its calls, so it
    has a thread of its own. One task at a time may use a consumer.
    """

    def __init__(self, cluster: KafkaCluster, group: str, topic: str = "route-events", *, batch: int = 500) -> None:
        """``batch``: the maximum number of messages in a delivery."""
        self._cluster = cluster
        self._group = group
        self._topic = topic
        self._batch = batch
        # Only assigned partitions: a revoked one is removed, so it is never committed.
        self._partitions: dict[int, _Partition] = {}
        # Polled but not yet delivered: a cancelled receive must not lose them.
        self._taken: list[Message] = []
        # The offsets of the pending commit by partition, and its reply.
        self._committing: dict[int, int] = {}
        self._answers: list[tuple[KafkaError | None, Sequence[TopicPartition]]] = []
        self._errors = ClientErrors()
        self._refusal = f"read {topic} as {group}"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{THREADS}{group}")
        self._consumer: Consumer | None = None

    def _open(self) -> Consumer:
        """Return the member of the group; join if there is none. Raises BrokerUnavailable."""
        if self._consumer is not None:
            return self._consumer
        self._errors.clear()
        config = self._cluster.config(
            self._errors,
            group_id=self._group,
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy="cooperative-sticky",
            # The time after which the partitions of a killed member are reassigned.
            session_timeout_ms=10_000,
            queued_max_messages_kbytes=16_384,
        )
        config["on_commit"] = self._on_commit
        consumer = self._query(lambda: Consumer(config))
        consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)
        self._consumer = consumer
        return consumer

    def _leave(self) -> None:
        """Leave the group. What was not committed is delivered again, after another ``receive`` joined it."""
        consumer, self._consumer = self._consumer, None
        self._partitions.clear()
        self._taken.clear()
        if consumer is not None:
            consumer.close()

    async def receive(self, seconds: float) -> Delivery:
        await self._call(self._take, seconds)
        messages, self._taken = self._taken, []
        return self._hand_over(messages)

    async def commit(self) -> None:
        await self._call(self._commit)

    async def rewind(self) -> None:
        """See ChangeSource.rewind. Never fails: the next ``receive`` seeks."""
        await self._call(self._rewind)

    async def lag(self) -> int:
        """See ChangeSource.lag. As of the last ``receive``, without a request."""
        partitions = list(self._partitions.values())
        return sum(max(0, known.high - known.position) for known in partitions if known.position is not None)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._call(self._leave)
        except TimeoutError:
            # The group removes this member when its session times out.
            logger.warning("the consumer %s did not leave its group in %g s", self._group, CLOSE_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _call(self, function: Callable[P, T], *args: P.args, **_kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _take(self, seconds: float) -> None:
        """Fill ``_taken``. Raises BrokerUnavailable."""
        consumer = self._open()
        self._seek(consumer)
        if not self._taken:
            # ``consume`` alone would wait until the batch is full.
            first = consumer.poll(seconds)
            messages = [first, *consumer.consume(self._batch - 1, timeout=0)] if first is not None else []
            self._taken = [message for message in messages if self._wanted(message)]
            self._check(consumer, messages, seconds)
        self._measure(consumer)

    def _seek(self, consumer: Consumer) -> None:
        for number, partition in self._partitions.items():
            if partition.seek is None:
                continue
            try:
                consumer.seek(TopicPartition(self._topic, number, partition.seek))
            except KafkaException as error:
                # The partition may be revoked: poll, so that the callback runs.
                consumer.poll(0)
                raise self._unavailable(error) from error
            partition.seek = None

    def _wanted(self, message: Message) -> bool:
        partition = self._partitions.get(_partition(message))
        return message.error() is None and partition is not None and partition.seek is None

    def _check(self, consumer: Consumer, messages: Sequence[Message], seconds: float) -> None:
        """Raise BrokerUnavailable if nothing was received because of an error."""
        if self._taken:
            self._errors.clear()
            self._cluster.refusals.clear(self._refusal)
            return
        for message in messages:
            error = message.error()
            if error is not None:
                unavailable = self._unavailable(error)
                if is_denied(error):
                    self._cluster.refusals.tell(self._refusal, str(unavailable))
                    # Another member finds out at once when the rights are granted.
                    self._leave()
                raise unavailable
        if self._errors.refused:
            # Another member reads new certificates.
            self._leave()
            raise self._unavailable(None)
        if self._errors.all_down:
            # librdkafka reports when all brokers are down, but not when one is up again.
            self._query(lambda: consumer.list_topics(self._topic, timeout=min(max(seconds, 0.1), QUERY_SECONDS)))
            self._errors.clear()

    def _measure(self, consumer: Consumer) -> None:
        """Update the ends of the partitions from the last fetch; the first time, ask the broker."""
        for number, partition in self._partitions.items():
            place = TopicPartition(self._topic, number)
            if partition.position is None:
                self._locate(consumer, place, partition)
            else:
                low, high = consumer.get_watermark_offsets(place, cached=True)
                if high >= 0:
                    # Below the position if the topic was deleted and created again.
                    partition.position = max(partition.position, low) if partition.position <= high else low
                    partition.high = high

    def _locate(self, consumer: Consumer, place: TopicPartition, partition: _Partition) -> None:
        low, high = self._query(lambda: consumer.get_watermark_offsets(place, timeout=QUERY_SECONDS))
        (committed,) = self._query(lambda: consumer.committed([place], timeout=QUERY_SECONDS))
        # After a topic was deleted and created again, the committed offset may be past its end.
        partition.position = committed.offset if low <= committed.offset <= high else low
        partition.high = high

    def _query(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except KafkaException as error:
            raise self._unavailable(error) from error

    def _unavailable(self, cause: KafkaException | KafkaError | None) -> BrokerUnavailable:
        return self._cluster.unavailable(cause, self._errors, topic=self._topic, group=self._group)

    def _hand_over(self, messages: Sequence[Message]) -> Delivery:
        changes: list[Change] = []
        poison: list[Poison] = []
        for message in messages:
            offset = _offset(message)
            partition = self._partitions[_partition(message)]
            if partition.uncommitted is None:
                partition.uncommitted = offset
            partition.position = offset + 1
            payload = message.value() or b""
            try:
                changes.append(change_from_bytes(payload))
            except NotAChange as error:
                poison.append(Poison(self._topic, _partition(message), offset, str(error), payload))
        return Delivery(changes, poison)

    def _rewind(self) -> None:
        for partition in self._partitions.values():
            if partition.uncommitted is not None:
                partition.seek = partition.position = partition.uncommitted
                partition.uncommitted = None
        self._taken = [message for message in self._taken if self._wanted(message)]

    def _commit(self) -> None:
        waiting = {number: known for number, known in self._partitions.items() if known.uncommitted is not None}
        offsets = [TopicPartition(self._topic, number, known.position or 0) for number, known in waiting.items()]
        if not offsets:
            return
        consumer = self._open()
        for result in self._query(lambda: self._commit_and_wait(consumer, offsets)):
            if result.error is not None:
                raise self._unavailable(result.error)
            if result.partition in self._partitions:
                waiting[result.partition].uncommitted = None

    def _commit_and_wait(self, consumer: Consumer, offsets: list[TopicPartition]) -> Sequence[TopicPartition]:
        """Commit, and wait at most COMMIT_SECONDS for the reply. Raises KafkaException and BrokerUnavailable."""
        self._committing = {place.partition: place.offset for place in offsets}
        self._answers.clear()
        consumer.commit(offsets=offsets, asynchronous=True)
        give_up = time.monotonic() + COMMIT_SECONDS
        while not self._answers:
            if time.monotonic() > give_up:
                raise self._unavailable(None)
            # A poll delivers the reply, or a message, which is kept for the next ``receive``.
            message = consumer.poll(STEP_SECONDS)
            if message is not None and self._wanted(message):
                self._taken.append(message)
        ((error, results),) = self._answers
        if error is not None and error.code() != KafkaError._NO_OFFSET:  # noqa: SLF001 - a constant
            raise self._unavailable(error)
        return results

    def _on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        # Ignore the reply to an earlier commit that timed out.
        if {place.partition: place.offset for place in partitions} == self._committing:
            self._answers = [(error, partitions)]

    def _on_assign(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._cluster.refusals.clear(self._refusal)
        self._partitions |= {place.partition: _Partition() for place in partitions}

    def _on_revoke(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        for place in partitions:
            self._partitions.pop(place.partition, None)
        self._taken = [message for message in self._taken if self._wanted(message)]


def stuck_threads(patience: float = 1.0) -> list[str]:
    """Return the names of consumer threads that are still blocked in librdkafka ``patience`` seconds after closing."""
    ours = [thread for thread in threading.enumerate() if thread.name.startswith(THREADS)]
    for thread in ours:
        thread.join(patience)
    return [thread.name for thread in ours if thread.is_alive()]


def _partition(message: Message) -> int:
    number = message.partition()
    return -1 if number is None else number


def _offset(message: Message) -> int:
    offset = message.offset()
    return -1 if offset is None else offset
