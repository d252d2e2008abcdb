"""``pointsman-server dead-letters``: lists messages that could not be decoded, and sends them again."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from pointsman_server.adapters.kafka.dead_letters import DeadLetter, read_dead_letters
from pointsman_server.adapters.kafka.decoder import NotAChange, change_from_bytes
from pointsman_server.adapters.kafka.producer import OrderedProducer, Record
from pointsman_server.adapters.kafka.publisher import headers
from pointsman_server.adapters.kafka.security import cluster_of
from pointsman_server.cli.common import check_kafka_files, fail, read_settings
from pointsman_server.config.settings import Settings
from pointsman_server.ports.broker import BrokerUnavailable


def list_dead_letters() -> None:
    """List the dead letters: the origin, size and problem of each, never its content."""
    settings = _settings()
    with _failing_in_words():
        letters = asyncio.run(_read(settings))
    for letter in letters:
        typer.echo(f"{_place(letter)}  {len(letter.payload)} bytes  {letter.problem}")
    typer.echo(f"{len(letters)} dead letters")


def replay(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")] = False,
) -> None:
    """Send the dead letters that can be decoded now, as after an upgrade, to their topic again.

    They remain dead letters, so another replay sends them again. Servers ignore repeated changes by their revision;
    other consumers of the topic must do the same.
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
    typer.echo(f"{len(letters)} dead letters: {count}, {len(letters) - len(readable)} cannot be decoded")


def _settings() -> Settings:
    settings = read_settings()
    if not settings.kafka_bootstrap_servers:
        fail("KAFKA_BOOTSTRAP_SERVERS is not set: set it to the Kafka that has the dead letters, as host:9092", code=2)
    check_kafka_files(settings)
    return settings


@contextmanager
def _failing_in_words() -> Iterator[None]:
    """Exit with 1 if the brokers do not answer."""
    try:
        yield
    except BrokerUnavailable as error:
        fail(str(error))


async def _read(settings: Settings) -> list[DeadLetter]:
    letters = await read_dead_letters(cluster_of(settings), settings.kafka_topic)
    # Each consumer group stores its own copy.
    return list({(_place(letter), letter.payload): letter for letter in letters}.values())


async def _send(settings: Settings, records: Sequence[Record]) -> None:
    cluster = cluster_of(settings)
    producer = OrderedProducer(cluster, settings.kafka_topic, settings.kafka_message_timeout_seconds)
    try:
        sent = await producer.send(records)
    finally:
        await producer.close()
    if sent < len(records):
        cause = producer.unavailable()
        raise BrokerUnavailable(f"{sent} of {len(records)} were sent, then: {cause}")


def _record(letter: DeadLetter) -> Record | None:
    """Build the message as it was published: the same payload, with its key and headers. None if it is no change."""
    try:
        change = change_from_bytes(letter.payload)
    except NotAChange:
        return None
    return Record(str(change.key).encode(), letter.payload, headers(change))


def _place(letter: DeadLetter) -> str:
    return f"{letter.topic}[{letter.partition}]@{letter.offset}"
