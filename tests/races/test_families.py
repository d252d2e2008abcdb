"""Families in the caches against lesser protocols, on real Redis and PostgreSQL.

A family changes with each change of one of its versions or of its traffic. A read is stale when it answers one from
before a change that had been answered before the read began. Each remedy is switched off once, and then is missed.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from pointsman.selection import POINTS
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.routes import Family, Route, RouteKey, Snapshot, Traffic
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.events.cache_invalidation import CacheHandler
from pointsman_server.ports.cache import NOTHING
from pointsman_server.ports.store import ChangeQuery, Clock, Outcome
from pointsman_server.reads.answer import Source
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.local_cache_updater import LocalCacheUpdater
from pointsman_server.reads.resolver import Resolver
from pointsman_server.reads.selection import select
from pointsman_server.writes.mutations import Delete, SetTraffic
from tests.races.test_cache_protocol import (
    ATTEMPTS,
    INTENT,
    PROCESSES,
    SEED,
    FullCache,
    Observations,
    Process,
    Simulation,
    Unobserved,
    processes,
    stopped,
)

FAMILIES = [RouteKey("team-a", f"service-{number}", "prod", "") for number in range(3)]
FAMILY = FAMILIES[0]
READS = 360
V1, V2 = FAMILY._replace(version="v1"), FAMILY._replace(version="v2")


class NeverDropped(FullCache):
    """Families are neither marked nor dropped by who changes them."""

    async def mark(self, keys: Sequence[RouteKey], owner: str, held: Sequence[RouteKey] = ()) -> None:
        await super().mark(keys, owner)

    async def settle(
        self, snapshots: Sequence[Snapshot], owner: str, dropped: Mapping[RouteKey, int] = NOTHING
    ) -> None:
        await super().settle(snapshots, owner)

    async def mark_held(self, keys: Sequence[RouteKey], owner: str) -> None:
        pass

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> None:
        pass


class LeasesKept(NeverDropped):
    """What is older is dropped, but not the leases of those that load it."""

    def __init__(self, url: str, epoch: str) -> None:
        super().__init__(url, epoch)
        self._of = url, epoch[:8]

    async def settle(
        self, snapshots: Sequence[Snapshot], owner: str, dropped: Mapping[RouteKey, int] = NOTHING
    ) -> None:
        await super().settle(snapshots, owner)
        await self._drop_values(list(dropped))

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> None:
        await self._drop_values(keys)

    async def _drop_values(self, keys: Sequence[RouteKey]) -> None:
        url, epoch = self._of
        async with Redis.from_url(url) as redis:
            for key in keys:
                await redis.hdel(f"pointsman:{epoch}:{'/'.join(key)}", "r", "v")


async def divide(process: Process, *weights: tuple[str, int], family: RouteKey = FAMILY) -> int:
    division = Division(tuple(Target(*weight) for weight in weights))
    return (await process.committer.set_traffic(SetTraffic(family, division), INTENT)).revision


# The simulation


class FamilySimulation(Simulation):
    """Readers of families, and writers of their routes and their traffic."""

    async def read_on(self, process: Process) -> None:
        for _ in range(READS // PROCESSES):
            family = self.dice.choice(FAMILIES)
            floor = self.answered[family]
            snapshot = await process.read(family)
            self.observations.reads += 1
            self.observations.stale += snapshot.as_of < floor
            self.observations.answers.append(snapshot)
            await self.dawdle(0.002)

    async def write_once(self, process: Process) -> None:
        key = self.dice.choice(FAMILIES)._replace(version=self.dice.choice(["v1", "v2"]))
        # A version that the traffic names stays, and one that is absent is not named.
        with suppress(PointsmanError):
            self.answer(key.family_key, await self.change(process, key))

    async def change(self, process: Process, key: RouteKey) -> Outcome:
        what = self.dice.random()
        if what < 0.15:
            return await process.committer.delete(Delete(key), INTENT)
        if what < 0.5:
            share = self.dice.randrange(1, POINTS)
            division = Division((Target("v1", share), Target("v2", POINTS - share)))
            return await process.committer.set_traffic(SetTraffic(key.family_key, division), INTENT)
        return await process.write(f"https://n{self.dice.randrange(1 << 40)}.internal", key)


async def simulate(
    policy: type[FullCache], database_url: str, redis: Redis, redis_url: str, seed: int, *, loss: bool
) -> Observations:
    await redis.flushdb()
    async with processes(PROCESSES, policy, database_url, redis_url, seed) as running:
        tally = await FamilySimulation(running, redis, seed, loss=loss).run()
        changes = await running[0].store.list_changes(ChangeQuery(limit=1_000_000))
    routes: dict[RouteKey, Route] = {}
    traffic: dict[RouteKey, Traffic] = {}
    answers = defaultdict(list)
    for answer in tally.answers:
        answers[answer.as_of].append(answer)
    for change in changes:
        if change.kind.of_traffic:
            traffic.pop(change.key, None)
            if change.traffic_after:
                traffic[change.key] = change.traffic_after
        else:
            routes.pop(change.key, None)
            if change.after:
                routes[change.key] = change.after
        for answer in answers.pop(change.revision, ()):
            of_family = [route for key, route in routes.items() if key.family_key == answer.key]
            assert answer.family == Family.of(answer.key, traffic.get(answer.key), of_family), "was never so"
    assert set(answers) <= {0}
    assert tally.writes > 10, "hardly anything was written"
    return tally


async def test_a_family_that_is_never_dropped_is_answered_old(database_url: str, redis: Redis, redis_url: str) -> None:
    for seed in range(SEED, SEED + ATTEMPTS):
        if (await simulate(NeverDropped, database_url, redis, redis_url, seed, loss=False)).stale:
            return
    pytest.fail("never stale: the simulation is too kind to show anything")


@pytest.mark.parametrize("loss", [False, True])
async def test_no_old_family_is_answered(loss: bool, database_url: str, redis: Redis, redis_url: str) -> None:
    tally = await simulate(FullCache, database_url, redis, redis_url, SEED, loss=loss)
    assert tally.stale == 0


# Interleavings, step by step


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def running(
    request: pytest.FixtureRequest, database_url: str, redis: Redis, redis_url: str
) -> AsyncIterator[list[Process]]:
    """Three processes; a route was created, and Redis holds nothing."""
    policy = getattr(request, "param", FullCache)
    async with processes(3, policy, database_url, redis_url) as started:
        await started[0].write("https://one.internal", V1)
        await redis.flushdb()
        yield started


@pytest.mark.parametrize(
    ("running", "stale"),
    [(NeverDropped, True), (LeasesKept, True), (FullCache, False)],
    ids=["never dropped", "leases kept", "full"],
    indirect=["running"],
)
@pytest.mark.parametrize("change", ["a version", "traffic"])
async def test_a_reader_stopped_between_load_and_fill_of_a_family(
    running: list[Process], stale: bool, change: str
) -> None:
    """It began before a change of one of its parts, which is answered; then it fills the shared cache."""
    one, other, witness = running
    one.store.gate.close()
    async with stopped(one.store.gate, asyncio.create_task(one.read(FAMILY))):
        if change == "traffic":
            revision = await divide(other, ("v1", POINTS))
        else:
            revision = (await other.write("https://two.internal", V2)).revision
    assert ((await witness.read(FAMILY)).as_of < revision) is stale


@pytest.mark.parametrize("consumes", [False, True], ids=["no consumer", "consumer"])
@pytest.mark.parametrize("running", [NeverDropped], indirect=True, ids=["out of reach"])
async def test_a_writer_that_does_not_reach_redis(running: list[Process], consumes: bool) -> None:
    """The consumer of its change drops the family that Redis still holds."""
    writer, reader, witness = running
    before = (await reader.read(FAMILY)).as_of
    revision = (await writer.write("https://two.internal", V2)).revision
    changes = await writer.store.list_changes(ChangeQuery(after_revision=before))
    if consumes:
        await CacheHandler(witness.cache._cache, lambda: changes[0].epoch)(changes)  # type: ignore[arg-type]
    assert ((await witness.read(FAMILY)).as_of < revision) is not consumes


# The local cache of another server, which hears of changes by the feed


class Deaf(Resolver):
    """Does not hear which families changed."""

    def supersede(self, keys: Iterable[RouteKey], revisions: Iterable[int]) -> None:
        pass


class Server:
    """A process with a local cache that a feed keeps up to date."""

    def __init__(self, process: Process, resolver: type[Resolver] = Resolver) -> None:
        self.process = process
        self.local = LocalCache(size=100, ttl=60, negative_ttl=60)
        self.resolver = resolver(process.store, process.cache, self.local, observer=Unobserved())
        self.updater = LocalCacheUpdater(self.resolver, self.local)
        self.fed = 0

    async def feed(self) -> None:
        """Apply the changes since the last call."""
        changes = await self.process.store.list_changes(ChangeQuery(after_revision=self.fed))
        self.updater.apply(changes)
        self.fed = changes[-1].revision
        self.updater.advance(self.fed)

    async def read(self) -> Snapshot:
        return (await self.resolver.resolve(FAMILY)).snapshot


@pytest.mark.parametrize(("resolver", "stale"), [(Deaf, True), (Resolver, False)], ids=["deaf", "full"])
async def test_a_load_of_a_family_that_began_before_a_change_is_not_cached_locally(
    running: list[Process], resolver: type[Resolver], stale: bool
) -> None:
    server, writer = Server(running[0], resolver), running[1]
    await server.feed()
    server.process.store.gate.close()
    async with stopped(server.process.store.gate, asyncio.create_task(server.read())):
        revision = await divide(writer, ("v1", POINTS))
        await server.feed()
    assert ((await server.read()).as_of < revision) is stale
    held = server.resolver.resolve_locally(FAMILY)
    assert held is not None
    assert (held.snapshot.as_of < revision) is stale


@pytest.mark.parametrize("heard", [False, True], ids=["not heard of", "heard of"])
@pytest.mark.parametrize("running", [NeverDropped], indirect=True, ids=["out of reach"])
async def test_a_family_that_redis_holds_from_before_a_change_is_not_answered_by_who_heard_of_it(
    running: list[Process], heard: bool
) -> None:
    server, writer, reader = Server(running[0]), running[1], running[2]
    await server.feed()
    await reader.read(FAMILY)  # fills Redis
    revision = await divide(writer, ("v1", POINTS))
    if heard:
        await server.feed()
    answer = await server.resolver.resolve(FAMILY)
    assert answer.source is (Source.POSTGRES if heard else Source.REDIS)
    assert (answer.snapshot.as_of < revision) is not heard
    if heard:
        # It also mends Redis.
        assert (await reader.read(FAMILY)).as_of >= revision


async def test_a_select_obeys_the_traffic_that_it_says(running: list[Process]) -> None:
    """While traffic moves back and forth, and versions come and go, each choice is that of one revision."""
    server, writer = Server(running[0]), running[1]
    await writer.write("https://two.internal", V2)
    await divide(writer, ("v1", POINTS), ("v2", 0))
    await server.feed()

    async def move() -> None:
        for number in range(12):
            await divide(writer, *((("v1", POINTS), ("v2", 0)) if number % 2 else (("v1", 0), ("v2", POINTS))))
            await server.feed()

    moving = asyncio.create_task(move())
    seen: list[tuple[int, str]] = []
    while not moving.done():
        snapshot = await server.read()
        traffic = snapshot.family.traffic
        assert traffic
        seen.append((traffic.revision, select(snapshot, "user-1")[1].version))
        await asyncio.sleep(0)
    await moving
    assert [revision for revision, _ in seen] == sorted(revision for revision, _ in seen)
    by_revision = dict(seen)
    assert len(by_revision) > 2
    changes = await writer.store.list_changes(ChangeQuery(limit=1000))
    for change in changes:
        if change.traffic_after and change.revision in by_revision:
            (full,) = [target.version for target in change.traffic_after.division.targets if target.weight]
            assert by_revision[change.revision] == full
    assert set(seen) == set(by_revision.items())
