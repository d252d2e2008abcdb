"""The relay with real PostgreSQL and Kafka: killed, stopped, two at once, and without its broker.

Whatever happens, every change is on the topic, the first appearances of each key are in revision order, and what the
relay has recorded is never beyond what the broker has. Repetitions are allowed, and counted.
"""

import asyncio
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka import Message, Producer

from pointsman.v1 import route_pb2
from pointsman_server.adapters.kafka import KafkaCluster, KafkaPublisher, NewTopic, ensure_topic
from pointsman_server.adapters.kafka.publisher import record
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.relay_log import LOCK, PostgresRelayLog
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.routes import Change, ChangeKind, Draft, RouteKey
from pointsman_server.events.relay import Relay
from pointsman_server.ports.broker import ChangePublisher
from pointsman_server.ports.store import Intent
from pointsman_server.runtime.backoff import Backoff
from tests.support.changes import commit
from tests.support.kafka import KafkaBroker, read_all
from tests.support.pause import pause, resume
from tests.support.processes import ServerProcess, serve
from tests.support.waiting import eventually

KEYS = 7
PARTITIONS = 3
MESSAGE_TIMEOUT = 2.0
PATIENCE = 60.0


@dataclass(frozen=True)
class Published:
    """What is on the topic: for every key its revisions, in the order of their partition."""

    by_key: dict[str, list[int]]

    @property
    def revisions(self) -> set[int]:
        """All of them."""
        return {revision for found in self.by_key.values() for revision in found}

    @property
    def contiguous(self) -> int:
        """Up to here there is everything."""
        revisions, last = self.revisions, 0
        while last + 1 in revisions:
            last += 1
        return last

    @property
    def repetitions(self) -> int:
        """How many messages came again."""
        return sum(map(len, self.by_key.values())) - len(self.revisions)

    def out_of_order(self) -> list[str]:
        """The keys whose first appearances are not in revision order."""
        firsts = {key: list(dict.fromkeys(found)) for key, found in self.by_key.items()}
        return [key for key, found in firsts.items() if found != sorted(found)]


