"""``pointsman-server dead-letters``: what was set aside is shown, and comes back."""

import asyncio
import re
import uuid

import pytest

from pointsman_server.adapters.kafka import DeadLetters, KafkaCluster, dead_letter_topic, ensure_topic
from pointsman_server.adapters.kafka.publisher import record
from pointsman_server.ports.broker import Poison
from tests.support.changes import make_change
from tests.support.kafka import read_all
from tests.support.processes import run

GOOD = make_change(7)


@pytest.fixture
def environ(kafka_broker):
    """A topic that two messages were refused from; one of them is a change."""
    topic = f"letters-{uuid.uuid4().hex[:8]}"

    async def prepare() -> None:
        cluster = KafkaCluster(kafka_broker.bootstrap_servers)
        await ensure_topic(cluster, topic, 3, 1)
        await ensure_topic(cluster, dead_letter_topic(topic), 1, 1)
        letters = DeadLetters(cluster, topic)
        await letters.set_aside(Poison(topic, 1, 17, "no protobuf RouteChange", b"\xffcanary"))
        for _group in ("cache", "audit"):
            await letters.set_aside(Poison(topic, 2, 18, "of a newer version", record(GOOD).value))
        await letters.close()

    asyncio.run(prepare())
    return {"KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers, "POINTSMAN_KAFKA_TOPIC": topic}


def messages(environ: dict[str, str]):
    return read_all(environ["KAFKA_BOOTSTRAP_SERVERS"], environ["POINTSMAN_KAFKA_TOPIC"])


def test_the_list_says_where_each_lay_and_never_what_is_in_it(environ):
    done = run("pointsman-server", "dead-letters", "list", **environ)

    topic = environ["POINTSMAN_KAFKA_TOPIC"]
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{topic}[1]@17  7 bytes  no protobuf RouteChange",
        f"{topic}[2]@18  {len(record(GOOD).value)} bytes  of a newer version",
        "2 dead letters",
    ]


def test_a_replay_sends_what_is_a_change_now_as_it_was(environ):
    dry = run("pointsman-server", "dead-letters", "replay", "--dry-run", **environ)
    nothing_yet = messages(environ)
    done = run("pointsman-server", "dead-letters", "replay", **environ)
    once = messages(environ)
    again = run("pointsman-server", "dead-letters", "replay", **environ)

    assert (dry.returncode, nothing_yet) == (0, [])
    assert dry.stdout.endswith("2 dead letters: 1 would be sent, 1 still no change\n")
    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    assert done.stdout.endswith("2 dead letters: 1 sent, 1 still no change\n")
    assert re.search(r"\[2\]@18  sent$", done.stdout, re.MULTILINE)
    (message,) = once
    expected = record(GOOD)
    assert (message.key(), message.value()) == (expected.key, expected.value)
    assert dict(message.headers() or [])["ce_id"] == b"event-7"
    # At least once: what was sent stays where it is.
    assert len(messages(environ)) == 2


def test_no_topic_has_no_dead_letters(environ):
    done = run("pointsman-server", "dead-letters", "list", **(environ | {"POINTSMAN_KAFKA_TOPIC": "nobody-made-this"}))

    assert (done.returncode, done.stdout) == (0, "0 dead letters\n"), done.stderr


@pytest.mark.parametrize("command", ["list", "replay"])
def test_kafka_is_needed_and_named(command):
    unset = run("pointsman-server", "dead-letters", command)
    down = run("pointsman-server", "dead-letters", command, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")

    assert unset.returncode == 2
    assert "KAFKA_BOOTSTRAP_SERVERS is not set" in unset.stderr
    assert down.returncode == 1
    assert "Kafka at 127.0.0.1:1" in down.stderr
    assert "Traceback" not in down.stderr
