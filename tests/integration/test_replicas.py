"""Reads from a streaming replica, which is behind, stands still, is gone, or belongs to another history."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.history.epoch import renew_epoch
from pointsman_server.adapters.postgres.migrations import migrate
from pointsman_server.adapters.postgres.replicas import store as replicated_store
from pointsman_server.adapters.postgres.replicas.replica import LEFT_OUT_SECONDS
from pointsman_server.adapters.postgres.replicas.store import ReplicatedStore
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import Route, RouteKey, Snapshot, Traffic
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.epochs.guarded_store import GuardedStore
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ports.store import Intent, RouteQuery, TrafficQuery
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.resolver import Resolver
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Create, Delete, SetTraffic, Update
from tests.support.fakes import MemoryCache
from tests.support.postgres import Cluster, primary_and_standby

SOON = 15.0
INTENT = Intent("ann")
ALL = RouteQuery(limit=1000)


def key(version: str, tenant: str = "team-a") -> RouteKey:
    return RouteKey(tenant, "payments", "prod", version)


class Site:
    """A primary, its standby as a replica, and what counted how reads went."""

    def __init__(self, primary: Cluster, standby: Cluster, database: Database, replica: Database) -> None:
        self.primary = primary
        self.standby = standby
        self.database = database
        self.now = 0.0
        self.read: Counter[str] = Counter()
        self.fell_back: Counter[str] = Counter()
        self.store = ReplicatedStore(
            PostgresStore(database),
            database,
            [replica],
            patience=0.5,
            read=lambda source: self.read.update([source]),
            fell_back=lambda reason: self.fell_back.update([reason]),
            now=lambda: self.now,
        )
        self.epochs = EpochTracker()
        self.guarded = GuardedStore(self.store, self.epochs)
        self.committer = GroupCommitter(self.guarded, MemoryCache(), lambda _: None)

    @property
    def refused(self) -> str:
        return str(self.store.replicas[0].refused or "")

    async def create(self, route_key: RouteKey) -> Route:
        done = await self.committer.create(Create(route_key, "https://x.internal", {}), INTENT)
        assert done.route
        return done.route

    async def update(self, route_key: RouteKey, url: str) -> int:
        return (await self.committer.update(Update(route_key, url), INTENT)).revision

    async def divide(self, *targets: tuple[str, int]) -> Traffic:
        division = Division(tuple(Target(*target) for target in targets))
        done = await self.committer.set_traffic(SetTraffic(key("v1").family_key, division), INTENT)
        assert done.traffic
        return done.traffic

    async def use_replica(self) -> None:
        """Wait until the replica has everything and is used, and count from there."""
        async with asyncio.timeout(SOON):
            while True:
                self.now += 1.0
                await self.store.check()
                if not self.refused and not self.store.replicas[0].lag:
                    break
                await asyncio.sleep(0.01)
        self.read.clear()
        self.fell_back.clear()

    def stand_still(self) -> None:
        """Let the replica receive changes without showing them."""
        self.standby.run_sql("SELECT pg_wal_replay_pause()")

    def go_on(self) -> None:
        self.standby.run_sql("SELECT pg_wal_replay_resume()")


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Cluster]]:
    with primary_and_standby(tmp_path_factory.mktemp("clusters")) as (primary, standby):
        migrate(primary.url)
        yield primary, standby


@pytest.fixture
async def site(clusters: tuple[Cluster, Cluster]) -> AsyncIterator[Site]:
    primary, standby = clusters
    async with opened(primary, standby, standby.url) as site:
        try:
            await site.create(key("v1"))
            await site.use_replica()
            yield site
        finally:
            site.go_on()
            with psycopg.connect(primary.url, user="postgres") as connection:
                connection.execute("SET session_replication_role = replica")
                connection.execute("TRUNCATE pointsman.public.routes, traffic, route_changes, requests")
                connection.execute("UPDATE clock SET revision = 0, epoch = gen_random_uuid()")


@asynccontextmanager
async def opened(primary: Cluster, standby: Cluster, replica_url: str) -> AsyncIterator[Site]:
    database = Database(primary.url, pool_min=1, pool_max=8, timeout=1.5)
    site = Site(primary, standby, database, Database(replica_url, pool_min=1, pool_max=4, timeout=5.0))
    await database.open()
    await site.store.open()
    try:
        yield site
    finally:
        await site.store.close()
        await database.close()


async def test_reads_come_from_the_replica(site: Site) -> None:
    (snapshot,) = await site.store.load([key("v1")])
    (route,) = await site.store.list_routes(ALL)
    async with site.store.scan(ALL) as table:
        scanned = [each async for batch in table.batches for each in batch]
    assert snapshot.route == route == scanned[0]
    assert snapshot.as_of == table.clock.revision == 1
    assert (site.read, site.fell_back) == ({"replica": 3}, {})


async def test_what_has_changed_since_is_read_from_the_primary_and_nothing_else(site: Site) -> None:
    await site.create(key("other", "team-b"))
    await site.use_replica()
    site.stand_still()
    revision = await site.update(key("v1"), "https://new.internal")
    await site.create(key("v9"))
    revision = await site.update(key("v9"), "https://newer.internal")

    changed, made = await site.store.load([key("v1"), key("v9")])
    assert changed.route
    assert made.route
    assert (changed.route.url, made.route.url) == ("https://new.internal", "https://newer.internal")
    assert len(await site.store.list_routes(RouteQuery(tenant="team-a"))) == 2
    async with site.store.scan(RouteQuery(tenant="team-a")) as table:
        assert [len(batch) async for batch in table.batches] == [2]
    assert (site.read, site.fell_back) == ({"primary": 3}, {"changed": 3})

    other, absent = await site.store.load([key("other", "team-b"), key("none", "team-b")])
    assert len(await site.store.list_routes(RouteQuery(tenant="team-b"))) == 1
    async with site.store.scan(RouteQuery(tenant="team-b")) as table:
        assert [len(batch) async for batch in table.batches] == [1]
    assert other.route
    assert absent.route is None
    assert {other.as_of, absent.as_of, table.clock.revision} == {revision}, "true at the primary's revision"
    assert site.read["replica"] == 3


async def test_a_deletion_that_the_replica_lacks_is_no_route(site: Site) -> None:
    site.stand_still()
    await site.committer.delete(Delete(key("v1")), INTENT)
    (snapshot,) = await site.store.load([key("v1")])
    assert (snapshot.route, snapshot.as_of) == (None, 2)


async def test_a_family_is_read_from_the_replica_unless_any_part_of_it_has_changed_since(site: Site) -> None:
    await site.create(key("v2"))
    await site.divide(("v1", 9000), ("v2", 1000))
    await site.create(key("v1", "team-b"))
    await site.use_replica()
    ours, theirs = key("v1").family_key, key("v1", "team-b").family_key

    async def read() -> tuple[Snapshot, Snapshot, Snapshot]:
        family, route = await site.store.load([ours, key("v1")])
        (other,) = await site.store.load([theirs])
        return family, route, other

    before, route, _ = await read()
    assert [each.key.version for each in before.family.routes] == ["v1", "v2"]
    assert before.family.traffic
    assert before.as_of == route.as_of == 4
    assert (site.read, site.fell_back) == ({"replica": 2}, {})

    site.stand_still()
    await site.update(key("v2"), "https://new.internal")
    after, _, other = await read()
    assert after.family.routes[1].url == "https://new.internal"
    assert other.as_of == 5, "true at the primary's revision"
    assert (site.read, site.fell_back) == ({"replica": 3, "primary": 1}, {"changed": 1})


async def test_traffic_that_the_replica_lacks_is_read_from_the_primary(site: Site) -> None:
    await site.create(key("v1", "team-b"))
    await site.use_replica()
    site.stand_still()
    traffic = await site.divide(("v1", 10_000))
    (family,) = await site.store.load([key("v1").family_key])
    async with site.store.scan(RouteQuery(tenant="team-a")) as table:
        assert list(table.traffic) == [traffic]
    assert family.family.traffic == traffic
    assert await site.store.list_traffic(TrafficQuery()) == [traffic]
    assert site.fell_back == {"changed": 2}
    # The route itself has not changed, nor has anything of the other tenant.
    await site.store.load([key("v1"), key("v1", "team-b").family_key])
    async with site.store.scan(RouteQuery(tenant="team-b")) as table:
        assert list(table.traffic) == []
    assert site.read == {"primary": 2, "replica": 2}


async def test_a_replica_that_lacks_too_many_changes_is_left_out_until_it_has_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicated_store, "MOST_BEHIND", 3)
    site.stand_still()
    for number in range(4):
        await site.create(key(f"n{number}"))
    await site.store.load([key("v1")])
    assert (site.fell_back, site.refused) == ({"behind": 1}, "lacks 4 changes")
    await site.store.load([key("v1")])
    assert (site.read, site.fell_back) == ({"primary": 2}, {"behind": 1}), "it is not asked again"
    await site.store.check()
    assert site.store.replicas[0].lag == 4

    site.go_on()
    await site.use_replica()
    await site.store.load([key("v1")])
    assert site.read == {"replica": 1}


async def test_changes_that_were_compacted_at_the_primary_are_not_taken_for_none(site: Site) -> None:
    """The replica stood still for so long that the primary no longer has what it lacks."""
    site.stand_still()
    await site.update(key("v1"), "https://new.internal")
    with psycopg.connect(site.primary.url, user="postgres") as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM route_changes WHERE revision = 2")
    (snapshot,) = await site.store.load([key("v1")])
    assert snapshot.route
    assert snapshot.route.url == "https://new.internal"
    assert site.fell_back == {"behind": 1}


async def test_a_replica_that_hangs_costs_one_read_its_time_and_is_left_out(site: Site) -> None:
    with site.standby.frozen():
        (snapshot,) = await site.store.load([key("v1")])
        assert snapshot.route
        assert site.refused == "does not answer within 0.5 s"
        assert await site.store.list_routes(ALL)
        assert (site.read, site.fell_back) == ({"primary": 2}, {"down": 1})
    await site.use_replica()


async def test_a_replica_whose_connections_are_all_in_use_is_not_left_out(site: Site) -> None:
    replica = site.store.replicas[0].database
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(replica.connection())
        replica._timeout = 0.1
        assert await site.store.list_routes(ALL)
        assert (site.fell_back, site.refused) == ({"busy": 1}, "")
    replica._timeout = 5.0
    assert await site.store.list_routes(ALL)
    assert site.read == {"primary": 1, "replica": 1}


async def test_a_snapshot_that_the_replica_gives_up_begins_again_elsewhere(site: Site) -> None:
    """A standby ends a long read, when the primary has removed what it would still read."""
    for number in range(5):
        await site.create(key(f"n{number}"))
    await site.use_replica()
    site.standby.run_sql("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    site.standby.run_sql("SELECT pg_reload_conf()")

    async def scan_while_rows_go() -> None:
        async with site.store.scan(RouteQuery(limit=1)) as table:
            async for _ in table.batches:
                with psycopg.connect(site.primary.url, autocommit=True) as connection:
                    connection.execute("UPDATE routes SET url = url")
                    connection.execute("VACUUM routes")
                await asyncio.sleep(0.05)

    async with asyncio.timeout(SOON):
        with pytest.raises(StoreUnavailable):
            await scan_while_rows_go()
    assert (site.read, site.refused) == ({"replica": 1}, "failed in a snapshot")
    async with site.store.scan(ALL) as table:
        assert [len(batch) async for batch in table.batches] == [6]
    assert site.read["primary"] == 1


async def test_a_replica_of_an_epoch_before_is_refused(site: Site) -> None:
    site.stand_still()
    done = await renew_epoch(site.database)
    (snapshot,) = await site.store.load([key("v1")])
    assert (snapshot.epoch, site.fell_back) == (done.new, {"other": 1})
    assert site.refused == f"is in epoch {done.old}, and the primary in {done.new}"


async def test_a_database_that_is_no_replica_is_refused(site: Site, database_url: str) -> None:
    async with opened(site.primary, site.standby, database_url) as other:
        await other.store.check()
        assert "is in epoch" in other.refused
        assert (await other.store.load([key("v1")]))[0].route
        assert other.read == {"primary": 1}


async def test_while_the_primary_is_away_no_replica_answers_for_it(site: Site) -> None:
    """Another primary may have taken over, and have taken writes: nobody here can know."""
    with site.primary.frozen(), pytest.raises(StoreUnavailable):
        async with asyncio.timeout(SOON):
            await site.store.load([key("v1")])
    assert site.read == {}


async def test_no_resolve_is_older_than_an_answered_write_however_far_the_replica_is_behind(site: Site) -> None:
    """While the replica stands still and goes on; each read begins after a write was answered."""
    local = LocalCache(size=10, ttl=1.0, negative_ttl=1.0)
    resolver = Resolver(site.guarded, MemoryCache(), local, observer=SilentObserver())
    keys = [key(f"k{number}") for number in range(4)]
    answered = {route_key: (await site.create(route_key)).revision for route_key in keys}
    await site.use_replica()

    async def read(route_key: RouteKey) -> None:
        while True:
            floor = answered[route_key]
            answer = await resolver.resolve(route_key, fully_consistent=True)
            assert answer.snapshot.route
            assert answer.snapshot.route.revision >= floor
            assert answer.snapshot.as_of >= floor

    async def write(route_key: RouteKey, number: int) -> None:
        answered[route_key] = await site.update(route_key, f"https://u{number}.internal")
        await asyncio.sleep(0.01)

    async def more(reads: Counter[str], name: str) -> None:
        before = reads[name]
        while reads[name] <= before:  # noqa: ASYNC110 - the readers run meanwhile
            await asyncio.sleep(0.001)

    async with asyncio.timeout(SOON), asyncio.TaskGroup() as group:
        readers = [group.create_task(read(route_key)) for route_key in keys for _ in range(2)]
        for number in range(5):
            await asyncio.to_thread(site.stand_still)
            await asyncio.gather(*(write(route_key, number) for route_key in keys))
            await more(site.fell_back, "changed")
            await asyncio.to_thread(site.go_on)
            await more(site.read, "replica")
        for reader in readers:
            reader.cancel()


class SilentObserver:
    def looked_up(self, layer: str, outcome: str) -> None: ...


async def test_a_replica_that_was_promoted_is_another_history(tmp_path: Path) -> None:
    """Both take writes, under the same epoch and with the same revisions: their changes differ."""
    with primary_and_standby(tmp_path) as (primary, standby):
        migrate(primary.url)
        async with opened(primary, standby, standby.url) as site:
            await site.create(key("v1"))
            await site.use_replica()
            standby.promote(primary)
            database = Database(standby.url, pool_min=1, pool_max=2)
            await database.open()
            alone = GroupCommitter(PostgresStore(database), MemoryCache(), lambda _: None)
            async with asyncio.timeout(SOON):
                while standby.run_sql("SELECT pg_is_in_recovery()") != [(False,)]:  # noqa: ASYNC110 - a server's state
                    await asyncio.sleep(0.05)
            await alone.create(Create(key("v2"), "https://of-the-other.internal", {}), INTENT)

            (snapshot,) = await site.store.load([key("v2")])
            assert (snapshot.route, site.fell_back) == (None, {"ahead": 1})
            await site.store.check()
            assert site.refused == "is at revision 2, and the primary only at 1"

            await site.create(key("v3"))
            site.now += LEFT_OUT_SECONDS
            await site.store.check()
            assert site.refused == "has another change at revision 2 than the primary has"
            assert (await site.store.load([key("v2")]))[0].route is None
            await database.close()
