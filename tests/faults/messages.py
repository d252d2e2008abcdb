"""Faults of the topic: consumers are set back, and somebody writes what is no change."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from pointsman.v1 import route_pb2
from tests.faults.faulting import Scene
from tests.faults.load import KEYS, message, name
from tests.faults.rig import TOPIC, Rig, read_clock

GROUPS = ("pointsman-cache", "pointsman-audit")
REBALANCE_SECONDS = 30.0
MUCH = 40
POISON = 12


@asynccontextmanager
async def consumers_rewind(scene: Scene) -> AsyncIterator[None]:
    """Set consumers back to the beginning: a foreign member of each group gets partitions, commits 0 for them, leaves.

    ``caught``: the messages that came again.
    """
    before = await asyncio.to_thread(_consumed, scene.rig)
    went_back = await asyncio.gather(*(asyncio.to_thread(_rewind, scene.rig, group) for group in GROUPS))
    scene.caught = await asyncio.to_thread(_wait_for_more, scene.rig, before) if all(went_back) else 0
    yield


def _consumed(rig: Rig) -> int:
    """Count what all servers have consumed, beyond what was published for them to consume."""
    with rig.connect() as connection:
        published = read_clock(connection).relayed
    handled = sum(server.metric(r"pointsman_consumed_changes_total\{.*\}") for server in rig.servers)
    return int(handled) - published * len(GROUPS)


def _wait_for_more(rig: Rig, before: int) -> int:
    """Wait until much is consumed again; what is new has at most a few messages on their way."""
    give_up, again = time.monotonic() + REBALANCE_SECONDS, 0
    while again < MUCH and time.monotonic() < give_up:
        time.sleep(0.2)
        again = _consumed(rig) - before
    return again if again >= MUCH else 0


def _rewind(rig: Rig, group: str) -> int:
    consumer = Consumer(
        {
            "bootstrap.servers": rig.kafka.bootstrap_servers,
            "group.id": group,
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
            "log_level": 0,
        }
    )
    try:
        return _commit_the_beginning(consumer)
    finally:
        consumer.close()


def _commit_the_beginning(consumer: Consumer) -> int:
    mine: list[TopicPartition] = []

    def assigned(_consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        mine.extend(TopicPartition(TOPIC, each.partition, 0) for each in partitions)

    consumer.subscribe([TOPIC], on_assign=assigned)
    give_up = time.monotonic() + REBALANCE_SECONDS
    while not mine and time.monotonic() < give_up:
        consumer.poll(0.1)
    if mine:
        consumer.commit(offsets=mine, asynchronous=False)
    return len(mine)


@asynccontextmanager
async def poisoned(scene: Scene) -> AsyncIterator[None]:
    """Write messages that are no changes among the changes, under the keys of real routes too.

    ``caught``: how many.
    """
    producer = Producer({"bootstrap.servers": scene.rig.kafka.bootstrap_servers, "acks": "all", "log_level": 0})
    before = len(scene.rig.poison)

    def stored(error: object, message: Message) -> None:
        assert error is None, error
        scene.rig.poison[_place(message)] = message.value() or b""

    for _ in range(POISON):
        key, value = garbage(scene.dice)
        producer.produce(TOPIC, value, key.encode(), on_delivery=stored)
        producer.poll(0)
        await asyncio.sleep(scene.dice.uniform(0.0, 0.15))
    await asyncio.to_thread(producer.flush, 10)
    scene.caught = len(scene.rig.poison) - before
    yield


def garbage(dice: random.Random) -> tuple[str, bytes | None]:
    """Make a key and a value that no server published: noise, parts of a change, and what only looks like one."""
    key = name(dice.randrange(KEYS))
    change = route_pb2.RouteChange(
        revision=dice.randrange(1, 1000), key=message(key), kind=route_pb2.CHANGE_KIND_UPDATED
    )
    whole = change.SerializeToString()
    values = (
        None,
        b"\xff" + dice.randbytes(dice.randrange(1, 200)),
        whole[:-3],
        route_pb2.RouteChange(revision=-1, key=message(key), kind=route_pb2.CHANGE_KIND_DELETED).SerializeToString(),
        route_pb2.RouteChange(revision=1, kind=route_pb2.CHANGE_KIND_DELETED).SerializeToString(),
    )
    return key, dice.choice(values)


def _place(message: Message) -> tuple[int, int]:
    return message.partition() or 0, message.offset() or 0
