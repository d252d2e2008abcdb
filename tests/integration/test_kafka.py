"""The Kafka adapters against real Apache Kafka and, where it can do it, librdkafka's local cluster."""

import asyncio
import contextlib
import logging
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest
from confluent_kafka import Message, Producer

from pointsman.v1 import route_pb2
from pointsman_server.adapters.kafka import (
    DeadLetters,
    GroupConsumer,
    KafkaCluster,
    KafkaProbe,
    KafkaPublisher,
    dead_letter_topic,
    ensure_topic,
)
from pointsman_server.adapters.kafka import group_consumer as source_module
from pointsman_server.adapters.kafka.group_consumer import stuck_threads
from pointsman_server.domain.codec import change_from_message
from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import Change, ChangeKind
from pointsman_server.events.consumer import Consumer
from pointsman_server.ports.broker import BrokerUnavailable, Delivery
from pointsman_server.runtime.backoff import Backoff
from tests.support.changes import make_change
from tests.support.kafka import KafkaBroker, admin, free_port, read_all

PARTITIONS = 3


@pytest.fixture
def real(kafka_broker: KafkaBroker) -> KafkaCluster:
    return KafkaCluster(kafka_broker.bootstrap_servers)


@pytest.fixture(params=["real", "mock"])
def cluster(request: pytest.FixtureRequest) -> KafkaCluster:
    if request.param == "mock":
        return KafkaCluster(request.getfixturevalue("kafka_mock"))
    return KafkaCluster(request.getfixturevalue("kafka_broker").bootstrap_servers)


def new_name() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


async def make_topic(cluster: KafkaCluster, partitions: int = PARTITIONS) -> str:
    topic = new_name()
    await ensure_topic(cluster, topic, partitions, 1)
    return topic


@contextlib.asynccontextmanager
async def publishing(cluster: KafkaCluster, topic: str, seconds: float = 20) -> AsyncIterator[KafkaPublisher]:
    publisher = KafkaPublisher(cluster, topic, timeout_seconds=seconds)
    try:
        yield publisher
    finally:
        await publisher.close()


@contextlib.asynccontextmanager
async def consuming(cluster: KafkaCluster, topic: str, group: str, batch: int = 500) -> AsyncIterator[GroupConsumer]:
    source = GroupConsumer(cluster, group, topic, batch=batch)
    try:
        yield source
    finally:
        await source.close()


async def publish_all(cluster: KafkaCluster, topic: str, changes: Sequence[Change]) -> None:
    async with publishing(cluster, topic) as publisher:
        assert await publisher.publish(changes) == len(changes)


async def receive(source: GroupConsumer, count: int) -> Delivery:
    """Receive until ``count`` messages came."""
    changes: list[Change] = []
    poison = []
    async with asyncio.timeout(30):
        while len(changes) + len(poison) < count:
            delivery = await source.receive(0.5)
            changes += delivery.changes
            poison += delivery.poison
    return Delivery(changes, poison)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a consumer has no event for what it counts
            await asyncio.sleep(0.02)


def revisions_by_key(changes: Sequence[Change]) -> dict[str, list[int]]:
    found = defaultdict(list)
    for change in changes:
        found[str(change.key)].append(change.revision)
    return dict(found)


def decode(message: Message) -> Change:
    return change_from_message(route_pb2.RouteChange.FromString(message.value() or b""))


def many(first: int, last: int) -> list[Change]:
    return [make_change(revision, f"service-{revision % 7}") for revision in range(first, last + 1)]


# Topics


async def test_a_topic_is_created_with_the_partitions_asked_for_and_never_changed(real: KafkaCluster) -> None:
    topic = new_name()
    assert await ensure_topic(real, topic, 5, 1) is None
    assert await ensure_topic(real, topic, 5, 1) is None
    warning = await ensure_topic(real, topic, 8, 1)
    assert warning is not None
    assert f"topic {topic} has 5 partitions, not 8" in warning
    assert len(admin(real.bootstrap_servers).list_topics(timeout=5).topics[topic].partitions) == 5


