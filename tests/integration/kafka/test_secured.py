"""Three brokers with TLS, SASL and an authorizer: every way to log in, with the rights of the pages and no more."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from pointsman_server.adapters.kafka import (
    BroadcastConsumer,
    DeadLetters,
    GroupConsumer,
    KafkaCluster,
    KafkaProbe,
    KafkaPublisher,
    NewTopic,
    cluster_of,
    dead_letter_topic,
    ensure_topic,
    last_changes,
    needs_of,
    read_durability,
)
from pointsman_server.adapters.kafka.dead_letters import read_dead_letters
from pointsman_server.config.environment import load
from pointsman_server.ports.broker import BrokerUnavailable, Poison
from tests.support.kafka_clients import consuming, many, new_name, publishing, receive
from tests.support.kafka_secured import PASSWORD, SecuredCluster

T = TypeVar("T")
WAYS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "certificate"]


def logging_in(kafka: SecuredCluster, way: str, user: str, directory: Path) -> dict[str, str]:
    """Make ``user`` known to the cluster, and return the environment of a server that logs in as it."""
    if way == "certificate":
        kafka.certify(directory, user)
        return kafka.certified(directory)
    if way == "OAUTHBEARER":
        kafka.tokens.secrets[user] = "the-secret"
        return kafka.oauth(user, "the-secret")
    if way != "PLAIN":
        kafka.password(user, PASSWORD, way)
    return kafka.scram(user, PASSWORD, way)


def connected(environ: dict[str, str], topic: str) -> tuple[KafkaCluster, KafkaProbe]:
    settings = load(environ | {"POINTSMAN_KAFKA_TOPIC": topic})
    cluster = cluster_of(settings)
    return cluster, KafkaProbe(cluster, needs_of(settings), 3.0)


async def until_raised(work: Callable[[], Awaitable[object]], text: str) -> str:
    """Repeat ``work`` until it raises BrokerUnavailable with a text that ``text`` matches, and return that text."""
    seen = ""
    async with asyncio.timeout(30):
        while not re.search(text, seen):
            try:
                await work()
            except BrokerUnavailable as error:
                seen = str(error)
    return seen


async def until_done(work: Callable[[], Awaitable[T]]) -> T:
    """Repeat ``work`` until it raises nothing, and return its result."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await work()
            except BrokerUnavailable:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("way", WAYS)
async def test_every_client_works_with_the_rights_that_the_pages_name(
    secured_kafka: SecuredCluster, way: str, tmp_path: Path
) -> None:
    user = "plain" if way == "PLAIN" else new_name()
    topic = new_name()
    secured_kafka.create(topic, dead_letter_topic(topic))
    secured_kafka.serve(user, topic)
    cluster, probe = connected(logging_in(secured_kafka, way, user, tmp_path), topic)
    await until_done(probe.check)
    stream, letters = BroadcastConsumer(cluster, topic), DeadLetters(cluster, topic)
    await until_done(lambda: stream.receive(0.1))
    async with publishing(cluster, topic) as publisher, consuming(cluster, topic, cluster.group("audit")) as source:
        assert await publisher.publish(many(1, 30)) == 30
        assert {change.revision for change in (await receive(source, 30)).changes} == set(range(1, 31))
        await source.commit()
    assert max(change.revision for change in await last_changes(cluster, topic)) == 30
    async with asyncio.timeout(20):
        assert await stream.receive(10)
    await letters.set_aside(Poison(topic, 0, 7, "no change", b"x"))
    with pytest.raises(BrokerUnavailable, match=f"use the topic {dead_letter_topic(topic)}: grant it in the ACLs"):
        await read_dead_letters(cluster, topic)
    secured_kafka.allow(user, "READ", "TOPIC", dead_letter_topic(topic))
    assert [letter.payload for letter in await until_done(lambda: read_dead_letters(cluster, topic))] == [b"x"]
    await asyncio.gather(stream.close(), letters.close())
    if way == "OAUTHBEARER":
        assert "kafka" in secured_kafka.tokens.scopes


