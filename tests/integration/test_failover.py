"""PostgreSQL fails over: the old primary goes on answering, and the address leads to the new one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.migrations import migrate
from pointsman_server.adapters.postgres.relay_log import PostgresRelayLog
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.errors import RetryLater, StoreUnavailable
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.store import Intent, RouteQuery
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Create
from tests.support.fakes import MemoryCache, Wire
from tests.support.postgres import Cluster, primary_and_standby

POOL_SIZE = 4
SOON = 15.0
LONG = 60.0


class Site:
    """A primary, its standby, and a database whose address leads to the primary at first."""

    def __init__(self, old: Cluster, new: Cluster, wire: Wire, database: Database) -> None:
        self.old = old
        self.new = new
        self.wire = wire
        self.database = database
        self.store = PostgresStore(database)
        self.committer = GroupCommitter(self.store, MemoryCache(), lambda _: None)

    @asynccontextmanager
    async def another(self, pool_size: int, **options: float) -> AsyncIterator["Site"]:
        """Open another database at the same address."""
        url = self.old.url.replace(f":{self.old.port}/", f":{self.wire.port}/")
        database = Database(url, pool_min=pool_size, pool_max=pool_size, **options)
        await database.open()
        try:
            yield Site(self.old, self.new, self.wire, database)
        finally:
            await database.close()

    async def create(self, version: str) -> None:
        await self.committer.create(
            Create(RouteKey("team-a", "payments", "prod", version), "https://x.internal", {}), Intent("ann")
        )

    async def fill_pool(self) -> None:
        """Make the pool open all its connections."""
        async with asyncio.timeout(LONG):
            await asyncio.gather(*(self._hold() for _ in range(POOL_SIZE)))

    async def _hold(self) -> None:
        async with self.database.connection() as connection:
            await connection.execute("SELECT pg_sleep(0.3)")

    async def ports(self) -> set[int]:
        """The servers that the pool's connections are with."""
        rows = await asyncio.gather(*(self._port() for _ in range(POOL_SIZE)))
        return set(rows)

    async def _port(self) -> int:
        async with self.database.connection() as connection:
            row = await (await connection.execute("SELECT inet_server_port(), pg_sleep(0.05)")).fetchone()
        assert row
        return int(row[0])

    async def reach(self, server: Cluster) -> None:
        """Wait until every connection of the pool is with ``server``; meanwhile calls may fail, and none may hang."""
        async with asyncio.timeout(SOON):
            while True:
                try:
                    if await self.ports() == {server.port}:
                        return
                except RetryLater as error:
                    assert not isinstance(error.__cause__, TimeoutError)
                await asyncio.sleep(0.1)

    async def create_soon(self, version: str) -> None:
        """Write as a client does: again until it is done."""
        async with asyncio.timeout(SOON):
            while True:
                try:
                    return await self.create(version)
                except RetryLater:
                    await asyncio.sleep(0.05)


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[tuple[Cluster, Cluster]]:
    with primary_and_standby(tmp_path) as (old, new):
        migrate(old.url)
        yield old, new


@pytest.fixture
async def site(clusters: tuple[Cluster, Cluster]) -> AsyncIterator[Site]:
    old, new = clusters
    async with Wire(old.port) as wire:
        url = old.url.replace(f":{old.port}/", f":{wire.port}/")
        database = Database(url, pool_min=POOL_SIZE, pool_max=POOL_SIZE, timeout=5.0)
        await database.open()
        site = Site(old, new, wire, database)
        try:
            await site.create("v1")
            await site.fill_pool()
            yield site
        finally:
            await database.close()


async def test_writes_go_to_the_new_primary_when_the_old_one_turns_read_only(site: Site) -> None:
    site.old.refuse_writes()
    with pytest.raises(StoreUnavailable) as raised:
        await site.create("v2")
    assert site.database.explain(raised.value) == "is read-only"
    site.new.promote(site.old)
    site.wire.target = site.new.port

    await site.create_soon("v2")

    await site.reach(site.new)
    assert [route.key.version for route in await site.store.list_routes(RouteQuery())] == ["v1", "v2"]