async def test_servers_that_start_together_create_a_topic_once(real: KafkaCluster) -> None:
    topic = new_name()
    assert await asyncio.gather(*(ensure_topic(real, topic, 4, 1) for _ in range(4))) == [None] * 4


async def test_a_topic_that_the_brokers_refuse_is_an_error(real: KafkaCluster) -> None:
    with pytest.raises(BrokerUnavailable, match=real.bootstrap_servers):
        await ensure_topic(real, new_name(), 1, 3)


async def test_the_local_cluster_makes_topics_by_itself(kafka_mock: str) -> None:
    topic = new_name()
    assert await ensure_topic(KafkaCluster(kafka_mock), topic, 12, 1) is None
    assert topic in admin(kafka_mock).list_topics(timeout=5).topics


async def test_a_broker_that_is_not_there_is_named() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnavailable, match=f"Kafka at {address} failed"):
        await KafkaProbe(KafkaCluster(address, {"sasl.password": "canary"}), 0.5).check()
    assert "canary" not in repr(KafkaCluster(address, {"sasl.password": "canary"}))


# Publishing


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


async def test_what_became_of_each_change_is_counted() -> None:
    delivered, failed = [], []
    cluster = KafkaCluster(f"127.0.0.1:{free_port()}")
    publisher = KafkaPublisher(cluster, timeout_seconds=0.2, delivered=delivered.append, failed=failed.append)
    assert await publisher.publish([make_change(1), make_change(2, kind=ChangeKind.CREATED)]) == 0
    assert (delivered, failed) == ([], [ChangeKind.UPDATED, ChangeKind.CREATED])
    await publisher.close()


