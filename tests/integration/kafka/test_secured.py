"""Three brokers with TLS, SASL and an authorizer: every way to log in, with the rights of the pages and no more."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import grpc
import psycopg
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server.adapters.kafka import (
    BroadcastConsumer,
    DeadLetters,
    GroupConsumer,
    KafkaCluster,
    KafkaProbe,
    KafkaPublisher,
    NewTopic,
    RequiredTopics,
    cluster_of,
    dead_letter_topic,
    dead_letters,
    ensure_topic,
    last_changes,
    missing_rights,
    needs_of,
    read_durability,
)
from pointsman_server.adapters.kafka.dead_letters import read_dead_letters
from pointsman_server.config.environment import load
from pointsman_server.ports.broker import BrokerUnavailable, Poison
from tests.support.kafka import read_all
from tests.support.kafka_clients import consuming, decode, many, new_name, publishing, receive
from tests.support.kafka_secured import PASSWORD, SecuredCluster
from tests.support.processes import get_json, run, serve
from tests.support.waiting import eventually

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


async def until_said(work: Callable[[], Awaitable[str]], text: str) -> str:
    """Repeat ``work`` until ``text`` matches what it returns, and return that: ACLs take a moment on every broker."""
    async with asyncio.timeout(30):
        while not re.search(text, said := await work()):
            pass
    return said


async def until_done(work: Callable[[], Awaitable[T]]) -> T:
    """Repeat ``work`` until it raises nothing, and return its result."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await work()
            except BrokerUnavailable:
                await asyncio.sleep(0.1)


async def until_all_work(publisher: KafkaPublisher, source: GroupConsumer, stream: BroadcastConsumer) -> None:
    """Wait until each client works again, and close them."""
    await until_done(lambda: stream.receive(0.1))
    async with asyncio.timeout(30):
        while await publisher.publish(many(1, 3)) < 3:
            pass
    async with asyncio.timeout(30):
        while not (await until_done(lambda: source.receive(0.5))).changes:
            pass
    await asyncio.gather(publisher.close(), source.close(), stream.close())


@pytest.mark.parametrize("way", WAYS)
async def test_changes_are_published_and_consumed(secured_kafka: SecuredCluster, way: str, tmp_path: Path) -> None:
    user = "plain" if way == "PLAIN" else new_name()
    topic = new_name()
    secured_kafka.create(topic, dead_letter_topic(topic))
    secured_kafka.serve(user, topic)
    cluster, probe = connected(logging_in(secured_kafka, way, user, tmp_path), topic)
    await until_done(probe.check)
    async with publishing(cluster, topic) as publisher, consuming(cluster, topic, cluster.group("audit")) as source:
        assert await publisher.publish(many(1, 30)) == 30
        assert {change.revision for change in (await receive(source, 30)).changes} == set(range(1, 31))
        await source.commit()
    assert way != "OAUTHBEARER" or "kafka" in secured_kafka.tokens.scopes


async def test_every_other_client_works_with_the_rights_that_the_pages_name(secured_kafka: SecuredCluster) -> None:
    user, topic = new_name(), new_name()
    secured_kafka.password(user, PASSWORD)
    secured_kafka.create(topic, dead_letter_topic(topic))
    secured_kafka.serve(user, topic)
    cluster, probe = connected(secured_kafka.scram(user), topic)
    await until_done(probe.check)
    stream, letters = BroadcastConsumer(cluster, topic), DeadLetters(cluster, topic)
    await until_done(lambda: stream.receive(0.1))
    async with publishing(cluster, topic) as publisher:
        assert await publisher.publish(many(1, 3)) == 3
    assert max(change.revision for change in await last_changes(cluster, topic)) == 3
    async with asyncio.timeout(20):
        assert await stream.receive(10)
    await letters.set_aside(Poison(topic, 0, 7, "no change", b"x"))
    with pytest.raises(BrokerUnavailable, match=f"use the topic {dead_letter_topic(topic)}: grant it in the ACLs"):
        await read_dead_letters(cluster, topic)
    secured_kafka.allow(user, "READ", "TOPIC", dead_letter_topic(topic))
    (letter,) = await until_done(lambda: read_dead_letters(cluster, topic))
    assert letter.payload == b"x"
    await asyncio.gather(stream.close(), letters.close())


