"""The law of ``ports.RouteHistory``, for every implementation."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as configured
from hypothesis import strategies as st

from pointsman.selection import POINTS
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.history import as_of
from pointsman_server.adapters.postgres.history.as_of import PostgresHistory
from pointsman_server.adapters.postgres.history.compaction import HistoryCompaction
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.errors import HistoryCompacted, RevisionInFuture
from pointsman_server.domain.routes import Change, ChangeKind, Draft, Family, Route, RouteKey, Snapshot, Traffic
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.ports.history import RouteHistory
from pointsman_server.ports.store import ChangeQuery, Intent, RouteQuery, RouteStore
from tests.support.changes import commit_set
from tests.support.fakes import MemoryStore
from tests.support.history import MemoryHistory

URL = "https://payments.internal:8443"
INTENT = Intent("alice", "the move")
V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
PAYMENTS = V1.family_key
ORDERS = RouteKey("team-b", "orders", "test", "v1")
CANARY = Division((Target("v1", 9000), Target("v2", 1000)), ("v3",))


@dataclass
class Archive:
    """A store, its history, and a compaction of it up to a revision."""

    store: RouteStore
    history: RouteHistory
    compact: Callable[[int], Awaitable[None]]

    async def write(self, *drafts: Draft) -> list[Change]:
        return await commit_set(self.store, drafts, INTENT)

    async def changes(self) -> list[Change]:
        return await self.store.list_changes(ChangeQuery(limit=100_000))

    async def load(self, key: RouteKey, revision: int) -> Snapshot:
        (snapshot,) = await self.history.load_as_of([key], revision)
        return snapshot


@pytest.fixture(params=["memory", "postgres"])
async def archive(request: pytest.FixtureRequest) -> AsyncIterator[Archive]:
    if request.param == "memory":
        memory = MemoryStore()
        yield Archive(memory, MemoryHistory(memory), lambda revision: forget(memory, revision))
        return
    database = Database(request.getfixturevalue("database_url"), pool_min=1, pool_max=4, timeout=30.0)
    await database.open()
    yield Archive(PostgresStore(database), PostgresHistory(database), lambda revision: compact(database, revision))
    await database.close()


async def forget(store: MemoryStore, revision: int) -> None:
    store.compacted_revision, store.compacted_at = revision, datetime.now(UTC)
    store.changes = [change for change in store.changes if change.revision > revision]


async def compact(database: Database, revision: int) -> None:
    async with database.connection() as connection:
        await connection.execute("UPDATE relay SET revision = %s", [revision])
    compaction = HistoryCompaction(database)
    async for _ in compaction.run(await compaction.plan(timedelta(0), audited=revision)):
        pass


def created(key: RouteKey, url: str = URL, *, active: bool = True) -> Draft:
    return Draft(ChangeKind.CREATED, key, None, url, active, {"tier": "é"})


def updated(route: Route, url: str) -> Draft:
    return Draft(ChangeKind.UPDATED, route.key, route, url, route.active, route.labels)


def deleted(route: Route) -> Draft:
    return Draft(ChangeKind.DELETED, route.key, route)


async def create(archive: Archive, *keys: RouteKey, active: bool = True) -> list[Route]:
    changes = await archive.write(*(created(key, active=active) for key in keys))
    return [change.after for change in changes if change.after]


def after(change: Change) -> Route:
    assert change.after
    return change.after


# Keys


async def test_a_route_is_what_it_was_before_its_next_change(archive: Archive) -> None:
    (first,) = await create(archive, V1)
    await create(archive, ORDERS)
    second = after((await archive.write(updated(first, f"{URL}/new")))[0])
    await archive.write(deleted(second))
    await create(archive, V2)
    third = (await create(archive, V1))[0]
    assert [await archive.load(V1, revision) for revision in range(7)] == [
        Snapshot(V1, None, 0),
        Snapshot(V1, first, 1),
        Snapshot(V1, first, 2),
        Snapshot(V1, second, 3),
        Snapshot(V1, None, 4),
        Snapshot(V1, None, 5),
        Snapshot(V1, third, 6),
    ]
    assert (await archive.load(V1, 3)).epoch == (await archive.store.clock()).epoch


async def test_keys_are_answered_in_the_order_asked_families_among_them(archive: Archive) -> None:
    v1, v2, orders = await create(archive, V1, V2, ORDERS)
    await archive.write(updated(v2, f"{URL}/new"), deleted(orders))
    absent = RouteKey("team-a", "nothing", "prod", "v1")
    assert await archive.history.load_as_of([ORDERS, PAYMENTS, absent, V2, PAYMENTS, absent.family_key], 3) == [
        Snapshot(ORDERS, orders, 3),
        Snapshot(PAYMENTS, Family(PAYMENTS, None, (v1, v2)), 3),
        Snapshot(absent, None, 3),
        Snapshot(V2, v2, 3),
        Snapshot(PAYMENTS, Family(PAYMENTS, None, (v1, v2)), 3),
        Snapshot(absent.family_key, None, 3),
    ]
    assert await archive.history.load_as_of([], 3) == []


async def test_a_family_is_its_traffic_and_its_active_routes_as_they_were(archive: Archive) -> None:
    v1, v2, v3 = await create(archive, V1, V2, V3)
    v4 = after((await archive.write(created(V1._replace(version="v4"))))[0])
    traffic = await divide(archive, CANARY)
    off = after((await archive.write(Draft(ChangeKind.DEACTIVATED, V1, v1, URL, active=False)))[0])
    cut_over = await divide(archive, Division((Target("v2", POINTS),)), traffic)
    await archive.write(deleted(off))
    await archive.write(Draft(ChangeKind.TRAFFIC_DELETED, PAYMENTS, None, traffic_before=cut_over))
    await archive.write(deleted(v4))
    found = [(await archive.load(PAYMENTS, revision)).value for revision in range(11)]
    assert found == [
        None,
        Family(PAYMENTS, None, (v1,)),
        Family(PAYMENTS, None, (v1, v2)),
        Family(PAYMENTS, None, (v1, v2, v3)),
        Family(PAYMENTS, None, (v1, v2, v3, v4)),
        Family(PAYMENTS, traffic, (v1, v2, v3)),
        Family(PAYMENTS, traffic, (v2, v3)),
        Family(PAYMENTS, cut_over, (v2,)),
        Family(PAYMENTS, cut_over, (v2,)),
        Family(PAYMENTS, None, (v2, v3, v4)),
        Family(PAYMENTS, None, (v2, v3)),
    ]


async def divide(archive: Archive, division: Division, before: Traffic | None = None) -> Traffic:
    draft = Draft(ChangeKind.TRAFFIC_SET, PAYMENTS, None, traffic_before=before, division=division)
    traffic = (await archive.write(draft))[0].traffic_after
    assert traffic
    return traffic


# Lists


async def listed(archive: Archive, revision: int, query: RouteQuery | None = None) -> list[Route]:
    return await archive.history.list_routes_as_of(query or RouteQuery(), revision)


async def test_a_list_has_what_was_then_with_what_is_gone_and_without_what_came_later(archive: Archive) -> None:
    v1, v3 = await create(archive, V1, V3)
    changed = after((await archive.write(updated(v3, f"{URL}/new")))[0])
    await archive.write(deleted(v1))
    (v2,) = await create(archive, V2)
    (again,) = await create(archive, V1)
    await archive.write(deleted(again))
    assert [await listed(archive, revision) for revision in range(8)] == [
        [],
        [v1],
        [v1, v3],
        [v1, changed],
        [changed],
        [v2, changed],
        [again, v2, changed],
        [v2, changed],
    ]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_pages_join_without_gap_or_repeat(archive: Archive, size: int) -> None:
    keys = [RouteKey(tenant, "s", "e", version) for tenant in ("B", "a", "a-b", "Z") for version in ("v1", "V2", "v3")]
    routes = {route.key: route for route in await create(archive, *keys)}
    revision = (await archive.store.clock()).revision
    later = [RouteKey(tenant, "s", "e", f"v0{number}") for tenant in ("B", "a") for number in range(9)]
    await create(archive, *later)
    await archive.write(*(deleted(routes[key]) for key in keys[::3]))
    found: list[Route] = []
    while page := await listed(archive, revision, RouteQuery(after=found[-1].key if found else None, limit=size)):
        assert len(page) <= size
        found += page
    assert found == [routes[key] for key in sorted(keys)]


@pytest.mark.parametrize("most", [1, 3, 5000])
async def test_a_page_is_full_however_many_keys_came_since(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(as_of, "MOST_KEYS", most)
    numbers = range(30)
    then = [V1._replace(version=f"v{number:02}") for number in numbers if number in {9, 10, 20, 29}]
    routes = await create(archive, *then)
    since = [V1._replace(version=f"v{number:02}") for number in numbers if number not in {9, 10, 20, 29}]
    await create(archive, *since)
    assert await listed(archive, 4, RouteQuery(limit=3)) == routes[:3]
    assert await listed(archive, 4, RouteQuery(limit=3, after=routes[2].key)) == routes[3:]
    assert await listed(archive, 4, RouteQuery(limit=100)) == routes


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (RouteQuery("team-a"), [V1, V2, V3]),
        (RouteQuery("team-a", "payments", "prod"), [V1, V2, V3]),
        (RouteQuery(service="orders"), [ORDERS]),
        (RouteQuery(env="test"), [ORDERS]),
        (RouteQuery(active=True), [V1, V3, ORDERS]),
        (RouteQuery(active=False), [V2]),
        (RouteQuery("team-a", active=True, limit=1), [V1]),
        (RouteQuery("team-a", active=True, after=V1), [V3]),
        (RouteQuery("nobody"), []),
    ],
)
async def test_a_list_has_what_matched_then(archive: Archive, query: RouteQuery, expected: list[RouteKey]) -> None:
    v1, v3, orders = await create(archive, V1, V3, ORDERS)
    (v2,) = await create(archive, V2, active=False)
    await archive.write(Draft(ChangeKind.ACTIVATED, V2, v2, URL, active=True))
    await archive.write(Draft(ChangeKind.DEACTIVATED, V1, v1, URL, active=False), deleted(v3), deleted(orders))
    assert [route.key for route in await listed(archive, 4, query)] == expected


# Times


async def test_a_moment_is_at_the_last_revision_that_was_made_by_then(archive: Archive) -> None:
    assert await archive.history.revision_at(datetime.now(UTC)) == 0
    await create(archive, V1, V2)
    await create(archive, V3)
    first, second, third = [change.occur_time for change in await archive.changes()]
    assert first == second < third
    tick = timedelta(microseconds=1)
    moments = [first - tick, first, first + tick, third - tick, third, third + timedelta(days=1)]
    assert [await archive.history.revision_at(moment) for moment in moments] == [0, 2, 2, 2, 3, 3]


async def test_every_moment_of_a_long_history_is_found(archive: Archive) -> None:
    for number in range(23):
        await create(archive, *(V1._replace(version=f"v{number}-{each}") for each in range(number % 3 + 1)))
    changes = await archive.changes()
    for change in changes:
        last = max(each.revision for each in changes if each.occur_time <= change.occur_time)
        assert await archive.history.revision_at(change.occur_time) == last


# Compaction


async def test_what_is_compacted_cannot_be_told_and_the_rest_is_as_it_was(archive: Archive) -> None:
    (route,) = await create(archive, V1)
    for number in range(4):
        route = after((await archive.write(updated(route, f"{URL}/{number}")))[0])
    before = [await archive.load(V1, revision) for revision in range(6)]
    times = [change.occur_time for change in await archive.changes()]
    await archive.compact(3)
    assert [await archive.load(V1, revision) for revision in range(3, 6)] == before[3:]
    assert [await listed(archive, revision) for revision in range(3, 6)] == [
        [snapshot.route] for snapshot in before[3:]
    ]
    assert await archive.history.revision_at(times[3]) == 4
    for ask in (
        archive.history.load_as_of([V1], 2),
        archive.history.load_as_of([PAYMENTS], 0),
        archive.history.list_routes_as_of(RouteQuery(), 2),
        # When the compacted revision itself was made is not kept.
        archive.history.revision_at(times[3] - timedelta(microseconds=1)),
    ):
        with pytest.raises(HistoryCompacted) as refused:
            await ask
        assert refused.value.metadata["oldest_revision"] == "3"


async def test_a_history_that_is_compacted_up_to_now_tells_what_is_now(archive: Archive) -> None:
    routes = await create(archive, V1, V2)
    await archive.compact(2)
    assert await archive.history.revision_at(datetime.now(UTC) + timedelta(minutes=1)) == 2
    assert await listed(archive, 2) == routes
    (third,) = await create(archive, V3)
    assert await archive.history.revision_at(third.create_time - timedelta(microseconds=1)) == 2
    with pytest.raises(HistoryCompacted):
        await archive.history.revision_at(routes[0].create_time)


async def test_what_was_is_the_same_or_refused_while_others_write_and_compact(archive: Archive) -> None:
    routes = await create(archive, V1, V2, V3, ORDERS)
    revision = 4

    async def write() -> None:
        present = dict(enumerate(routes))
        for number in range(60):
            route = present[number % 4]
            present[number % 4] = after((await archive.write(updated(route, f"{URL}/{number}")))[0])
            if number % 10 == 9:
                await archive.compact(revision + number // 10 - 3)

    writing = asyncio.create_task(write())
    told = refused = 0
    while not writing.done() or not refused:
        try:
            found = await listed(archive, revision)
            (family,) = await archive.history.load_as_of([PAYMENTS], revision)
        except HistoryCompacted:
            refused += 1
        else:
            assert not refused, "what was refused is told again"
            assert (found, family.family.routes) == (sorted(routes, key=lambda route: route.key), tuple(routes[:3]))
            told += 1
        await asyncio.sleep(0)
    await writing
    assert told


async def test_what_is_not_yet_cannot_be_told(archive: Archive) -> None:
    await create(archive, V1, V2)
    for ask in (archive.history.load_as_of([V1, PAYMENTS], 3), archive.history.list_routes_as_of(RouteQuery(), 3)):
        with pytest.raises(RevisionInFuture) as refused:
            await ask
        assert refused.value.metadata == {"revision": "3", "last_revision": "2"}


# A plain model

ACTIONS = st.sampled_from(["create", "update", "switch", "delete", "divide", "undivide"])
SETS = st.lists(
    st.lists(st.tuples(ACTIONS, st.integers(0, 5)), min_size=1, max_size=6, unique_by=lambda step: step[1]),
    min_size=1,
    max_size=8,
)
names = itertools.count()


# The archive is shared by the examples on purpose: each has a service of its own.
@configured(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sets=SETS, compacted=st.integers(0, 100))
async def test_every_revision_is_what_a_replay_of_the_changes_says(
    archive: Archive, sets: list[list[tuple[str, int]]], compacted: int
) -> None:
    model = Model(f"s{next(names)}", (await archive.store.clock()).revision)
    for number, steps in enumerate(sets):
        drafts = {draft.key: draft for action, key in steps if (draft := model.draft(action, model.keys[key], number))}
        if drafts:
            model.replay(await archive.write(*drafts.values()))
    await model.check(archive.history)
    until = min(model.first + compacted, model.last)
    await archive.compact(until)
    model.first = (await archive.store.compacted()) or model.first
    await model.check(archive.history)
    if model.first > 0:
        with pytest.raises(HistoryCompacted):
            await archive.load(V1, model.first - 1)


class Model:
    """Replays changes of one service: the state after each revision from ``first`` on."""

    def __init__(self, service: str, revision: int) -> None:
        self.keys = [RouteKey(tenant, service, "e", version) for tenant in "ab" for version in ("v1", "v2", "v3")]
        self.service = service
        self.first = self.last = revision
        self.routes: dict[RouteKey, Route] = {}
        self.traffic: dict[RouteKey, Traffic] = {}
        self.states = {revision: (dict(self.routes), dict(self.traffic))}

    def replay(self, changes: list[Change]) -> None:
        for change in changes:
            self.last += 1
            assert change.revision == self.last
            if change.kind.of_traffic:
                put(self.traffic, change.key, change.traffic_after)
            else:
                put(self.routes, change.key, change.after)
            self.states[self.last] = (dict(self.routes), dict(self.traffic))

    def draft(self, action: str, key: RouteKey, number: int) -> Draft | None:
        """Return what ``action`` does to ``key`` as it is now; None if it cannot be done."""
        route, traffic = self.routes.get(key), self.traffic.get(key.family_key)
        if action == "create" and not route:
            return created(key, active=number % 2 == 0)
        if action == "divide":
            division = Division((Target(key.version, POINTS),), ("v1",) if number % 2 else ())
            return Draft(ChangeKind.TRAFFIC_SET, key.family_key, None, traffic_before=traffic, division=division)
        if action == "undivide" and traffic:
            return Draft(ChangeKind.TRAFFIC_DELETED, key.family_key, None, traffic_before=traffic)
        if route and action == "switch":
            kind = ChangeKind.DEACTIVATED if route.active else ChangeKind.ACTIVATED
            return Draft(kind, key, route, route.url, not route.active, route.labels)
        if route and action == "update":
            return updated(route, f"{URL}/{number}")
        return deleted(route) if route and action == "delete" else None

    async def check(self, history: RouteHistory) -> None:
        families = sorted({key.family_key for key in self.keys})
        for revision in range(self.first, self.last + 1):
            routes, traffic = self.states[revision]
            expected = [Snapshot(key, routes.get(key), revision) for key in self.keys]
            for key in families:
                versions = [route for route in routes.values() if route.key.family_key == key]
                family = Family.of(key, traffic.get(key), versions)
                expected.append(Snapshot(key, family if family.traffic or family.routes else None, revision))
            assert await history.load_as_of([*self.keys, *families], revision) == expected
            found = await history.list_routes_as_of(RouteQuery(service=self.service), revision)
            assert found == [routes[key] for key in sorted(routes)]
            query = RouteQuery(service=self.service, active=True, after=self.keys[1], limit=2)
            active = [routes[key] for key in sorted(routes) if routes[key].active and key > self.keys[1]]
            assert await history.list_routes_as_of(query, revision) == active[:2]


def put(table: dict[RouteKey, Any], key: RouteKey, value: object | None) -> None:
    table.pop(key, None)
    if value is not None:
        table[key] = value
