"""Publishing: CloudEvents, order per key, and nothing lost or overtaken in an outage."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pointsman_server.adapters.kafka import (
    KafkaCluster,
    KafkaPublisher,
)
from pointsman_server.domain.routes import Change, ChangeKind
from tests.support.changes import make_change
from tests.support.kafka import KafkaBroker, free_port, read_all
from tests.support.kafka_clients import decode, make_topic, many, publish_all, publishing, revisions_by_key


async def test_messages_are_cloud_events_in_the_order_of_their_keys(cluster: KafkaCluster) -> None:
    topic = await make_topic(cluster)
    changes = many(1, 200)
    await publish_all(cluster, topic, changes)
    messages = read_all(cluster.bootstrap_servers, topic)
    decoded = [decode(message) for message in messages]
    assert sorted(change.revision for change in decoded) == list(range(1, 201))
    assert all(found == sorted(found) for found in revisions_by_key(decoded).values())
    # Content and order: each message is exactly the change of its revision, in one partition per key.
    assert all(change == changes[change.revision - 1] for change in decoded)
    assert len({(message.key(), message.partition()) for message in messages}) == 7


async def test_headers_are_those_of_cloud_events_binary_mode(real: KafkaCluster) -> None:
    topic = await make_topic(real)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await publish_all(real, topic, [make_change(7, kind=ChangeKind.DELETED, trace=trace), make_change(8)])
    deleted, updated = sorted(read_all(real.bootstrap_servers, topic), key=lambda message: message.offset() or 0)
    assert deleted.key() == b"acme/pay/prod/v1"
    assert dict(deleted.headers() or []) == {
        "content-type": b"application/protobuf",
        "ce_specversion": b"1.0",
        "ce_id": b"event-7",
        "ce_source": b"/pointsman/e1",
        "ce_type": b"pointsman.v1.RouteChange.DELETED",
        "ce_subject": b"acme/pay/prod/v1",
        "ce_time": b"2026-01-01T00:00:07Z",
        "ce_traceparent": trace.encode(),
    }
    assert "ce_traceparent" not in dict(updated.headers() or [])


async def test_delivered_and_failed_changes_are_counted() -> None:
    delivered, failed = [], []
    cluster = KafkaCluster(f"127.0.0.1:{free_port()}")
    publisher = KafkaPublisher(cluster, timeout_seconds=0.2, delivered=delivered.append, failed=failed.append)
    assert await publisher.publish([make_change(1), make_change(2, kind=ChangeKind.CREATED)]) == 0
    assert (delivered, failed) == ([], [ChangeKind.UPDATED, ChangeKind.CREATED])
    await publisher.close()


async def test_errors_of_librdkafka_are_logged_at_debug_only(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with publishing(KafkaCluster(address), "none", 0.3) as publisher:
        with caplog.at_level(logging.DEBUG):
            for _ in range(3):
                await publisher.publish([make_change(1)])
    # One warning for the outage that says where and why; all else is for debugging.
    (warning,) = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.INFO]
    assert address in warning
    assert "Connection refused" in warning
    assert capfd.readouterr().err == ""


async def test_a_cancelled_publish_leaves_no_message_in_flight() -> None:
    async with publishing(KafkaCluster(f"127.0.0.1:{free_port()}"), "none", 60) as publisher:
        task = asyncio.create_task(publisher.publish([make_change(1)]))
        await asyncio.sleep(0.1)
        task.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert publisher._producer._producer is None


async def publish_until_done(publisher: KafkaPublisher, changes: Sequence[Change]) -> int:
    """Publish as the relay does: what was not acknowledged again. Returns how many attempts it took."""
    done = attempts = 0
    async with asyncio.timeout(60):
        while done < len(changes):
            done += await publisher.publish(changes[done : done + 50])
            attempts += 1
    return attempts


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_order_and_completeness_survive_the_broker(kafka_broker: KafkaBroker, fault: str) -> None:
    cluster = KafkaCluster(kafka_broker.bootstrap_servers)
    topic = await make_topic(cluster)
    changes = many(1, 1000)
    async with publishing(cluster, topic, 1.5) as publisher:
        assert await publish_until_done(publisher, changes[:100]) == 2
        work = asyncio.create_task(publish_until_done(publisher, changes[100:]))
        await asyncio.sleep(0.03)
        getattr(kafka_broker, fault)()
        try:
            await asyncio.sleep(2.5)
            assert not work.done()
        finally:
            await asyncio.to_thread(kafka_broker.start if fault == "kill" else kafka_broker.resume)
        assert await work > 18
    decoded = [decode(message) for message in read_all(cluster.bootstrap_servers, topic)]
    assert {change.revision for change in decoded} == set(range(1, 1001))
    for key, found in revisions_by_key(decoded).items():
        # Repetitions are allowed; the first of each revision are in order.
        firsts = list(dict.fromkeys(found))
        assert firsts == sorted(firsts), key


async def test_only_the_acknowledged_front_counts(kafka_broker: KafkaBroker) -> None:
    cluster = KafkaCluster(kafka_broker.bootstrap_servers)
    topic = await make_topic(cluster)
    async with publishing(cluster, topic, 4) as publisher:
        assert await publisher.publish(many(1, 10)) == 10
        await asyncio.to_thread(kafka_broker.kill)
        try:
            assert await publisher.publish(many(11, 20)) == 0
        finally:
            await asyncio.to_thread(kafka_broker.start)
        stored = 0
        async with asyncio.timeout(30):
            while stored < 10:
                stored += await publisher.publish(many(11 + stored, 20))
    decoded = [decode(message) for message in read_all(cluster.bootstrap_servers, topic)]
    assert sorted(change.revision for change in decoded) == list(range(1, 21))


async def test_a_change_that_the_broker_refuses_stops_everything_behind_it(real: KafkaCluster) -> None:
    topic = await make_topic(real, partitions=1)
    changes = [make_change(1), make_change(2), replace(make_change(3), reason="x" * 2_000_000), make_change(4)]
    async with publishing(real, topic) as publisher:
        assert await publisher.publish(changes) == 2
    assert [decode(message).revision for message in read_all(real.bootstrap_servers, topic)] == [1, 2]
