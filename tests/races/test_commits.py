"""Commits of several servers, beside single mutations and imports, on real PostgreSQL: whole sets, dense revisions."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from pointsman_server.adapters.postgres.bulk_store import PostgresBulkStore
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.errors import MutationsRefused
from pointsman_server.domain.routes import Change, RouteKey, Wanted
from pointsman_server.ports.store import ChangeQuery, Intent
from pointsman_server.writes.bulk_import import BulkImporter, Import
from pointsman_server.writes.commit import Commit
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Activate, Command, Create, Deactivate, Update
from tests.support.fakes import MemoryCache

ONE, OTHER = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2"))
URL = "https://payments.internal"
INTENT = Intent("ann")
SERVERS = 3
ROUNDS = 40


class Server:
    """What of a server process writes and reads."""

    def __init__(self, database: Database) -> None:
        self.store = PostgresStore(database)
        self.committer = GroupCommitter(self.store, MemoryCache(), lambda _: None)
        self.importer = BulkImporter(PostgresBulkStore(database), MemoryCache(), lambda _keys, _revisions: None)


@pytest.fixture
async def servers(database_url: str) -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        started = []
        for _ in range(SERVERS):
            database = Database(database_url, pool_min=1, pool_max=4, timeout=30.0)
            await database.open()
            stack.push_async_callback(database.close)
            started.append(Server(database))
        yield started


def swap(number: int) -> list[Command]:
    live, idle = (ONE, OTHER) if number % 2 else (OTHER, ONE)
    return [Activate(live), Deactivate(idle)]


async def write(server: Server, name: str, *, whole: bool) -> None:
    """Swap again and again which of two routes is live, and write something else in between."""
    for number in range(ROUNDS):
        if whole:
            await server.committer.commit(Commit(swap(number)), INTENT)
        else:
            for command in swap(number):
                single = server.committer.activate if isinstance(command, Activate) else server.committer.deactivate
                await single(command, INTENT)  # type: ignore[arg-type]
        key = RouteKey("team-b", name, "prod", f"v{number}")
        await server.committer.create(Create(key, URL, {}), INTENT)
        if number % 4 == 0:
            wanted = [Wanted(key._replace(service=f"{name}-bulk", env=env), URL) for env in ("prod", "test")]
            await server.importer.import_(Import(wanted), INTENT)


async def live_at_once(server: Server, over: asyncio.Event) -> set[int]:
    """Read until it is over; return how many of the two were live in some snapshot."""
    seen = set()
    while not over.is_set():
        found = await server.store.load([ONE, OTHER])
        seen.add(sum(bool(each.route and each.route.active) for each in found))
    return seen


async def history(server: Server) -> list[Change]:
    return await server.store.list_changes(ChangeQuery(limit=100_000))


@pytest.mark.parametrize("whole", [True, False], ids=["commits", "remedy off: one by one"])
async def test_no_reader_sees_half_a_change_set(servers: list[Server], whole: bool) -> None:
    setup = Commit([Create(ONE, URL, {}), Create(OTHER, URL, {}, active=False)])
    await servers[0].committer.commit(setup, INTENT)
    over = asyncio.Event()
    readers = [asyncio.create_task(live_at_once(server, over)) for server in servers]
    await asyncio.gather(*(write(server, f"s{number}", whole=whole) for number, server in enumerate(servers)))
    over.set()
    seen = set.union(*await asyncio.gather(*readers))
    assert (seen == {1}) is whole

    changes = await history(servers[0])
    assert [change.revision for change in changes] == list(range(1, len(changes) + 1))
    for change_set_id, group in itertools.groupby(changes, lambda change: change.change_set_id):
        made = list(group)
        assert [change.revision for change in made] == list(range(change_set_id, change_set_id + len(made)))
        assert {change.change_set_size for change in made} == {len(made)}


async def test_of_commits_that_expect_the_same_revision_one_is_made_and_of_the_others_nothing(
    servers: list[Server],
) -> None:
    created = await servers[0].committer.create(Create(ONE, URL, {}), INTENT)
    attempts = [
        Commit(
            [
                Create(OTHER._replace(version=f"n{number}"), URL, {}),
                Update(ONE, f"{URL}/{number}", None, created.revision),
            ]
        )
        for number in range(4 * SERVERS)
    ]

    async def attempt(number: int, commit: Commit) -> int:
        with suppress(MutationsRefused):
            return (await servers[number % SERVERS].committer.commit(commit, INTENT)).change_count
        return 0

    counts = await asyncio.gather(*itertools.starmap(attempt, enumerate(attempts)))
    assert sorted(counts) == [0] * (len(attempts) - 1) + [2]
    assert [change.revision for change in await history(servers[0])] == [1, 2, 3]
