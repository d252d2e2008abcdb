"""Messages that are no change go to the dead letters."""

import asyncio
from collections.abc import Sequence

from confluent_kafka import Producer

from pointsman.v1 import route_pb2
from pointsman_server.adapters.kafka import (
    DeadLetters,
    KafkaCluster,
    NewTopic,
    dead_letter_topic,
    ensure_topic,
)
from pointsman_server.domain.routes import Change
from pointsman_server.events.consumer import Consumer
from tests.support.changes import make_change
from tests.support.kafka import read_all
from tests.support.kafka_clients import consuming, make_topic, new_name, publish_all, until


async def test_undecodable_messages_become_dead_letters_and_the_rest_is_handled(real: KafkaCluster) -> None:
    topic = await make_topic(real, partitions=1)
    await ensure_topic(real, NewTopic(dead_letter_topic(topic), 1, 1))
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
