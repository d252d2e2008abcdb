"""``pointsman-server dead-letters``: messages that are no valid change, listed and sent again."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.dead_letters import DeadLetter, read_dead_letters
from pointsman_server.adapters.kafka.decoder import NotAChange, change_from_bytes
from pointsman_server.adapters.kafka.producer import OrderedProducer, Record
from pointsman_server.adapters.kafka.publisher import headers
from pointsman_server.cli.common import fail, read_settings
from pointsman_server.config.settings import Settings
from pointsman_server.ports.broker import BrokerUnavailable


def list_dead_letters() -> None:
    """List the messages that were set aside: where each was, its size, and what is wrong. Never what is in it."""
    settings = _settings()
    with _failing_in_words():
        letters = asyncio.run(_read(settings))
    for letter in letters:
        typer.echo(f"{_place(letter)}  {len(letter.payload)} bytes  {letter.problem}")
    typer.echo(f"{len(letters)} dead letters")


def replay(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
) -> None:
    """Send those messages back to their topic that can be read now, as after an upgrade.

    They stay among the dead letters, so another replay sends them again. That does no harm to the server, which
    knows a change by its revision; other consumers of the topic must do the same.
    """
    settings = _settings()
    with _failing_in_words():
        letters = asyncio.run(_read(settings))
        readable = [(letter, record) for letter in letters if (record := _record(letter)) is not None]
        if not dry_run:
            asyncio.run(_send(settings, [record for _, record in readable]))
    for letter, _ in readable:
        typer.echo(f"{_place(letter)}  {'would be sent' if dry_run else 'sent'}")
    count = f"{len(readable)} {'would be sent' if dry_run else 'sent'}"
    typer.echo(f"{len(letters)} dead letters: {count}, {len(letters) - len(readable)} still no change")


def _settings() -> Settings:
    settings = read_settings()
    if not settings.kafka_bootstrap_servers:
        fail("KAFKA_BOOTSTRAP_SERVERS is not set, and the dead letters lie in Kafka: set it to host:9092", code=2)
    return settings


@contextmanager
def _failing_in_words() -> Iterator[None]:
    """End with 1 when the brokers do not answer."""
    try:
        yield
    except BrokerUnavailable as error:
        fail(str(error))


async def _read(settings: Settings) -> list[DeadLetter]:
    letters = await read_dead_letters(_cluster(settings), settings.kafka_topic)
    # Each group of consumers sets a message aside for itself.
    return list({(_place(letter), letter.payload): letter for letter in letters}.values())


async def _send(settings: Settings, records: Sequence[Record]) -> None:
    cluster = _cluster(settings)
    producer = OrderedProducer(cluster, settings.kafka_topic, settings.kafka_message_timeout_seconds)
    try:
        sent = await producer.send(records)
    finally:
        await producer.close()
    if sent < len(records):
        cause = cluster.unavailable(producer.error)
        raise BrokerUnavailable(f"{sent} of {len(records)} were sent, then: {cause}")


def _record(letter: DeadLetter) -> Record | None:
    """Make the message again as it was published: the payload untouched, the key and the headers from what it says."""
    try:
        change = change_from_bytes(letter.payload)
    except NotAChange:
        return None
    return Record(str(change.key).encode(), letter.payload, headers(change))


def _place(letter: DeadLetter) -> str:
    return f"{letter.topic}[{letter.partition}]@{letter.offset}"


def _cluster(settings: Settings) -> KafkaCluster:
    return KafkaCluster(settings.kafka_bootstrap_servers)