@dataclass(frozen=True)
class Line:
    """From the store to the topic: a database and a topic of one test alone."""

    database_url: str
    broker: KafkaBroker
    topic: str

    @property
    def cluster(self) -> KafkaCluster:
        """Where the broker is."""
        return KafkaCluster(self.broker.bootstrap_servers)

    def published(self) -> Published:
        """Read the topic."""
        return sort(read_all(self.broker.bootstrap_servers, self.topic))

    def progress(self) -> int:
        """What the relay has recorded."""
        return int(self.ask("SELECT revision FROM relay"))

    def leader(self) -> int:
        """The backend that holds the relay's lock in this database; 0 when there is none."""
        return int(
            self.ask(
                "SELECT coalesce(max(pid), 0) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())"
                " AND (classid::bigint << 32) + objid::bigint = %s",
                LOCK,
            )
        )

    def ask(self, sql: str, *values: object) -> int:
        """Run a statement with one answer."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            row = connection.execute(sql, values).fetchone()
        assert row
        return int(row[0])

    def check_progress(self) -> None:
        """The relay recorded nothing that the broker does not have."""
        progress = self.progress()  # before the topic is read: it may only grow
        assert progress <= self.published().contiguous

    def check(self, last: int) -> Published:
        """Everything up to ``last`` is there, in order, and recorded."""
        assert eventually(lambda: self.progress() == last, PATIENCE), (self.progress(), last)
        published = self.published()
        assert published.revisions == set(range(1, last + 1))
        assert published.out_of_order() == []
        return published

    @contextmanager
    def relaying(self, batch: int = 20) -> Iterator[ServerProcess]:
        """Run a relay as a process."""
        environ = {
            "DATABASE_URL": self.database_url,
            "KAFKA_BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "POINTSMAN_KAFKA_TOPIC": self.topic,
            "POINTSMAN_KAFKA_PARTITIONS": str(PARTITIONS),
            "POINTSMAN_KAFKA_MESSAGE_TIMEOUT_SECONDS": f"{MESSAGE_TIMEOUT:g}",
            "POINTSMAN_RELAY_BATCH": str(batch),
        }
        with serve("--roles", "relay", **environ) as (process, _, _):
            yield process
            if not process.ended:
                process.process.send_signal(signal.SIGCONT)


def sort(messages: Sequence[Message]) -> Published:
    found = defaultdict(list)
    for message in messages:
        change = route_pb2.RouteChange.FromString(message.value() or b"")
        found[(message.key() or b"").decode()].append(change.revision)
    return Published(dict(found))


@pytest.fixture
async def line(database_url: str, kafka_broker: KafkaBroker) -> Line:
    line = Line(database_url, kafka_broker, f"relay-{uuid4().hex[:12]}")
    await ensure_topic(line.cluster, NewTopic(line.topic, PARTITIONS, 1))
    return line


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, pool_min=1, pool_max=3, timeout=30.0)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def write(url: str, count: int) -> None:
    """Commit changes, several in a transaction and of several keys, as mutations do."""
    async with opened(url) as database:
        store = PostgresStore(database)
        revision = (await store.clock()).revision
        done = 0
        while done < count:
            size = min(KEYS, count - done)
            keys = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(size)]
            drafts = [
                Draft(
                    ChangeKind.UPDATED if known.route else ChangeKind.CREATED,
                    known.key,
                    known.route,
                    f"https://n{revision + done}.internal",
                    active=True,
                )
                for known in await store.load(keys)
            ]
            await commit(store, drafts, Intent("ann"))
            done += size


async def until(holds: Callable[[], object]) -> None:
    assert await asyncio.to_thread(eventually, holds, PATIENCE)


async def test_a_relay_killed_in_the_middle_of_a_backlog_loses_nothing(line: Line) -> None:
    await write(line.database_url, 1500)
    with line.relaying(batch=5) as first:
        await until(lambda: line.progress() > 100)
        first.process.kill()
        first.process.wait()
    progress = line.progress()
    assert progress < 1500, "it was done before it was killed: nothing is shown"
    line.check_progress()

    with line.relaying(batch=500):
        published = await asyncio.to_thread(line.check, 1500)
    print(f"killed at {progress} of 1500: {published.repetitions} repetitions")


async def test_a_leader_stopped_past_its_session_and_woken_beside_another_keeps_the_order(line: Line) -> None:
    await write(line.database_url, 1500)
    with line.relaying(batch=5) as first:
        await until(lambda: line.progress() > 100)
        pause(first.process)
        backend, stood = line.leader(), line.progress()
        assert stood < 1500
        with line.relaying(batch=5):
            # What ends the session of a leader that is gone: TCP's own timeouts. Here at once.
            line.ask("SELECT pg_terminate_backend(%s)::int", backend)
            await until(lambda: line.progress() > stood)
            assert line.leader() not in (0, backend)
            # Now there are two: one leads, and one wakes up in the middle of its batch.
            resume(first.process)
            line.check_progress()
            await write(line.database_url, 200)
            published = await asyncio.to_thread(line.check, 1700)
            line.check_progress()
    print(f"stopped at {stood}, overlapped: {published.repetitions} repetitions")


async def run_until(line: Line, publisher: ChangePublisher, done: Callable[[], object]) -> None:
    """Run a relay with ``publisher`` until ``done``."""
    async with opened(line.database_url) as database:
        relay = Relay(PostgresRelayLog(database), publisher, batch=20, idle_seconds=0.2, backoff=Backoff(0.05, 0.2))
        task = asyncio.create_task(relay.run())
        try:
            await until(done)
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_a_broker_gone_for_longer_than_its_timeout_gets_everything_in_order_when_it_is_back(line: Line) -> None:
    await write(line.database_url, 70)
    with line.relaying() as relay:
        await asyncio.to_thread(line.check, 70)
        line.broker.kill()
        try:
            await write(line.database_url, 140)
            # It has given a batch up, which is what its timeout is for.
            await until(lambda: "the relay waits: the broker took 0 of" in relay.errors)
            await write(line.database_url, 70)
            assert line.progress() == 70
        finally:
            await asyncio.to_thread(line.broker.start)
        line.check_progress()
        published = await asyncio.to_thread(line.check, 280)
        line.check_progress()
    print(f"broker killed and back: {published.repetitions} repetitions")


# The remedies off: the same checks must fail


class NeverPurges:
    """Gives a batch up without taking back what it had sent: the first of its messages goes out late.

    A broker that fails does this to a producer without a purge; here the failure is played, so that it always does.
    """

    def __init__(self, line: Line) -> None:
        self._producer = Producer(line.cluster.config())
        self._topic = line.topic
        self._left: list[Change] = []
        self._failed = False

    async def publish(self, changes: Sequence[Change]) -> int:
        if not self._failed:
            self._failed = True
            # The message of the first change fails; those behind it are on their way, and arrive before it.
            await asyncio.to_thread(self._send, changes[1:])
            return 0
        await asyncio.to_thread(self._send, changes)
        return len(changes)

    def _send(self, changes: Sequence[Change]) -> None:
        for change in changes:
            sent = record(change)
            self._producer.produce(self._topic, sent.value, sent.key)
        assert self._producer.flush(PATIENCE) == 0

    async def close(self) -> None:
        pass


class CountsUnacknowledged:
    """Says that it published everything, whatever the broker acknowledged."""

    def __init__(self, publisher: KafkaPublisher) -> None:
        self._publisher = publisher

    async def publish(self, changes: Sequence[Change]) -> int:
        await self._publisher.publish(changes)
        return len(changes)

    async def close(self) -> None:
        await self._publisher.close()


async def test_without_a_purge_a_later_change_overtakes_the_repetition_of_an_earlier_one(line: Line) -> None:
    await write(line.database_url, 70)
    await run_until(line, NeverPurges(line), lambda: line.progress() == 70)

    with pytest.raises(AssertionError):
        line.check(70)
    assert line.published().out_of_order() == ["team-a/payments/prod/v0"]


async def test_progress_past_an_unacknowledged_message_is_seen_by_the_check(line: Line) -> None:
    await write(line.database_url, 70)
    # Nobody listens there: nothing is ever acknowledged.
    publisher = CountsUnacknowledged(KafkaPublisher(KafkaCluster("127.0.0.1:1"), line.topic, timeout_seconds=0.2))
    await run_until(line, publisher, lambda: line.progress() >= 20)
    await publisher.close()

    with pytest.raises(AssertionError):
        line.check_progress()