async def test_what_is_missing_is_named_step_by_step_until_nothing_is(secured_kafka: SecuredCluster) -> None:
    user, topic = new_name(), new_name()
    letters = dead_letter_topic(topic)
    secured_kafka.password(user, PASSWORD)
    settings = load(secured_kafka.scram(user) | {"POINTSMAN_KAFKA_TOPIC": topic})
    cluster = cluster_of(settings)

    async def missing() -> str:
        return "; ".join(await missing_rights(cluster, needs_of(settings)))

    denied = f"does not let the user {user} use the"
    assert await until_said(missing, "audit") == (
        f"{denied} topic {topic}, if there is one: grant it in the ACLs Read and Write on it; "
        f"{denied} topic {letters}, if there is one: grant it in the ACLs Write on it; "
        f"{denied} group pointsman-cache: grant it in the ACLs Read on it; "
        f"{denied} group pointsman-audit: grant it in the ACLs Read on it"
    )
    secured_kafka.serve(user, topic)
    refused = f"has no topic {topic}, and the user {user} may not create it: create it, or grant Create"
    assert await until_said(missing, f"^{refused}") == f"{refused}; {refused.replace(topic, letters)}"
    with pytest.raises(BrokerUnavailable, match=refused):
        await ensure_topic(cluster, NewTopic(topic, 3))
    secured_kafka.create(topic)
    secured_kafka.allow(user, "CREATE", "TOPIC", letters)
    assert await until_said(missing, "^$") == ""
    assert letters not in secured_kafka.admin.list_topics(timeout=10).topics, "asking creates nothing"
    await ensure_topic(cluster, NewTopic(letters, 1))
    assert eventually(lambda: letters in secured_kafka.admin.list_topics(timeout=10).topics)


async def test_the_probe_says_what_other_clients_are_refused(secured_kafka: SecuredCluster) -> None:
    user, topic = new_name(), new_name()
    letters = dead_letter_topic(topic)
    secured_kafka.password(user, PASSWORD)
    secured_kafka.allow(user, "DESCRIBE", "TOPIC", topic)
    settings = load(secured_kafka.scram(user) | {"POINTSMAN_KAFKA_TOPIC": topic})
    cluster = cluster_of(settings)
    probe, topics = KafkaProbe(cluster, needs_of(settings), 3.0), RequiredTopics(settings, cluster)
    assert not await topics.ready()
    told = await until_raised(probe.check, f"has no topic {topic}, and the user {user} may not create it")
    assert f"does not let the user {user} use the topic {letters}" in told
    secured_kafka.create(topic, letters)
    secured_kafka.allow(user, "DESCRIBE", "TOPIC", letters)
    await until_done(probe.check)
    assert await topics.ready()
    async with publishing(cluster, topic, 2) as publisher:
        assert await publisher.publish(many(1, 1)) == 0
        assert f"does not let the user {user} use the topic {topic}" in await until_raised(probe.check, "grant")
        secured_kafka.serve(user, topic)
        async with asyncio.timeout(30):
            while not await publisher.publish(many(1, 1)):
                pass
    await probe.check()


async def test_a_consumer_names_the_group_or_the_topic_it_may_not_use_and_goes_on_once_it_may(
    secured_kafka: SecuredCluster,
) -> None:
    user, topic, group = new_name(), new_name(), new_name()
    secured_kafka.password(user, PASSWORD)
    secured_kafka.create(topic)
    cluster, probe = connected(secured_kafka.scram(user), topic)
    publisher, source = KafkaPublisher(cluster, topic, timeout_seconds=3), GroupConsumer(cluster, group, topic)
    stream = BroadcastConsumer(cluster, topic)
    assert await publisher.publish(many(1, 3)) == 0
    with pytest.raises(BrokerUnavailable, match=f"does not let the user {user} use the topic {topic}"):
        await stream.receive(0.1)
    with pytest.raises(BrokerUnavailable, match=f"does not let the user {user} use the topic {topic}"):
        await last_changes(cluster, topic)
    secured_kafka.allow(user, "READ", "TOPIC", topic)
    await until_raised(lambda: source.receive(1), f"does not let the user {user} use the group {group}")
    await until_raised(probe.check, f"does not let the user {user} use the group {group}")
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
    assert not [problem for problem in cluster.refusals.current() if group in problem]
    await asyncio.gather(publisher.close(), source.close(), stream.close())


