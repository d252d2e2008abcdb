"""``ports.ChangePublisher`` on Kafka: CloudEvents 1.0 in binary mode, with a protobuf ``RouteChange`` as data."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC

from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.producer import Headers, OrderedProducer, Record
from pointsman_server.domain.codec import change_to_message
from pointsman_server.domain.routes import Change, ChangeKind
from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.spans import Kind

logger = logging.getLogger(__name__)
Counter = Callable[[ChangeKind], None]


def _no_counter(_kind: ChangeKind) -> None:
    pass


class KafkaPublisher:
    """Publishes changes to ``topic``, keyed by the text of their route key."""

    def __init__(
        self,
        cluster: KafkaCluster,
        topic: str = "route-events",
        *,
        timeout_seconds: float = 30.0,
        delivered: Counter = _no_counter,
        failed: Counter = _no_counter,
        create_topic: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """``timeout_seconds``: the deadline of a batch. ``delivered`` and ``failed`` are called for each change.

        ``create_topic`` is called before a batch if the one before failed because the topic does not exist.
        """
        self._topic = topic
        self._attributes: dict[str, str | int | float | bool] = {
            "messaging.system": "kafka",
            "messaging.destination.name": topic,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
        }
        self._create_topic = create_topic
        self._producer = OrderedProducer(cluster, topic, timeout_seconds)
        self._broken = False
        self._delivered = delivered
        self._failed = failed

    async def publish(self, changes: Sequence[Change]) -> int:
        if self._producer.lacks_topic and self._create_topic:
            await self._create_topic()
        attributes = {**self._attributes, "messaging.batch.message_count": len(changes)}
        with spans.of_changes(f"send {self._topic}", Kind.PRODUCER, changes, attributes) as span:
            count = await self._producer.send([record(change) for change in changes])
            if count < len(changes):
                span.fail(f"{count} of {len(changes)} acknowledged")
        for change in changes[:count]:
            self._delivered(change.kind)
        for change in changes[count:]:
            self._failed(change.kind)
        self._report(count == len(changes))
        return count

    def _report(self, whole: bool) -> None:
        # Log once per outage: the relay retries every few seconds.
        if not whole and not self._broken:
            logger.warning("%s", self._producer.unavailable())
        self._broken = not whole

    async def close(self) -> None:
        await self._producer.close()


def record(change: Change) -> Record:
    """Encode a change as a message."""
    return Record(str(change.key).encode(), change_to_message(change).SerializeToString(), headers(change))


def headers(change: Change) -> Headers:
    """Describe a change by CloudEvents attributes (Kafka Protocol Binding 1.0 §3.2: ``ce_`` and UTF-8 text)."""
    attributes: Headers = [
        ("content-type", "application/protobuf"),
        ("ce_specversion", "1.0"),
        ("ce_id", change.event_id),
        ("ce_source", f"/pointsman/{change.epoch}"),
        ("ce_type", f"pointsman.v1.RouteChange.{change.kind}"),
        ("ce_subject", str(change.key)),
        ("ce_time", change.occur_time.astimezone(UTC).isoformat().replace("+00:00", "Z")),
    ]
    if change.traceparent:
        # The Distributed Tracing extension of CloudEvents.
        attributes.append(("ce_traceparent", change.traceparent))
        if change.tracestate:
            attributes.append(("ce_tracestate", change.tracestate))
    return attributes