async def test_what_is_missing_is_named_step_by_step_until_nothing_is(secured_kafka: SecuredCluster) -> None:
    user, topic = new_name(), new_name()
    letters = dead_letter_topic(topic)
    secured_kafka.password(user, PASSWORD)
    cluster, probe = connected(secured_kafka.scram(user), topic)
    told = await until_raised(probe.check, "group pointsman-audit")
    assert told.startswith(
        f"Kafka at {secured_kafka.sasl} does not let the user {user} use the topic {topic}, if there"
    )
    assert f"use the topic {letters}, if there is one: grant it in the ACLs Write on it" in told
    secured_kafka.serve(user, topic)
    missing = f"has no topic {topic}, and the user {user} may not create it: create it, or grant Create"
    assert f"has no topic {letters}, and " in await until_raised(probe.check, missing)
    with pytest.raises(BrokerUnavailable, match=missing):
        await ensure_topic(cluster, NewTopic(topic, 3))
    secured_kafka.create(topic)
    secured_kafka.allow(user, "CREATE", "TOPIC", letters)
    await until_done(probe.check)
    assert letters not in secured_kafka.admin.list_topics(timeout=10).topics, "the probe creates nothing"
    await ensure_topic(cluster, NewTopic(letters, 1))
    assert letters in secured_kafka.admin.list_topics(timeout=10).topics


async def test_a_consumer_names_the_group_or_the_topic_it_may_not_use_and_goes_on_once_it_may(
    secured_kafka: SecuredCluster,
) -> None:
    user, topic, group = new_name(), new_name(), new_name()
    secured_kafka.password(user, PASSWORD)
    secured_kafka.create(topic)
    cluster, _ = connected(secured_kafka.scram(user), topic)
    publisher, source = KafkaPublisher(cluster, topic, timeout_seconds=3), GroupConsumer(cluster, group, topic)
    stream = BroadcastConsumer(cluster, topic)
    assert await publisher.publish(many(1, 3)) == 0
    with pytest.raises(BrokerUnavailable, match=f"does not let the user {user} use the topic {topic}"):
        await stream.receive(0.1)
    with pytest.raises(BrokerUnavailable, match=f"does not let the user {user} use the topic {topic}"):
        await last_changes(cluster, topic)
    secured_kafka.allow(user, "READ", "TOPIC", topic)
    await until_raised(lambda: source.receive(1), f"does not let the user {user} use the group {group}")
    secured_kafka.allow(user, "READ", "GROUP", group)
    secured_kafka.allow(user, "WRITE", "TOPIC", topic)
    await until_done(lambda: stream.receive(0.1))
    async with asyncio.timeout(30):
        while await publisher.publish(many(1, 3)) < 3:
            pass
    found: set[int] = set()
    async with asyncio.timeout(30):
        while found != {1, 2, 3}:
            delivery = await until_done(lambda: source.receive(0.5))
            found |= {change.revision for change in delivery.changes}
    await asyncio.gather(publisher.close(), source.close(), stream.close())


async def test_a_wrong_password_is_named_by_every_client_and_works_once_it_is_right(
    secured_kafka: SecuredCluster, caplog: pytest.LogCaptureFixture
) -> None:
    user, topic, group = new_name(), new_name(), new_name()
    secured_kafka.password(user, "another")
    secured_kafka.create(topic, dead_letter_topic(topic))
    secured_kafka.serve(user, topic)
    secured_kafka.allow(user, "READ", "GROUP", group)
    cluster, probe = connected(secured_kafka.scram(user), topic)
    publisher, source = KafkaPublisher(cluster, topic, timeout_seconds=2), GroupConsumer(cluster, group, topic)
    stream = BroadcastConsumer(cluster, topic)
    refused = f"Kafka at {secured_kafka.sasl} refuses the user {user}: .* check the mechanism, the user and the secret"
    for work in (
        probe.check,
        lambda: source.receive(0.5),
        lambda: stream.receive(0.5),
        lambda: last_changes(cluster, topic, 2.0),
        lambda: ensure_topic(cluster, NewTopic(topic, 3), 2.0),
        lambda: read_dead_letters(cluster, topic),
        lambda: read_durability(cluster, topic, 2.0),
    ):
        await until_raised(work, refused)
    assert await publisher.publish(many(1, 3)) == 0
    assert re.search(refused, caplog.text)
    assert PASSWORD not in caplog.text
    secured_kafka.password(user, PASSWORD)
    await until_done(probe.check)
    await until_done(lambda: stream.receive(0.1))
    async with asyncio.timeout(30):
        while await publisher.publish(many(1, 3)) < 3:
            pass
    async with asyncio.timeout(30):
        while not (await until_done(lambda: source.receive(0.5))).changes:
            pass
    await asyncio.gather(publisher.close(), source.close(), stream.close())