async def test_a_wrong_password_is_named_by_every_client_and_works_once_it_is_right(
    secured_kafka: SecuredCluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "READ_SECONDS", 1.0)
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
        lambda: last_changes(cluster, topic, 1.0),
        lambda: ensure_topic(cluster, NewTopic(topic, 3), 1.0),
        lambda: read_dead_letters(cluster, topic),
        lambda: read_durability(cluster, topic, 1.0),
    ):
        await until_raised(work, refused)
    assert await publisher.publish(many(1, 3)) == 0
    assert re.search(refused, caplog.text)
    assert PASSWORD not in caplog.text
    secured_kafka.password(user, PASSWORD)
    await until_done(probe.check)
    await until_all_work(publisher, source, stream)


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
    await until_all_work(publisher, source, stream)


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


def test_a_server_lives_with_what_it_is_given_and_without_one_broker(
    secured_kafka: SecuredCluster, database_url: str, redis_url: str
) -> None:
    user, topic = new_name(), new_name()
    letters = dead_letter_topic(topic)
    secured_kafka.password(user, PASSWORD)
    secured_kafka.allow(user, "DESCRIBE", "TOPIC", topic)
    environ = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "POINTSMAN_KAFKA_TOPIC": topic,
        "POINTSMAN_KAFKA_GROUP_PREFIX": topic,
        "POINTSMAN_TRANSPORT": "grpcio",
        "POINTSMAN_KAFKA_MESSAGE_TIMEOUT_SECONDS": "5",
    } | secured_kafka.scram(user)
    with serve(**environ) as (process, address, http), grpc.insecure_channel(address) as channel:
        create(channel, 1)
        missing = f"has no topic {topic}, and the user {user} may not create it: create it, or grant Create"
        assert eventually(lambda: missing in kafka_health(http))
        assert eventually(lambda: any(line["event"].endswith(missing) for line in process.log_lines()))
        secured_kafka.create(topic, letters)
        rights = f"does not let the user {user} use the topic {topic}: grant it in the ACLs"
        assert eventually(lambda: rights in kafka_health(http))
        secured_kafka.serve(user, topic, prefix=topic)
        assert eventually(lambda: kafka_health(http) == "ok", 30)
        assert eventually(lambda: audited(database_url) == 1, 30)
        secured_kafka.brokers[0].kill()
        try:
            for number in range(2, 12):
                create(channel, number)
            assert eventually(lambda: audited(database_url) == 11, 60), process.errors[-3000:]
            assert published(secured_kafka.brokers[1].bootstrap_servers, topic) == set(range(1, 12))
        finally:
            secured_kafka.brokers[0].start()
        assert PASSWORD not in process.errors
    checked = run("pointsman-server", "check", **environ)
    assert (checked.returncode, PASSWORD in checked.stdout + checked.stderr) == (0, False), checked.stdout
    secured_kafka.password(user, "another")
    checked = run("pointsman-server", "check", **environ)
    assert checked.returncode == 1
    assert f"refuses the user {user}: " in checked.stdout
    listed = run("pointsman-server", "dead-letters", "list", **environ)
    assert (listed.returncode, f"refuses the user {user}: " in listed.stderr) == (1, True), listed.stderr


def create(channel: grpc.Channel, number: int) -> None:
    """Make a route, which is change ``number``."""
    key = RouteKey(tenant="t", service=f"s-{number}", env="e", version="v1")
    request = pb.CreateRequest(key=key, url="https://host")
    assert RouteServiceStub(channel).Create(request, timeout=30, wait_for_ready=True).route.revision == number


def kafka_health(http: str) -> str:
    """Return what the server says of Kafka."""
    return str(get_json(f"{http}/health/ready")[1]["dependencies"]["kafka"]["detail"])


def audited(database_url: str) -> int:
    """Count the rows of the audit log."""
    with psycopg.connect(database_url) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM audit_log").fetchall()
    return int(count)


def published(servers: str, topic: str) -> set[int]:
    """Return the revisions in the topic."""
    return {decode(message).revision for message in read_all(servers, topic)}