async def test_librdkafka_keeps_its_complaints_out_of_the_log(
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


async def test_no_message_is_left_behind_when_publishing_is_cancelled() -> None:
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


# Consuming


async def test_what_was_committed_does_not_come_again_and_the_rest_does(real: KafkaCluster) -> None:
    topic, group = await make_topic(real), new_name()
    await publish_all(real, topic, many(1, 50))
    async with consuming(real, topic, group) as source:
        first = await receive(source, 50)
        assert {change.revision for change in first.changes} == set(range(1, 51))
        assert all(found == sorted(found) for found in revisions_by_key(first.changes).values())
        await source.commit()
        await publish_all(real, topic, many(51, 60))
        await receive(source, 10)
        # Like a crash: it leaves without a commit.
    async with consuming(real, topic, group) as source:
        again = await receive(source, 10)
        assert {change.revision for change in again.changes} == set(range(51, 61))


async def test_an_unanswered_commit_fails_in_time_and_so_does_leaving(
    kafka_broker: KafkaBroker, real: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a group that has lost its coordinator: librdkafka itself waited for such an answer for an hour."""
    monkeypatch.setattr(source_module, "COMMIT_SECONDS", 0.5)
    monkeypatch.setattr(source_module, "CLOSE_SECONDS", 1.0)
    topic = await make_topic(real)
    async with publishing(real, topic) as publisher:
        await publisher.publish([make_change(1)])
    source = GroupConsumer(real, new_name(), topic)
    while not (await source.receive(1.0)).changes:
        pass
    kafka_broker.pause()
    try:
        with pytest.raises(BrokerUnavailable):
            await source.commit()
        begun = asyncio.get_running_loop().time()
        await source.close()
        assert asyncio.get_running_loop().time() - begun < 30
    finally:
        kafka_broker.resume()
    assert stuck_threads(60) == []


async def test_rewind_goes_back_to_the_last_commit(cluster: KafkaCluster) -> None:
    topic = await make_topic(cluster)
    await publish_all(cluster, topic, many(1, 30))
    async with consuming(cluster, topic, new_name(), batch=10) as source:
        await receive(source, 30)
        await source.commit()
        await source.rewind()
        assert (await source.receive(0.3)).changes == []
        await publish_all(cluster, topic, many(31, 60))
        for _ in range(2):
            delivery = await receive(source, 30)
            assert revisions_by_key(delivery.changes) == revisions_by_key(many(31, 60))
            await source.rewind()
        # In the middle of what was received, too.
        await receive(source, 10)
        await source.rewind()
        delivery = await receive(source, 30)
        assert revisions_by_key(delivery.changes) == revisions_by_key(many(31, 60))


async def test_lag_is_what_was_not_received(real: KafkaCluster) -> None:
    topic = await make_topic(real, partitions=1)
    await publish_all(real, topic, many(1, 25))
    async with consuming(real, topic, new_name(), batch=10) as source:
        await receive(source, 1)
        assert await source.lag() == 15
        await receive(source, 1)
        assert await source.lag() == 5
        await source.commit()
        await receive(source, 1)
        assert await source.lag() == 0
        await source.rewind()
        assert await source.lag() == 5


async def test_lag_is_known_before_the_first_message(real: KafkaCluster) -> None:
    topic, group = await make_topic(real, partitions=1), new_name()
    await publish_all(real, topic, many(1, 25))
    async with consuming(real, topic, group) as source:
        await receive(source, 25)
        await source.commit()
    async with consuming(real, topic, group) as source:
        async with asyncio.timeout(30):
            while not source._partitions:
                await source.receive(0.2)
        assert await source.lag() == 0


async def test_a_cancelled_receive_loses_nothing(real: KafkaCluster) -> None:
    topic, group = await make_topic(real), new_name()
    async with consuming(real, topic, group) as source:
        await publish_all(real, topic, many(1, 5))
        await receive(source, 5)
        await source.commit()
        task = asyncio.create_task(source.receive(5))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait({task})
        # The thread is still polling, and takes this for nobody.
        await publish_all(real, topic, many(6, 6))
        await source.commit()
        assert [change.revision for change in (await receive(source, 1)).changes] == [6]


async def test_partitions_move_without_loss_and_nothing_lost_is_committed(real: KafkaCluster) -> None:
    topic, group = await make_topic(real), new_name()
    await publish_all(real, topic, many(1, 70))
    async with consuming(real, topic, group) as first:
        await receive(first, 70)
        async with consuming(real, topic, group) as second:
            moved: list[Change] = []
            async with asyncio.timeout(30):
                while not moved or len(first._partitions) == PARTITIONS:
                    await first.receive(0.1)
                    moved += (await second.receive(0.1)).changes
            # What moved was never committed, so it came again; committing the rest must not cover it.
            await first.commit()
        async with consuming(real, topic, group) as third:
            kept = set(range(1, 71)) - {change.revision for change in moved}
            async with asyncio.timeout(30):
                back: list[Change] = []
                while len(first._partitions) + len(third._partitions) < PARTITIONS or len(back) == 0:
                    back += (await first.receive(0.1)).changes
                    back += (await third.receive(0.1)).changes
            assert not kept & {change.revision for change in back}


async def test_poison_is_set_aside_with_its_origin_and_the_rest_goes_on(real: KafkaCluster) -> None:
    topic = await make_topic(real, partitions=1)
    await ensure_topic(real, dead_letter_topic(topic), 1, 1)
    foreign = Producer({"bootstrap.servers": real.bootstrap_servers})
    wrong_key = route_pb2.RouteChange(revision=1, kind=route_pb2.CHANGE_KIND_CREATED)
    bad = [b"\xff\xff not protobuf", b"", wrong_key.SerializeToString(), None]
    for value in bad:
        foreign.produce(topic, value, b"acme/pay/prod/v1")
    foreign.flush(10)
    await publish_all(real, topic, [make_change(1), make_change(2)])

    seen: list[int] = []

    async def handle(changes: Sequence[Change]) -> None:
        seen.extend(change.revision for change in changes)

    letters = DeadLetters(real, topic)
    async with consuming(real, topic, new_name()) as source:
        consumer = Consumer("test", source, handle, letters.set_aside, receive_seconds=0.2)
        task = asyncio.create_task(consumer.run())
        await until(lambda: consumer.handled == 2 and consumer.poisoned == 4)
        task.cancel()
        await asyncio.wait({task})
    await letters.close()
    assert seen == [1, 2]
    dead = read_all(real.bootstrap_servers, dead_letter_topic(topic))
    assert [message.value() or b"" for message in dead] == [value or b"" for value in bad]
    assert dict(dead[0].headers() or []) == {
        "problem": b"no protobuf RouteChange",
        "topic": topic.encode(),
        "partition": b"0",
        "offset": b"0",
    }


async def test_nothing_is_skipped_when_the_work_fails_and_the_consumer_is_killed(real: KafkaCluster) -> None:
    topic, group = await make_topic(real), new_name()
    await publish_all(real, topic, many(1, 300))
    done: list[Change] = []
    calls = 0

    async def handle(changes: Sequence[Change]) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise StoreUnavailable
        done.extend(changes)

    async def refuse(_poison: object) -> None:
        raise AssertionError

    for target in (100, 300):
        async with consuming(real, topic, group, batch=25) as source:
            backoff = Backoff(0.01, 0.02)
            task = asyncio.create_task(
                Consumer("test", source, handle, refuse, receive_seconds=0.2, backoff=backoff).run()
            )
            await until(lambda target=target: len({change.revision for change in done}) >= target)
            task.cancel()
            await asyncio.wait({task})
    assert {change.revision for change in done} == set(range(1, 301))
    for found in revisions_by_key(done).values():
        firsts = list(dict.fromkeys(found))
        assert firsts == sorted(firsts)


async def test_a_source_says_that_the_broker_is_gone(kafka_broker: KafkaBroker) -> None:
    cluster = KafkaCluster(kafka_broker.bootstrap_servers)
    topic = await make_topic(cluster)
    await publish_all(cluster, topic, many(1, 3))
    async with consuming(cluster, topic, new_name()) as source:
        await receive(source, 3)
        await source.commit()
        await asyncio.to_thread(kafka_broker.kill)
        try:
            async with asyncio.timeout(20):
                with pytest.raises(BrokerUnavailable, match=kafka_broker.bootstrap_servers):
                    await receive(source, 1)
        finally:
            await asyncio.to_thread(kafka_broker.start)
        await publish_all(cluster, topic, many(4, 6))
        found: set[int] = set()
        async with asyncio.timeout(40):
            while not found >= {4, 5, 6}:
                with contextlib.suppress(BrokerUnavailable):
                    found |= {change.revision for change in (await source.receive(0.5)).changes}


async def test_a_topic_that_is_deleted_meanwhile_is_named_and_created_again_and_the_lag_recovers(
    real: KafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await make_topic(real, partitions=1)

    async def create() -> object:
        return await ensure_topic(real, topic, 1, 1)

    publisher = KafkaPublisher(real, topic, timeout_seconds=3, create_topic=create)
    async with consuming(real, topic, new_name()) as source:
        assert await publisher.publish(many(1, 20)) == 20
        await receive(source, 20)
        await source.commit()
        client = admin(real.bootstrap_servers)
        await asyncio.to_thread(client.delete_topics([topic])[topic].result, 30)
        assert await publisher.publish(many(21, 23)) == 0
        assert f"Kafka at {real.bootstrap_servers} has no topic {topic}" in caplog.text
        async with asyncio.timeout(60):
            while await publisher.publish(many(21, 23)) < 3:
                pass
        found: set[int] = set()
        async with asyncio.timeout(120):
            while not found >= {21, 22, 23}:
                with contextlib.suppress(BrokerUnavailable):
                    found |= {change.revision for change in (await source.receive(0.5)).changes}
        await source.commit()
        assert await source.lag() == 0
        assert await publisher.publish(many(24, 24)) == 1
        await receive(source, 1)
        assert await source.lag() == 0
    await publisher.close()
