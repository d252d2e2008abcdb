"""The table of one server on a real PostgreSQL, while another server writes."""

import random
import threading
from contextlib import suppress
from typing import Any

import psycopg

from pointsman import Client
from pointsman.change_sets import Activate, Deactivate, Delete, DeleteTraffic, Mutation, SetTraffic, Update
from pointsman.errors import PointsmanError
from pointsman_server.cli.database.restore import begin_epoch
from pointsman_server.ports.store import Clock, RouteQuery
from pointsman_server.xds.table import Table
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

FAMILIES = [f"{tenant}/pay/prod" for tenant in ("team-a", "Team-A", "team-b")]
VERSIONS = ("v1", "v2", "v3")
COMMITS, RELOADS = 120, 6


def mutation(drawn: random.Random) -> Mutation:
    family, version = drawn.choice(FAMILIES), drawn.choice(VERSIONS)
    key = f"{family}/{version}"
    return drawn.choice(
        [
            Update(key, f"https://{version}-{drawn.randrange(100)}.internal", allow_missing=True),
            Update(key, f"http://10.0.0.1:{drawn.randrange(1, 100)}", allow_missing=True),
            Activate(key, exclusive=drawn.random() < 0.3),
            Deactivate(key),
            Delete(key),
            SetTraffic(family, {"v1": 9_000, "v2": 1_000}, fallbacks=["v3"]),
            DeleteTraffic(family),
        ]
    )


def write(client: Client, drawn: random.Random) -> None:
    for _ in range(COMMITS):
        with suppress(PointsmanError):
            client.commit([mutation(drawn) for _ in range(drawn.randrange(1, 5))])


async def stored(server: RunningServer) -> Table:
    """Read the whole of the store."""
    async with server.app.store.scan(RouteQuery(limit=7)) as scanned:
        table = Table(scanned.clock, (), scanned.traffic)
        async for batch in scanned.batches:
            table.add(batch)
    return table


def content(table: Table) -> tuple[Clock, dict[str, Any]]:
    return table.clock, {root: table.target(root) for root in table.roots()}


def test_it_is_that_of_the_store_after_writes_and_reloads(database_url: str, redis_url: str) -> None:
    """One server reloads again and again while another writes: what comes meanwhile is neither lost nor repeated."""
    chosen = {"database_url": database_url, "redis_url": redis_url}
    drawn = random.Random(7)
    with (
        serving(settings(**chosen)) as writer,
        serving(settings(**chosen, roles="xds")) as server,
        Client(writer.address) as client,
    ):
        assert server.app.xds
        loader = server.app.xds.loader
        write(client, drawn)
        assert eventually(lambda: loader.is_current)
        writing = threading.Thread(target=write, args=(client, drawn))
        writing.start()
        try:
            for _ in range(RELOADS):
                server.run(again(server))
                assert eventually(lambda: loader.is_current)
        finally:
            writing.join()
        wanted = server.run(stored(server))
        assert wanted.clock.revision > COMMITS
        assert eventually(lambda: loader.snapshot.clock == wanted.clock)
        assert content(loader.snapshot.table) == content(wanted)
        assert list(wanted.roots())


async def again(server: RunningServer) -> None:
    """Have the feed start over, as after an error: at a revision that the table may not have yet."""
    assert server.app.xds
    loader, feed = server.app.xds.loader, server.app.running.feed
    loader._begin_again(Clock(feed._epoch, feed.revision))


def test_a_store_that_was_restored_to_an_older_state_is_followed(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url=database_url, redis_url=redis_url, roles="api,xds")
    with serving(chosen) as server, Client(server.address) as client:
        assert server.app.xds
        loader = server.app.xds.loader
        for version in ("v1", "v2"):
            client.create(f"{FAMILIES[0]}/{version}", "https://new.internal")
        assert eventually(lambda: len(loader.snapshot.table) == 2)
        epoch = loader.snapshot.clock.epoch
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("DELETE FROM routes WHERE version = 'v2'")
        begin_epoch(database_url)
        assert eventually(lambda: loader.snapshot.clock.epoch != epoch)
        assert content(loader.snapshot.table) == content(server.run(stored(server)))
        assert list(loader.snapshot.table.versions("prod~pay~team-a")) == ["v1"]
        revision = client.deactivate(f"{FAMILIES[0]}/v1").revision
        assert eventually(lambda: loader.snapshot.clock.revision >= revision)
        assert content(loader.snapshot.table) == content(server.run(stored(server)))
