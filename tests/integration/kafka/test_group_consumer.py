"""Consuming in a group: what was not committed is delivered again."""

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from pointsman_server.adapters.kafka import (
    GroupConsumer,
    KafkaCluster,
)
from pointsman_server.adapters.kafka import group_consumer as source_module
from pointsman_server.adapters.kafka.group_consumer import stuck_threads
from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import Change
from pointsman_server.events.consumer import Consumer
from pointsman_server.ports.broker import BrokerUnavailable
from pointsman_server.runtime.backoff import Backoff
from tests.support.changes import make_change
from tests.support.kafka import KafkaBroker
from tests.support.kafka_clients import (
    PARTITIONS,
    consuming,
    make_topic,
    many,
    new_name,
    publish_all,
    publishing,
    receive,
    revisions_by_key,
    until,
)


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


async def test_commit_and_close_are_bounded_when_the_broker_hangs(
    kafka_broker: KafkaBroker, real: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a group has lost its coordinator: librdkafka alone waited an hour for the reply to a commit."""
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
        # A receive may bring fewer than a batch: the broker answers with what it has at hand.
        first = len((await receive(source, 1)).changes)
        assert await source.lag() == 25 - first
        second = len((await receive(source, 1)).changes)
        assert await source.lag() == 25 - first - second
        await source.commit()
        rest = len((await receive(source, 25 - first - second)).changes)
        assert (first <= 10, second <= 10, rest) == (True, True, 25 - first - second)
        assert await source.lag() == 0
        await source.rewind()
        assert await source.lag() == rest


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
        # The thread is still polling; nobody awaits its result.
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


async def test_a_lost_broker_is_reported_and_consuming_resumes(kafka_broker: KafkaBroker) -> None:
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