async def test_a_health_check_is_enough_to_leave_a_read_only_server(site: Site) -> None:
    site.old.refuse_writes()
    site.new.promote(site.old)
    site.wire.target = site.new.port
    async with asyncio.timeout(SOON):
        while True:
            if not await site.store.read_only():
                break
            await asyncio.sleep(0.1)
    await site.create("v2")
    assert "v2" in [route.key.version for route in await site.store.list_routes(RouteQuery())]


async def test_writes_go_to_the_new_primary_when_the_old_one_returns_as_its_standby(site: Site) -> None:
    site.new.promote(site.old)
    site.old.stop()
    site.old.follow(site.new)
    site.old.begin()
    site.wire.target = site.old.port
    async with asyncio.timeout(SOON):
        while True:
            try:
                await site.fill_pool()
            except StoreUnavailable:
                continue
            break
    with pytest.raises(StoreUnavailable):
        await site.create("v2")
    site.wire.target = site.new.port

    await site.create_soon("v2")

    await site.reach(site.new)


async def test_one_new_connection_to_another_server_replaces_all_of_them(site: Site) -> None:
    """The old server takes writes still: nothing but the new connection says that the address leads elsewhere."""
    site.new.promote(site.old)
    site.wire.target = site.new.port
    async with site.database.connection() as connection:
        connection.pgconn.finish()
    await site.reach(site.new)


async def test_one_connection_that_gets_no_answer_is_enough_to_leave_a_server_that_hangs(site: Site) -> None:
    async with site.another(pool_size=POOL_SIZE, timeout=1.0) as impatient:
        await impatient.fill_pool()
        site.new.promote(site.old)
        with site.old.frozen():
            site.wire.target = site.new.port
            with pytest.raises(StoreUnavailable) as raised:
                await impatient.store.clock()
            assert impatient.database.explain(raised.value) == "does not answer within 1 s"
            await impatient.reach(site.new)


async def test_while_the_new_primary_is_not_there_yet_the_database_is_unavailable_not_busy(
    site: Site, unused_tcp_port: int
) -> None:
    site.old.refuse_writes()
    site.wire.target = unused_tcp_port
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await site.create("v2")


async def test_a_connection_is_replaced_at_the_end_of_its_lifetime(site: Site) -> None:
    async with site.another(pool_size=1, lifetime=0.5) as mortal:
        assert await mortal.ports() == {site.old.port}
        site.new.promote(site.old)
        site.wire.target = site.new.port
        await mortal.reach(site.new)


async def test_a_server_that_stays_read_only_answers_reads_and_is_not_flooded_with_connections(site: Site) -> None:
    site.old.refuse_writes()
    made = site.database.stats()["connections_num"]
    for _ in range(50):
        with pytest.raises(StoreUnavailable):
            await site.create("v2")
        assert (await site.store.clock()).revision == 1
    assert site.database.stats()["connections_num"] - made <= 3 * POOL_SIZE


@pytest.mark.parametrize("sign", ["read-only", "another server"])
async def test_the_leader_of_the_relay_steps_down_and_leads_at_the_new_primary(site: Site, sign: str) -> None:
    log = PostgresRelayLog(site.database)
    async with log.lead() as leadership:
        assert [change.revision for change in await leadership.unpublished(10)] == [1]
        site.new.promote(site.old)
        site.wire.target = site.new.port
        if sign == "read-only":
            site.old.refuse_writes()
        else:
            await (await site.database.dedicated()).close()
        with pytest.raises(StoreUnavailable):
            await leadership.unpublished(10)
    await site.create_soon("v2")
    async with log.lead() as leadership:
        assert [change.revision for change in await leadership.unpublished(10)] == [1, 2]


async def test_a_relay_does_not_lead_at_a_standby(site: Site) -> None:
    site.wire.target = site.new.port
    with pytest.raises(StoreUnavailable) as raised:
        async with PostgresRelayLog(site.database).lead():
            pass
    assert site.database.explain(raised.value) == "is read-only"
