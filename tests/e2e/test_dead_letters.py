"""``pointsman-server dead-letters``: the list, and the replay."""

import asyncio
import re
import uuid

import pytest

from pointsman_server.adapters.kafka import DeadLetters, KafkaCluster, NewTopic, dead_letter_topic, ensure_topic
from pointsman_server.adapters.kafka.publisher import record
from pointsman_server.ports.broker import Poison
from tests.support.changes import make_change
from tests.support.kafka import read_all
from tests.support.processes import run

GOOD = make_change(7)


@pytest.fixture
def environ(kafka_broker):
    """A topic with two dead letters; one of them is a change."""
    topic = f"letters-{uuid.uuid4().hex[:8]}"

    async def prepare() -> None:
        cluster = KafkaCluster(kafka_broker.bootstrap_servers)
        await ensure_topic(cluster, NewTopic(topic, 3, 1))
        await ensure_topic(cluster, NewTopic(dead_letter_topic(topic), 1, 1))
        letters = DeadLetters(cluster, topic)
        await letters.set_aside(Poison(topic, 1, 17, "no protobuf RouteChange", b"\xffcanary"))
        for _group in ("cache", "audit"):
            await letters.set_aside(Poison(topic, 2, 18, "of a newer version", record(GOOD).value))
        await letters.close()

    asyncio.run(prepare())
    return {"KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers, "POINTSMAN_KAFKA_TOPIC": topic}


def messages(environ: dict[str, str]):
    return read_all(environ["KAFKA_BOOTSTRAP_SERVERS"], environ["POINTSMAN_KAFKA_TOPIC"])


def test_the_list_has_origin_size_and_problem_and_no_content(environ):
    done = run("pointsman-server", "dead-letters", "list", **environ)

    topic = environ["POINTSMAN_KAFKA_TOPIC"]
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{topic}[1]@17  7 bytes  no protobuf RouteChange",
        f"{topic}[2]@18  {len(record(GOOD).value)} bytes  of a newer version",
        "2 dead letters",
    ]


def test_a_replay_sends_what_can_be_decoded_as_it_was_published(environ):
    dry = run("pointsman-server", "dead-letters", "replay", "--dry-run", **environ)
    nothing_yet = messages(environ)
    done = run("pointsman-server", "dead-letters", "replay", **environ)
    once = messages(environ)
    again = run("pointsman-server", "dead-letters", "replay", **environ)

    assert (dry.returncode, nothing_yet) == (0, [])
    assert dry.stdout.endswith("2 dead letters: 1 would be sent, 1 cannot be decoded\n")
    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    assert done.stdout.endswith("2 dead letters: 1 sent, 1 cannot be decoded\n")
    assert re.search(r"\[2\]@18  sent$", done.stdout, re.MULTILINE)
    (message,) = once
    expected = record(GOOD)
    assert (message.key(), message.value()) == (expected.key, expected.value)
    assert dict(message.headers() or [])["ce_id"] == b"event-7"
    # A replay leaves the dead letters in place.
    assert len(messages(environ)) == 2


def test_a_missing_topic_has_no_dead_letters(environ):
    done = run("pointsman-server", "dead-letters", "list", **(environ | {"POINTSMAN_KAFKA_TOPIC": "missing"}))

    assert (done.returncode, done.stdout) == (0, "0 dead letters\n"), done.stderr


@pytest.mark.parametrize("command", ["list", "replay"])
def test_without_kafka_the_error_names_it(command):
    unset = run("pointsman-server", "dead-letters", command)
    down = run("pointsman-server", "dead-letters", command, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")

    assert unset.returncode == 2
    assert "KAFKA_BOOTSTRAP_SERVERS is not set" in unset.stderr
    assert down.returncode == 1
    assert "Kafka at 127.0.0.1:1" in down.stderr
    assert "Traceback" not in down.stderr
