"""The producer for everything that is sent to Kafka: messages in order, without gaps."""

import asyncio
import functools
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pointsman_server.adapters.kafka.client_errors import ClientErrors
from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.explanations import is_denied
from pointsman_server.ports.broker import BrokerUnavailable

Headers = list[tuple[str, str | bytes | None]]
STEP_SECONDS = 0.1
IDLE_SECONDS = 1.0
TOPIC_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Record:
    """One message to send."""

    key: bytes
    value: bytes
    headers: Headers


class OrderedProducer:
    """Sends batches, one at a time. ``error`` is why the last batch failed, or None.

    A batch has its own deadline, before librdkafka's, and is abandoned as a whole: librdkafka drops messages one by
    one, so a later message could be sent after an earlier one failed, and before that one is sent again. A broker may
    still store what it received before the deadline; sent again, those messages are duplicates, in order, without gaps.
    """

    def __init__(self, cluster: KafkaCluster, topic: str, timeout_seconds: float) -> None:
        self._cluster = cluster
        self._errors = ClientErrors()
        self._refusal = f"write {topic}"
        self._topic = topic
        self._timeout_seconds = timeout_seconds
        self._config = cluster.config(
            acks="all",
            enable_idempotence=True,
            # A batch that the broker rejects is a fatal error of the producer, and is not skipped.
            enable_gapless_guarantee=True,
            # A batch is queued at once: waiting would not collect more messages.
            linger_ms=0,
            message_timeout_ms=int(2 * timeout_seconds * 1000) + 1000,
            request_timeout_ms=max(1000, int(timeout_seconds * 1000)),
            # That of the Java client, so that other producers of this topic choose the same partition for a key.
            partitioner="murmur2_random",
            compression_type="lz4",
        )
        self._config["error_cb"] = self._complain
        self._producer: Producer | None = None
        self._lock = asyncio.Lock()
        self._given_up = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.error: KafkaError | None = None

    async def send(self, records: Sequence[Record]) -> int:
        """Send in order. Return how many, from the front, the broker has acknowledged.

        If fewer than all, none of the rest is still in flight. A cancelled call abandons its batch before it returns.
        """
        async with self._lock:
            self._given_up.clear()
            self._keep_clean()
            work = asyncio.ensure_future(asyncio.to_thread(self._send, records))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                self._given_up.set()
                await asyncio.wait({work})
                raise

    @property
    def lacks_topic(self) -> bool:
        """Whether the last batch failed because the topic does not exist."""
        return self.error is not None and self.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART

    def unavailable(self) -> BrokerUnavailable:
        """Make the error that says why the last batch failed."""
        return self._cluster.unavailable(self.error, self._errors, topic=self._topic)

    async def close(self) -> None:
        """Close the connections. A ``send`` in progress ends."""
        self._given_up.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        async with self._lock:
            await asyncio.to_thread(self._discard)

    def _keep_clean(self) -> None:
        """Empty the event queue of librdkafka between batches: in an outage it grows every second."""
        if self._timer is not None:
            self._timer.cancel()
        if self._producer is not None and not self._lock.locked():
            # The next batch fails with a fatal error again.
            with suppress(KafkaException):
                self._producer.poll(0)
        self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._keep_clean)

    def _send(self, records: Sequence[Record]) -> int:
        batch = _Deliveries(len(records))
        self.error = None
        try:
            # Created on first use: a server that is not the leader never connects.
            producer = self._producer = self._producer or Producer(self._config)
        except KafkaException as error:
            # A certificate that cannot be read.
            self.error = error.args[0]
            return 0
        self._enqueue(producer, records, batch)
        deadline = time.monotonic() + self._timeout_seconds
        while not batch.over and time.monotonic() < deadline and not self._given_up.is_set():
            self._poll(producer, batch)
        if batch.front < len(records):
            cause = batch.error or self.error or KafkaError(KafkaError._MSG_TIMED_OUT)  # noqa: SLF001 - a constant
            self.error = self._topic_error(producer) or cause
            if is_denied(self.error):
                self._cluster.refusals.tell(self._refusal, str(self.unavailable()))
            self._discard()
            return batch.front
        self.error = None
        self._errors.clear()
        self._cluster.refusals.clear(self._refusal)
        return batch.front

    def _topic_error(self, producer: Producer) -> KafkaError | None:
        """Request the error of the topic: for a missing topic, a batch only times out."""
        try:
            found = producer.list_topics(self._topic, timeout=TOPIC_SECONDS).topics[self._topic]
        except KafkaException:
            return None
        error: KafkaError | None = found.error
        return error

    def _enqueue(self, producer: Producer, records: Sequence[Record], batch: "_Deliveries") -> None:
        for index, record in enumerate(records):
            try:
                producer.produce(
                    self._topic,
                    record.value,
                    record.key,
                    headers=record.headers,
                    on_delivery=functools.partial(batch.settle, index),
                )
            except (BufferError, KafkaException) as error:
                # The queue is full, or the message too large: messages before it are still sent.
                batch.cut(index, error.args[0] if isinstance(error, KafkaException) else None)
                return

    def _poll(self, producer: Producer, batch: "_Deliveries") -> None:
        """Run delivery callbacks."""
        try:
            # Not flush, which continues to run callbacks after it raised a fatal error.
            producer.poll(STEP_SECONDS)
        except KafkaException as error:
            batch.fail(error.args[0])

    def _discard(self) -> None:
        """Drop all messages that are queued or in flight, and the producer with its connections."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge(in_queue=True, in_flight=True)

    def _complain(self, error: KafkaError) -> None:
        self.error = error
        self._errors(error)


class _Deliveries:
    """The deliveries of one batch. ``front``: how many messages, from the first, are stored."""

    def __init__(self, size: int) -> None:
        self._stored = [False] * size
        self._waiting = size
        self._failed = False
        self.front = 0
        self.error: KafkaError | None = None

    @property
    def over(self) -> bool:
        """Whether all messages have a result, or the batch has failed."""
        return self._waiting == 0 or self._failed

    def settle(self, index: int, error: KafkaError | None, _message: Message) -> None:
        """Record the result of one message."""
        self._waiting -= 1
        if error is not None:
            self.fail(error)
            return
        self._stored[index] = True
        while self.front < len(self._stored) and self._stored[self.front]:
            self.front += 1

    def fail(self, error: KafkaError) -> None:
        """Record that the batch failed: its other results are not awaited."""
        self._failed = True
        self.error = self.error or error

    def cut(self, index: int, error: KafkaError | None) -> None:
        """Record that the messages from ``index`` on were not queued."""
        self._waiting -= len(self._stored) - index
        self.error = error
