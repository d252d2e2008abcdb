"""The cache protocol against two lesser ones, on real Redis and PostgreSQL.

A read is stale when it answers something older than a write that had been answered before the read began. The local
cache is left out: it may be stale by its bound, and here Redis is measured.
"""

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import psycopg
import pytest
from redis.asyncio import Redis

from pointsman.v1 import route_pb2
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.domain.codec import route_from_message, route_to_message
from pointsman_server.domain.errors import RouteNotFound
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.ports.cache import NOTHING, Lookup
from pointsman_server.ports.store import ChangeQuery, Clock, Intent, Outcome
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.resolver import Resolver
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Create, Deactivate, Delete, DeleteTraffic, SetTraffic, Update
from tests.support.fakes import Gate

KEYS = [RouteKey("team-a", f"service-{number}", "prod", "v1") for number in range(3)]
KEY = KEYS[0]
INTENT = Intent("ann")
SEED = int(os.environ.get("RACES_SEED", "0")) or random.SystemRandom().randrange(1 << 30)
PATIENCE = 30.0
PROCESSES = 6
READS = 600
ATTEMPTS = 8


# The lesser policies


GET = "local held = redis.call('HMGET', KEYS[1], 'r', 'v') return {held[1] or '', held[2] or ''}"
SET = "redis.call('HSET', KEYS[1], 'r', ARGV[1], 'v', ARGV[2])"
FENCED_SET = f"""
local r = redis.call('HGET', KEYS[1], 'r')
if not (r and r >= ARGV[1]) then {SET} end
"""


class PlainCache:
    """Cache-aside as it is usually written: SET what was loaded, DEL what was changed."""

    SET = SET

    def __init__(self, url: str, epoch: str) -> None:
        self._redis = Redis.from_url(url)
        self._get, self._set = self._redis.register_script(GET), self._redis.register_script(self.SET)
        self._epoch = epoch

    async def get(self, keys: Sequence[RouteKey], owner: str) -> list[Lookup]:
        return [self._lookup(key, *await self._get(keys=[str(key)])) for key in keys]

    async def fill(self, snapshots: Sequence[Snapshot], owner: str) -> None:
        for snapshot in snapshots:
            value = route_to_message(snapshot.route).SerializeToString() if snapshot.route else b""
            await self._set(keys=[str(snapshot.key)], args=[f"{snapshot.as_of:020d}", value])

    async def mark(self, keys: Sequence[RouteKey], owner: str, held: Sequence[RouteKey] = ()) -> None:
        pass

    async def settle(
        self, snapshots: Sequence[Snapshot], owner: str, dropped: Mapping[RouteKey, int] = NOTHING
    ) -> None:
        for key in (*(snapshot.key for snapshot in snapshots), *dropped):
            await self._redis.delete(str(key))

    async def consume(self, snapshots: Sequence[Snapshot]) -> None:
        await self.settle(snapshots, "")

    async def invalidate(self, keys: Sequence[RouteKey], revisions: Sequence[int], epoch: str) -> None:
        await self._redis.delete(*map(str, keys))

    async def mark_held(self, keys: Sequence[RouteKey], owner: str) -> None:
        pass

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> None:
        await self._redis.delete(*map(str, keys))

    async def close(self) -> None:
        await self._redis.aclose()

    def _lookup(self, key: RouteKey, revision: bytes, value: bytes) -> Lookup:
        if not revision:
            return Lookup(leased=True)
        route = route_from_message(route_pb2.Route.FromString(value)) if value else None
        return Lookup(Snapshot(key, route, int(revision), self._epoch))


class FencedCache(PlainCache):
    """With the fence alone: nothing older replaces what is newer. But what is gone fences nothing."""

    SET = FENCED_SET

    async def settle(
        self, snapshots: Sequence[Snapshot], owner: str, dropped: Mapping[RouteKey, int] = NOTHING
    ) -> None:
        await self.fill(snapshots, owner)
        for key in dropped:
            await self._redis.delete(str(key))


class FullCache(RedisCache):
    """Ours: fence, lease and mark."""

    def __init__(self, url: str, epoch: str) -> None:
        super().__init__(url, timeout=PATIENCE, epoch=lambda: epoch)


Cache = PlainCache | FullCache
Policy = type[Cache]


# A process: its own connections, its own resolver and committer


