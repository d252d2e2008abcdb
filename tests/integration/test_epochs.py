"""The database restored to an older state: with the command, without it, and what Redis holds meanwhile."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import grpc
import psycopg
import pytest
from redis import Redis as redis_client  # noqa: N813 - the blocking one
from redis.asyncio import Redis

from pointsman.v1.route_pb2 import RouteKey as KeyMessage
from pointsman.v1.route_service_pb2 import CreateRequest, ResolveRequest, ResolveResponse, UpdateRequest
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.cli.database.restore import begin_epoch
from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.epochs.guarded_store import GuardedStore
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ports.cache import Lookup
from pointsman_server.ports.store import Clock, Intent
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Update
from tests.support.engines import back_up, drop_database, restore
from tests.support.fakes import BIRTH
from tests.support.kafka import KafkaBroker
from tests.support.processes import get_json
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

OLD = "0aaaaaaa-0000-4000-8000-000000000000"
NEW = "0bbbbbbb-0000-4000-8000-000000000000"
KEY = RouteKey("team-a", "payments", "prod", "v1")
PATIENCE = 5.0
MISS, LEASED = Lookup(), Lookup(leased=True)
WHAT_TO_DO = "run `pointsman-server restore`"


def at(as_of: int, epoch: str = "") -> Snapshot:
    return Snapshot(KEY, Route(KEY, f"https://r{as_of}.internal", True, {}, as_of, BIRTH, BIRTH), as_of, epoch)


# The shared cache


class Process:
    """A server as Redis sees it, with the epoch that it is in."""

    def __init__(self, url: str, epoch: str) -> None:
        self.epoch = epoch
        self.witnessed: list[tuple[str, int]] = []
        self.cache = RedisCache(
            url, timeout=PATIENCE, epoch=lambda: self.epoch, witness=lambda *seen: self.witnessed.append(seen)
        )

    async def get(self, owner: str = "reader") -> Lookup:
        (found,) = await self.cache.get([KEY], owner)
        return found

    async def write(self, as_of: int, owner: str = "writer") -> None:
        await self.cache.mark([KEY], owner)
        await self.cache.settle([at(as_of, self.epoch)], owner)


@pytest.fixture
async def old(redis_url: str) -> AsyncIterator[Process]:
    process = Process(redis_url, OLD)
    yield process
    await process.cache.close()


@pytest.fixture
async def new(redis_url: str) -> AsyncIterator[Process]:
    process = Process(redis_url, NEW)
    yield process
    await process.cache.close()


async def test_nothing_of_another_epoch_is_answered_and_nothing_fences_out_a_new_write(
    old: Process, new: Process
) -> None:
    await old.write(900)
    assert await new.get() == MISS  # Redis has not heard of its epoch yet
    await new.cache.publish_clock(Clock(NEW, 11))
    assert await new.get() == LEASED
    await new.write(12)
    assert await new.get() == Lookup(at(12))
    await new.cache.consume([at(13, NEW)])
    assert await new.get() == Lookup(at(13))


async def test_a_server_in_the_old_epoch_misses_as_soon_as_a_write_of_the_new_one_is_answered(
    old: Process, new: Process
) -> None:
    await old.write(900)
    assert await old.get() == Lookup(at(900))
    await new.write(12)
    assert await old.get() == MISS
    await old.cache.fill([at(901, OLD)], "reader")
    assert await old.get() == MISS


async def test_a_writer_that_learns_its_epoch_between_mark_and_settle_leaves_nothing_old(
    old: Process, new: Process
) -> None:
    """It marked under the old name, so readers of the new one went on: what they filled is dropped."""
    writer = old
    await writer.cache.mark([KEY], "writer")
    assert await new.get("early") == LEASED
    await new.cache.fill([at(11, NEW)], "early")
    assert await new.get("late") == Lookup(at(11))
    writer.epoch = NEW
    await writer.cache.settle([at(12, NEW)], "writer")
    assert await new.get("late") == LEASED
    await new.cache.fill([at(11, NEW)], "early")
    await new.cache.fill([at(12, NEW)], "late")
    assert await new.get() == Lookup(at(12))


async def test_a_read_from_before_the_restore_is_not_filled_in_after_it(old: Process, new: Process) -> None:
    await new.write(12)
    reader = old
    reader.epoch = NEW
    await reader.cache.fill([at(901, OLD)], "")
    await reader.cache.settle([at(902, OLD)], "late")
    await reader.cache.consume([at(903, OLD)])
    assert await new.get() == Lookup(at(12))


async def test_while_the_epoch_is_unknown_everything_misses_and_nothing_is_kept(new: Process, redis_url: str) -> None:
    await new.write(12)
    nobody = Process(redis_url, "")
    assert await nobody.get() == MISS
    await nobody.write(900)
    await nobody.cache.fill([at(900)], "reader")
    await nobody.cache.ping()
    await nobody.cache.close()
    assert await new.get() == Lookup(at(12))
    async with Redis.from_url(redis_url) as redis:
        assert sorted(await redis.keys()) == [
            f"pointsman:{NEW[:8]}:{KEY}".encode(),
            b"pointsman:clock",
            b"pointsman:health:a",
        ]


async def test_redis_tells_every_writer_and_every_check_the_highest_revision(old: Process, redis_url: str) -> None:
    await old.write(900)
    other = Process(redis_url, OLD)
    await other.cache.mark([KEY], "other")
    await other.cache.publish_clock(Clock(OLD, 40))
    await other.cache.publish_clock(Clock(NEW, 41))
    await other.cache.publish_clock(Clock(OLD, 42))
    await other.cache.close()
    assert other.witnessed == [(OLD, 900), (OLD, 900), (NEW, 41), (OLD, 900)]


async def test_a_clock_of_another_type_is_made_anew(new: Process, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.set("pointsman:clock", "garbage")
    assert await new.get() == LEASED
    await new.write(12)
    assert await new.get() == Lookup(at(12))


# The write path


async def test_no_server_gives_a_lost_revision_away_again_even_if_it_never_saw_it(
    database_url: str, redis_url: str
) -> None:
    """A failover that lost one answered write, and a server that can learn of it from Redis alone."""

    async def write(url: str) -> int:
        database, epochs = Database(database_url, pool_min=1, pool_max=2), EpochTracker()
        await database.open()
        store = GuardedStore(PostgresStore(database), epochs)
        await store.clock()
        cache = RedisCache(redis_url, timeout=PATIENCE, epoch=lambda: epochs.epoch, witness=epochs.witness)
        try:
            committer = GroupCommitter(store, cache, lambda _: None)
            return (await committer.update(Update(KEY, url, allow_missing=True), Intent("alice"))).revision
        finally:
            await cache.close()
            await database.close()

    assert await write("https://a") == 1
    backup = back_up(database_url)
    assert await write("https://lost") == 2
    restore(database_url, backup)
    with pytest.raises(StoreUnavailable):
        await write("https://again")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT revision FROM clock").fetchone() == (1,)
    done = await asyncio.to_thread(begin_epoch, database_url)
    assert (done.revision, done.published) == (1, 0)
    assert await write("https://again") == 2
    drop_database(backup)


# Whole servers


class Town:
    """A database with a past, and servers that share it."""

    def __init__(self, database_url: str, redis_url: str, stack: ExitStack, **more: object) -> None:
        self.database_url = database_url
        self.settings = settings(database_url=database_url, redis_url=redis_url, **more)
        self._stack = stack
        self.backup = ""
        self.key = KeyMessage(tenant="team-a", service="payments", env="prod", version="v1")

    def start(self) -> RunningServer:
        return self._stack.enter_context(serving(self.settings))

    def stub(self, server: RunningServer) -> RouteServiceStub:
        return RouteServiceStub(self._stack.enter_context(grpc.insecure_channel(server.address)))

    def live(self, server: RunningServer) -> None:
        """Make a route, back the database up, and let the route change several times after that."""
        stub = self.stub(server)
        stub.Create(CreateRequest(key=self.key, url="https://before"))
        self.backup = back_up(self.database_url)
        self._stack.callback(drop_database, self.backup)
        assert eventually(lambda: ready(server)[0] == 200)
        for number in range(5):
            assert eventually(lambda n=number: self._updated(stub, f"https://lost-{n}"))  # type: ignore[misc]
        assert stub.Resolve(ResolveRequest(key=self.key)).route.url == "https://lost-4"

    def _updated(self, stub: RouteServiceStub, url: str) -> bool:
        try:
            return bool(stub.Update(UpdateRequest(key=self.key, url=url)).route.url == url)
        except grpc.RpcError:
            return False  # a connection from before the backup

    def go_back(self) -> None:
        restore(self.database_url, self.backup)

    def update(self, server: RunningServer, url: str) -> int:
        return int(self.stub(server).Update(UpdateRequest(key=self.key, url=url)).route.revision)

    def resolve(self, server: RunningServer, min_revision: int = 0, epoch: str = "") -> ResolveResponse:
        request = ResolveRequest(key=self.key, min_revision=min_revision, epoch=epoch)
        return self.stub(server).Resolve(request)

    def rows(self) -> int:
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute("SELECT count(*) FROM route_changes").fetchone()
        return int(row[0]) if row else 0


@pytest.fixture
def town(database_url: str, redis_url: str) -> Iterator[Town]:
    with ExitStack() as stack:
        yield Town(database_url, redis_url, stack)


def ready(server: RunningServer) -> tuple[int, str]:
    code, body = get_json(f"{server.http}/health/ready")
    return code, body["dependencies"]["postgres"]["detail"]


def test_after_the_command_servers_drop_the_lost_history_and_new_writes_are_seen_at_once(town: Town) -> None:
    writer, reader = town.start(), town.start()
    town.live(writer)
    assert eventually(lambda: town.resolve(reader).route.url == "https://lost-4")
    old = writer.app.epochs.epoch

    town.go_back()
    done = begin_epoch(town.database_url)

    assert (done.old, done.revision) == (old, 1)
    assert eventually(lambda: {server.app.epochs.epoch for server in (writer, reader)} == {done.new})
    assert eventually(lambda: ready(writer)[0] == ready(reader)[0] == 200)
    for server in (writer, reader):
        assert town.resolve(server).route.url == "https://before"

    assert town.update(writer, "https://new") == 2
    answered = time.monotonic()
    assert town.resolve(writer).route.url == "https://new"
    assert town.resolve(reader, min_revision=2).route.url == "https://new"
    # A server that starts now has only Redis and PostgreSQL, and Redis must have taken the new write.
    fresh = town.resolve(town.start())
    assert (fresh.route.url, fresh.provenance.source) == ("https://new", fresh.provenance.SOURCE_REDIS)
    assert eventually(lambda: town.resolve(reader).route.url == "https://new")
    assert time.monotonic() - answered < 30

    with pytest.raises(grpc.RpcError) as refused:
        town.resolve(reader, min_revision=6)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "the revision token is of another epoch" in refused.value.details()
    # A token that says its epoch is known to be void, also to a server that knows the new epoch alone.
    for server in (reader, town.start()):
        assert town.resolve(server, min_revision=6, epoch=old).route.url == "https://new"
    assert town.resolve(reader).provenance.epoch == done.new


def test_without_the_command_nothing_is_written_and_the_detail_says_what_to_do(town: Town) -> None:
    server = town.start()
    town.live(server)

    town.go_back()

    assert eventually(lambda: WHAT_TO_DO in ready(server)[1])
    code, detail = ready(server)
    assert code == 503
    assert "was restored to an older state (it is at revision 1, and was at 6)" in detail
    # A server that starts only now learns of it from Redis.
    late = town.start()
    assert WHAT_TO_DO in ready(late)[1]
    for other in (server, late):
        with pytest.raises(grpc.RpcError) as refused:
            town.update(other, "https://new")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "restored to an older state" in refused.value.details()
    assert town.rows() == 1
    # As while PostgreSQL is away: what Redis holds is served, never the older state.
    assert town.resolve(late).route.url == "https://lost-4"

    begin_epoch(town.database_url)

    for other in (server, late):
        assert eventually(lambda other=other: ready(other)[0] == 200)  # type: ignore[misc]
        assert town.resolve(other).route.url == "https://before"
    assert town.update(late, "https://new") == 2
    assert town.rows() == 2


def test_a_new_server_learns_of_the_lost_history_from_kafka_alone(
    kafka_broker: KafkaBroker, database_url: str, redis_url: str
) -> None:
    """Redis was emptied, and every server is new."""
    topic = f"tail-{os.urandom(4).hex()}"
    with ExitStack() as stack:
        servers = kafka_broker.bootstrap_servers
        town = Town(
            database_url, redis_url, stack, roles="api,relay", kafka_bootstrap_servers=servers, kafka_topic=topic
        )
        with serving(town.settings) as server:
            town.live(server)
            assert eventually(lambda: server.run(server.app.dependencies.relay_log.state()).published == 6)
        town.go_back()
        with redis_client.from_url(redis_url) as redis:
            redis.flushdb()

        fresh = town.start()
        assert eventually(lambda: WHAT_TO_DO in ready(fresh)[1])
        begin_epoch(database_url)
        assert eventually(lambda: ready(fresh)[0] == 200)
        assert town.update(fresh, "https://new") == 2


def test_a_backup_from_before_an_earlier_restore_needs_the_command_too(town: Town) -> None:
    server = town.start()
    town.live(server)
    town.go_back()
    begin_epoch(town.database_url)
    assert eventually(lambda: ready(server)[0] == 200)
    assert eventually(lambda: town._updated(town.stub(server), "https://new"))

    town.go_back()

    late = town.start()
    for other in (server, late):
        assert eventually(lambda other=other: WHAT_TO_DO in ready(other)[1])  # type: ignore[misc]
    begin_epoch(town.database_url)
    for other in (server, late):
        assert eventually(lambda other=other: ready(other)[0] == 200)  # type: ignore[misc]