async def test_an_expired_certificate_is_named_with_its_end_and_a_new_one_is_read_without_a_restart(
    secured_kafka: SecuredCluster, tmp_path: Path
) -> None:
    user, topic, group = new_name(), new_name(), new_name()
    secured_kafka.certify(tmp_path, user, days=-1)
    secured_kafka.create(topic, dead_letter_topic(topic))
    secured_kafka.serve(user, topic)
    secured_kafka.allow(user, "READ", "GROUP", group)
    cluster, probe = connected(secured_kafka.certified(tmp_path), topic)
    publisher, source = KafkaPublisher(cluster, topic, timeout_seconds=2), GroupConsumer(cluster, group, topic)
    stream = BroadcastConsumer(cluster, topic)
    expired = rf"refuses the client certificate: {tmp_path}/client.crt expired at 20.* UTC; check POINTSMAN_KAFKA_CERT"
    for work in (probe.check, lambda: source.receive(0.5), lambda: stream.receive(0.5)):
        await until_raised(work, expired)
    assert await publisher.publish(many(1, 3)) == 0
    (tmp_path / "client.crt").write_text("nonsense")
    await until_raised(probe.check, "cannot be connected to with these settings: .*POINTSMAN_KAFKA_CERT_FILE")
    secured_kafka.certify(tmp_path, user)
    await until_done(probe.check)
    await until_done(lambda: stream.receive(0.1))
    async with asyncio.timeout(30):
        while await publisher.publish(many(1, 3)) < 3:
            pass
    async with asyncio.timeout(30):
        while not (await until_done(lambda: source.receive(0.5))).changes:
            pass
    await asyncio.gather(publisher.close(), source.close(), stream.close())


async def test_brokers_that_are_not_trusted_and_clients_without_tokens_are_said_to_be(
    secured_kafka: SecuredCluster, tmp_path: Path
) -> None:
    environ = secured_kafka.scram("plain", mechanism="PLAIN")
    del environ["POINTSMAN_KAFKA_CA_FILE"]
    await until_raised(connected(environ, "t")[1].check, "is not trusted: .*POINTSMAN_KAFKA_CA_FILE")
    _, stranger = connected(secured_kafka.oauth("stranger", "no"), "t")
    await until_raised(stranger.check, "gets no token of the client stranger: .*invalid_client.*_OAUTH_TOKEN_URL")
    environ = secured_kafka.certified(tmp_path)
    for name in ("CERT", "KEY"):
        del environ[f"POINTSMAN_KAFKA_{name}_FILE"]
    await until_raised(connected(environ, "t")[1].check, "refuses the client certificate: none is set")


async def test_a_topic_that_is_created_has_three_replicas_and_survives_one_broker(
    secured_kafka: SecuredCluster,
) -> None:
    cluster = KafkaCluster(secured_kafka.plaintext)
    ours, risky = new_name(), new_name()
    await ensure_topic(cluster, NewTopic(ours, 2))
    await ensure_topic(cluster, NewTopic(risky, 2, replicas=1))

    async def warnings(topic: str) -> list[str]:
        found = await read_durability(cluster, topic)
        assert found
        return list(found.warnings())

    async with asyncio.timeout(30):
        while await warnings(ours):
            pass
    found = await read_durability(cluster, ours)
    assert found
    assert (found.brokers, found.replicas, found.min_insync) == (3, 3, 2)
    (warning,) = await warnings(risky)
    assert "has too few replicas, 1 on 3 brokers" in warning
    assert await read_durability(cluster, "nothing") is None