class NoLocalCache(LocalCache):
    """Holds and knows nothing, so that every read is one of Redis."""

    def __init__(self) -> None:
        super().__init__(size=1, ttl=1.0, negative_ttl=1.0)

    def find(self, encoded: bytes, min_revision: int = 0) -> None:
        return None

    def changed(self, key: RouteKey) -> int:
        return 0


class Unobserved:
    """Counts nothing."""

    def looked_up(self, layer: str, outcome: str) -> None:
        pass


class SlowLoads(PostgresStore):
    """Stops between the reading and the filling: ``gate`` when a test says so, ``random`` as a busy process does."""

    def __init__(self, database: Database, dice: random.Random | None = None) -> None:
        super().__init__(database)
        self.gate = Gate()
        self._dice = dice

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        found = await super().load(keys)
        await self.gate.passing()
        if self._dice and self._dice.random() < 0.5:
            await asyncio.sleep(self._dice.uniform(0, 0.02))
        return found


class GatedCache:
    """Lets a test stop a writer after its commit, before it settles, as SIGSTOP would."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.before_settle = Gate()
        self.before_commit = Gate()
        self.get, self.fill, self.consume = cache.get, cache.fill, cache.consume
        self.mark_held = cache.mark_held
        self.drops = True

    async def mark(self, keys: Sequence[RouteKey], owner: str, held: Sequence[RouteKey] = ()) -> None:
        await self._cache.mark(keys, owner, held)
        await self.before_commit.passing()

    async def settle(
        self, snapshots: Sequence[Snapshot], owner: str, dropped: Mapping[RouteKey, int] = NOTHING
    ) -> None:
        await self.before_settle.passing()
        await self._cache.settle(snapshots, owner, dropped if self.drops else NOTHING)

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> None:
        await self.before_settle.passing()
        if self.drops:
            await self._cache.drop_older(keys, revisions, clock, owner)


class Process:
    """What of a server process races for the cache."""

    def __init__(self, store: SlowLoads, cache: Cache) -> None:
        self.store = store
        self.cache = GatedCache(cache)
        self.resolver = Resolver(store, self.cache, NoLocalCache(), observer=Unobserved())
        self.committer = GroupCommitter(store, self.cache, self.resolver.apply_local_write)

    async def read(self, key: RouteKey = KEY) -> Snapshot:
        return (await self.resolver.resolve(key)).snapshot

    async def write(self, url: str, key: RouteKey = KEY, request_id: str = "") -> Outcome:
        intent = Intent("ann", request_id=request_id, fingerprint=url.encode())
        return await self.committer.update(Update(key, url, allow_missing=True), intent)


async def epoch_of(database_url: str) -> str:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        row = await (await connection.execute("SELECT epoch::text FROM clock")).fetchone()
    assert row
    return str(row[0])


@asynccontextmanager
async def processes(
    count: int, policy: Policy, database_url: str, redis_url: str, seed: int | None = None
) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        started = []
        epoch = await epoch_of(database_url)
        for number in range(count):
            database = Database(database_url, pool_min=1, pool_max=3, timeout=PATIENCE)
            await database.open()
            stack.push_async_callback(database.close)
            cache = policy(redis_url, epoch)
            stack.push_async_callback(cache.close)
            dice = random.Random(seed * 1000 + number) if seed is not None else None
            started.append(Process(SlowLoads(database, dice), cache))
        yield started


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


# The simulation


@dataclass
class Observations:
    """What one run saw."""

    reads: int = 0
    writes: int = 0
    flushes: int = 0
    stale: int = 0
    answers: list[Snapshot] = field(default_factory=list)


class Simulation:
    """Readers and writers on a few keys, and perhaps somebody who empties Redis."""

    def __init__(self, running: list[Process], redis: Redis, seed: int, *, loss: bool) -> None:
        self.running = running
        self.redis = redis
        self.dice = random.Random(seed)
        self.loss = loss
        self.observations = Observations()
        self.over = False
        self.answered: dict[RouteKey, int] = defaultdict(int)

    async def run(self) -> Observations:
        """Read as often as ``READS`` says, while others write and flush."""
        reading = [self.read_on(process) for process in self.running]
        meanwhile = [asyncio.create_task(self.write_on(process)) for process in self.running[: PROCESSES // 2]]
        if self.loss:
            meanwhile.append(asyncio.create_task(self.flush_on()))
        try:
            await asyncio.gather(*reading)
        finally:
            self.over = True
            await asyncio.gather(*meanwhile)
        return self.observations

    async def read_on(self, process: Process) -> None:
        # One after the other: a second reader would join the load of the first one, which began before it.
        for _ in range(READS // PROCESSES):
            key = self.dice.choice(KEYS)
            floor = self.answered[key]
            snapshot = await process.read(key)
            self.observations.reads += 1
            self.observations.stale += snapshot.as_of < floor
            self.observations.answers.append(snapshot)
            await self.dawdle(0.002)

    async def write_on(self, process: Process) -> None:
        while not self.over:
            # Several at once are one group: of several keys, or of one key several times.
            await asyncio.gather(*(self.write_once(process) for _ in range(self.dice.randint(1, 4))))
            await self.dawdle(0.03)

    async def write_once(self, process: Process) -> None:
        key = self.dice.choice(KEYS)
        with suppress(RouteNotFound):
            self.answer(key, await self.change(process, key))

    async def change(self, process: Process, key: RouteKey) -> Outcome:
        if self.dice.random() < 0.2:
            return await process.committer.delete(Delete(key), INTENT)
        return await process.write(f"https://n{self.dice.randrange(1 << 40)}.internal", key)

    def answer(self, key: RouteKey, outcome: Outcome) -> None:
        self.observations.writes += 1
        self.answered[key] = max(self.answered[key], outcome.revision)

    async def flush_on(self) -> None:
        while not self.over:
            await self.redis.flushdb()
            self.observations.flushes += 1
            await self.dawdle(0.02)

    async def dawdle(self, most: float) -> None:
        # Half of the time only a turn of the loop.
        await asyncio.sleep(self.dice.choice([0, self.dice.uniform(0, most)]))


async def check_against_history(store: PostgresStore, answers: Sequence[Snapshot]) -> None:
    """Every answer, stale or not, is exactly what was true of its key as of its revision."""
    lives = defaultdict(list)
    for change in await store.list_changes(ChangeQuery(limit=1_000_000)):
        lives[change.key].append(change)
    for answer in answers:
        before = [change.after for change in lives[answer.key] if change.revision <= answer.as_of]
        assert answer.route == (before[-1] if before else None)


async def simulate(
    policy: Policy, database_url: str, redis: Redis, redis_url: str, seed: int, *, loss: bool
) -> Observations:
    await redis.flushdb()
    async with processes(PROCESSES, policy, database_url, redis_url, seed) as running:
        tally = await Simulation(running, redis, seed, loss=loss).run()
        await check_against_history(running[0].store, tally.answers)
    print(
        f"{policy.__name__}, {'with' if loss else 'without'} loss, seed {seed}: {tally.stale} stale of {tally.reads} "
        f"reads, {tally.writes} writes, {tally.flushes} flushes"
    )
    assert tally.writes > READS // 50, "hardly anything was written"
    assert bool(tally.flushes) == loss
    return tally


@pytest.mark.parametrize(
    ("policy", "loss"),
    [(PlainCache, False), (PlainCache, True), (FencedCache, True)],
    ids=["plain delete", "plain delete with loss", "fence only with loss"],
)
async def test_a_lesser_protocol_answers_something_old(
    policy: Policy, loss: bool, database_url: str, redis: Redis, redis_url: str
) -> None:
    for seed in range(SEED, SEED + ATTEMPTS):
        tally = await simulate(policy, database_url, redis, redis_url, seed, loss=loss)
        if tally.stale:
            return
    pytest.fail(f"{policy.__name__} was never stale: the simulation is too kind to show anything")


@pytest.mark.parametrize(
    ("policy", "loss"),
    [(FencedCache, False), (FullCache, False), (FullCache, True)],
    ids=["fence only without loss", "full protocol", "full protocol with loss"],
)
async def test_nothing_old_is_answered(
    policy: Policy, loss: bool, database_url: str, redis: Redis, redis_url: str
) -> None:
    tally = await simulate(policy, database_url, redis, redis_url, SEED, loss=loss)
    assert tally.stale == 0


# Interleavings, step by step, through whole processes


@dataclass
class Scene:
    """A route that was created, and four processes that know of it only what Redis and PostgreSQL say."""

    one: Process
    other: Process
    third: Process
    witness: Process
    redis: Redis
    created: int


@pytest.fixture
async def scene(
    request: pytest.FixtureRequest, database_url: str, redis: Redis, redis_url: str
) -> AsyncIterator[Scene]:
    async with processes(4, request.param, database_url, redis_url) as (one, other, third, witness):
        created = (await one.write("https://first.internal")).revision
        await redis.flushdb()
        yield Scene(one, other, third, witness, redis, created)


@asynccontextmanager
async def stopped(gate: Gate, work: asyncio.Task[object]) -> AsyncIterator[None]:
    """Within the block ``work`` stands at ``gate``; after it, it has gone on to its end."""
    await gate.arrivals()
    try:
        yield
    finally:
        gate.open()
        await work


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "flushed"])
@pytest.mark.parametrize(
    ("scene", "fails"),
    [(PlainCache, (False, True)), (FencedCache, (True,)), (FullCache, ())],
    ids=["plain", "fenced", "full"],
    indirect=["scene"],
)
async def test_a_reader_stopped_between_load_and_fill(scene: Scene, fails: tuple[bool, ...], lost: bool) -> None:
    """A process is stopped (SIGSTOP) with an old value in its hands; a write is answered; then it goes on."""
    scene.one.store.gate.close()
    async with stopped(scene.one.store.gate, asyncio.create_task(scene.one.read())):
        written = await scene.other.write("https://second.internal")
        if lost:
            await scene.redis.flushdb()

    answer = await scene.witness.read()

    assert (answer.as_of < written.revision) == (lost in fails)


@pytest.mark.parametrize("scene", [FullCache], indirect=True)
async def test_a_group_that_changes_a_key_twice_leaves_its_last_state_despite_fills_in_between(scene: Scene) -> None:
    """One reader leased the key before the group and fills it after, another looks while it is marked."""
    one, other = scene.one, scene.other
    one.store.gate.close()
    other.cache.before_commit.close()
    async with stopped(one.store.gate, asyncio.create_task(one.read())):
        writing = asyncio.gather(other.write("https://second.internal"), other.write("https://third.internal"))
        await other.cache.before_commit.arrivals()
        assert (await scene.witness.read()).as_of == scene.created
        other.cache.before_commit.open()
        first, last = await writing
    assert last.revision == first.revision + 1 == scene.created + 2
    for process in (scene.witness, scene.third, one):
        assert await process.read() == Snapshot(KEY, last.route, last.revision)
    (held,) = await one.cache.get([KEY], "somebody")
    assert held.snapshot == Snapshot(KEY, last.route, last.revision)


@pytest.mark.parametrize("scene", [FullCache], indirect=True)
async def test_a_write_is_visible_when_its_writer_stops_between_commit_and_answer(scene: Scene) -> None:
    await scene.witness.read()  # Redis holds the state before
    scene.one.cache.before_settle.close()
    async with stopped(scene.one.cache.before_settle, asyncio.create_task(scene.one.write("https://second.internal"))):
        seen = await scene.witness.read()
        later = await scene.other.write("https://third.internal")
        assert (await scene.witness.read()).as_of >= later.revision > seen.as_of > scene.created
    assert (await scene.witness.read()).as_of >= later.revision


@pytest.mark.parametrize("scene", [FullCache], indirect=True)
async def test_a_writer_that_died_before_it_settled_leaves_nothing_old(scene: Scene) -> None:
    """It is killed after its commit; its caller tries again elsewhere, and is told that it is done."""
    await scene.witness.read()
    scene.one.cache.before_settle.close()
    dying = asyncio.create_task(scene.one.write("https://second.internal", request_id="r1"))
    await scene.one.cache.before_settle.arrivals()
    dying.cancel()
    await asyncio.wait([dying])

    answered = await scene.other.write("https://second.internal", request_id="r1")

    assert (await scene.witness.read()).as_of >= answered.revision > scene.created


@pytest.mark.parametrize("scene", [FullCache], indirect=True)
@pytest.mark.parametrize("request_id", ["r1", ""], ids=["a replay", "a change that was made already"])
async def test_an_answer_that_changes_nothing_is_as_binding_as_the_write_was(scene: Scene, request_id: str) -> None:
    """The writer's mark is lost, a reader fills what was true before the commit, and the writer dies.

    No caller has an answer for that write yet. But one that gets it, by a retry at another process, may rely on it.
    """
    writer, reader = scene.one, scene.third
    writer.cache.before_commit.close()
    writer.cache.before_settle.close()
    reader.store.gate.close()
    dying = asyncio.create_task(writer.write("https://second.internal", request_id=request_id))
    await writer.cache.before_commit.arrivals()
    await scene.redis.flushdb()
    async with stopped(reader.store.gate, asyncio.create_task(reader.read())):
        writer.cache.before_commit.open()
        await writer.cache.before_settle.arrivals()
    dying.cancel()
    await asyncio.wait([dying])

    answered = await scene.other.write("https://second.internal", request_id=request_id)

    assert (await scene.witness.read()).as_of >= answered.revision > scene.created


# Families: whatever changes a route or the traffic drops what is held of the whole family


FAMILY = KEY.family_key


@pytest.mark.parametrize("scene", [FullCache], indirect=True)
@pytest.mark.parametrize("drops", [True, False], ids=["dropped", "remedy off"])
async def test_a_reader_of_a_family_that_fills_between_mark_and_commit(scene: Scene, drops: bool) -> None:
    """Nothing of the family is held when the write is announced, so it is not marked."""
    writer, reader = scene.other, scene.one
    writer.cache.drops = drops
    writer.cache.before_commit.close()
    writing = asyncio.create_task(writer.write("https://second.internal"))
    await writer.cache.before_commit.arrivals()
    assert (await reader.read(FAMILY)).as_of == scene.created
    writer.cache.before_commit.open()
    written = await writing

    assert ((await scene.witness.read(FAMILY)).as_of >= written.revision) is drops


@pytest.mark.parametrize("scene", [FullCache], indirect=True)
@pytest.mark.parametrize("lost", [False, True], ids=["kept", "flushed"])
async def test_a_reader_of_a_family_stopped_between_load_and_fill(scene: Scene, lost: bool) -> None:
    scene.one.store.gate.close()
    async with stopped(scene.one.store.gate, asyncio.create_task(scene.one.read(FAMILY))):
        written = await scene.other.write("https://second.internal")
        if lost:
            await scene.redis.flushdb()

    assert (await scene.witness.read(FAMILY)).as_of >= written.revision


@pytest.mark.parametrize("scene", [FullCache], indirect=True)
@pytest.mark.parametrize("request_id", ["r1", ""], ids=["a replay", "a change that was made already"])
@pytest.mark.parametrize("drops", [True, False], ids=["dropped", "remedy off"])
async def test_an_answer_that_changes_nothing_binds_families_too(scene: Scene, request_id: str, drops: bool) -> None:
    """As above: the mark is lost, a reader fills the family from before the commit, and the writer dies."""
    writer, reader = scene.one, scene.third
    writer.cache.before_commit.close()
    writer.cache.before_settle.close()
    scene.other.cache.drops = drops
    reader.store.gate.close()
    dying = asyncio.create_task(writer.write("https://second.internal", request_id=request_id))
    await writer.cache.before_commit.arrivals()
    await scene.redis.flushdb()
    async with stopped(reader.store.gate, asyncio.create_task(reader.read(FAMILY))):
        writer.cache.before_commit.open()
        await writer.cache.before_settle.arrivals()
    dying.cancel()
    await asyncio.wait([dying])

    answered = await scene.other.write("https://second.internal", request_id=request_id)

    assert ((await scene.witness.read(FAMILY)).as_of >= answered.revision > scene.created) is drops


@pytest.mark.parametrize("scene", [FullCache], indirect=True)
async def test_a_family_that_is_held_is_loaded_again_after_each_change_of_its_routes_and_its_traffic(
    scene: Scene,
) -> None:
    committer = scene.one.committer
    whole = Division((Target(KEY.version, 10_000),))
    changes = [
        lambda: committer.create(Create(KEY._replace(version="v2"), "https://v2.internal", {}), INTENT),
        lambda: committer.set_traffic(SetTraffic(FAMILY, whole), INTENT),
        lambda: committer.deactivate(Deactivate(KEY), INTENT),
        lambda: committer.delete_traffic(DeleteTraffic(FAMILY), INTENT),
        lambda: committer.delete(Delete(KEY), INTENT),
    ]
    for change in changes:
        held = await scene.witness.read(FAMILY)
        assert (await scene.third.read(FAMILY)).as_of == held.as_of
        outcome = await change()
        fresh = await scene.witness.read(FAMILY)
        assert fresh.as_of >= outcome.revision > held.as_of
        (truth,) = await scene.other.store.load([FAMILY])
        assert fresh.family == truth.family
