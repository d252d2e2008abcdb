"""The law of ``ports.RouteStore`` for traffic and families, for every implementation."""

import asyncio
import random
from dataclasses import replace

import pytest

from pointsman.selection import POINTS
from pointsman_server.adapters.postgres.replicas.store import ReplicatedStore
from pointsman_server.domain.routes import (
    MOST_UNDIVIDED,
    Change,
    ChangeKind,
    Draft,
    Family,
    Route,
    RouteKey,
    Snapshot,
    Traffic,
)
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.ports.store import (
    ChangeQuery,
    Intent,
    MutationScope,
    Outcome,
    RouteQuery,
    RouteStore,
    Step,
    StoredOutcome,
    TrafficQuery,
)
from tests.support.changes import commit_set, make_set

URL = "https://payments.internal:8443"
INTENT = Intent("alice", "the move")
V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
PAYMENTS = V1.family_key
ORDERS = RouteKey("team-a", "orders", "prod", "v1")
CANARY = Division((Target("v1", 9000), Target("v2", 1000)), ("v3",))
CUT_OVER = Division((Target("v2", POINTS),))


def created(key: RouteKey, *, active: bool = True) -> Draft:
    return Draft(ChangeKind.CREATED, key, None, URL, active, {"tier": "1"})


def divided(division: Division, before: Traffic | None = None, key: RouteKey = PAYMENTS) -> Draft:
    return Draft(ChangeKind.TRAFFIC_SET, key, None, traffic_before=before, division=division)


def undivided(before: Traffic) -> Draft:
    return Draft(ChangeKind.TRAFFIC_DELETED, before.key, None, traffic_before=before)


async def create(store: RouteStore, *keys: RouteKey, active: bool = True) -> list[Route]:
    changes = await commit_set(store, [created(key, active=active) for key in keys], INTENT)
    return [change.after for change in changes if change.after]


async def divide(
    store: RouteStore, division: Division, before: Traffic | None = None, key: RouteKey = PAYMENTS
) -> Traffic:
    (change,) = await commit_set(store, [divided(division, before, key)], INTENT)
    assert change.traffic_after
    return change.traffic_after


async def load(store: RouteStore, key: RouteKey) -> Snapshot:
    (snapshot,) = await store.load([key])
    return snapshot


async def history(store: RouteStore) -> list[Change]:
    return await store.list_changes(ChangeQuery(limit=10_000))


# Families


async def test_a_family_is_its_active_routes_in_the_order_of_their_versions(store: RouteStore) -> None:
    v3, v1 = await create(store, V3, V1)
    await create(store, V2, active=False)
    await create(store, ORDERS, RouteKey("team-a", "payments", "staging", "v1"))
    assert await load(store, PAYMENTS) == Snapshot(PAYMENTS, Family(PAYMENTS, None, (v1, v3)), 5)


async def test_a_family_with_traffic_is_the_active_routes_that_it_names(store: RouteStore) -> None:
    v1, v2, v3, _ = await create(store, V1, V2, V3, V1._replace(version="v4"))
    (switched,) = await commit_set(store, [Draft(ChangeKind.DEACTIVATED, V2, v2, URL, active=False)], INTENT)
    traffic = await divide(store, CANARY)
    assert switched.revision == 5
    assert await load(store, PAYMENTS) == Snapshot(PAYMENTS, Family(PAYMENTS, traffic, (v1, v3)), 6)


async def test_a_family_of_nothing_is_absent(store: RouteStore) -> None:
    assert await load(store, PAYMENTS) == Snapshot(PAYMENTS, None, 0)
    await create(store, V1, active=False)
    assert await load(store, PAYMENTS) == Snapshot(PAYMENTS, None, 1)
    assert (await load(store, PAYMENTS)).family == Family(PAYMENTS, None, ())


async def test_a_family_with_traffic_and_no_active_route_is_there(store: RouteStore) -> None:
    await create(store, V1, V2, V3, active=False)
    traffic = await divide(store, CANARY)
    assert await load(store, PAYMENTS) == Snapshot(PAYMENTS, Family(PAYMENTS, traffic, ()), 4)


async def test_of_a_large_family_without_traffic_the_first_routes_are_read(store: RouteStore) -> None:
    keys = [V1._replace(version=f"v{number:02}") for number in range(40)]
    await create(store, *random.Random(1).sample(keys, len(keys)))
    family = (await load(store, PAYMENTS)).family
    assert [route.key for route in family.routes] == keys[:MOST_UNDIVIDED]
    named = Division((Target("v30", POINTS),), tuple(key.version for key in keys[:20]))
    await divide(store, named)
    family = (await load(store, PAYMENTS)).family
    assert [route.key for route in family.routes] == [*keys[:20], keys[30]]


async def test_families_and_routes_are_loaded_together_in_the_order_asked(store: RouteStore) -> None:
    v1, v2, v3, orders = await create(store, V1, V2, V3, ORDERS)
    traffic = await divide(store, CANARY)
    absent = RouteKey("team-a", "nothing", "prod", "v1")
    assert await store.load([V2, PAYMENTS, absent, ORDERS.family_key, PAYMENTS, absent.family_key, V1]) == [
        Snapshot(V2, v2, 5),
        Snapshot(PAYMENTS, Family(PAYMENTS, traffic, (v1, v2, v3)), 5),
        Snapshot(absent, None, 5),
        Snapshot(ORDERS.family_key, Family(ORDERS.family_key, None, (orders,)), 5),
        Snapshot(PAYMENTS, Family(PAYMENTS, traffic, (v1, v2, v3)), 5),
        Snapshot(absent.family_key, None, 5),
        Snapshot(V1, v1, 5),
    ]
    assert {snapshot.epoch for snapshot in await store.load([V1, PAYMENTS])} == {(await store.clock()).epoch}


async def test_all_of_a_load_is_of_one_moment_while_others_write(store: RouteStore) -> None:
    """A route and its traffic change together, always: a load that sees them differ mixed two moments."""
    v1, _, _ = await create(store, V1, V2, V3)
    traffic = await divide(store, CANARY)

    async def write() -> None:
        nonlocal v1, traffic
        for number in range(1, 41):
            division = Division((Target("v1", POINTS - number), Target("v2", number)))
            update = Draft(ChangeKind.UPDATED, V1, v1, f"{URL}/{number}", True, {})
            first, second = await commit_set(store, [update, divided(division, traffic)], INTENT)
            v1, traffic = first.after or v1, second.traffic_after or traffic
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    while not writing.done():
        family, route, other = await store.load([PAYMENTS, V1, ORDERS])
        assert family.as_of == route.as_of == other.as_of == family.family.revision
        assert route.route in family.family.routes
        division = family.family.traffic and family.family.traffic.division
        assert route.route
        assert route.route.url == (URL if division == CANARY else f"{URL}/{division and division.targets[1].weight}")
        await asyncio.sleep(0)
    await writing


async def test_no_read_of_a_family_is_older_than_its_call(store: RouteStore) -> None:
    await create(store, V1, V2, V3)
    traffic = None
    for number in range(10):
        traffic = await divide(store, (CANARY, CUT_OVER)[number % 2], traffic)
        assert (await load(store, PAYMENTS)).family.traffic == traffic
        assert await store.list_traffic(TrafficQuery()) == [traffic]
        (change,) = await commit_set(
            store, [Draft(ChangeKind.UPDATED, V2, (await load(store, V2)).route, f"{URL}/{number}", True)], INTENT
        )
        assert change.after in (await load(store, PAYMENTS)).family.routes
        async with store.scan(RouteQuery()) as table:
            assert table.traffic == [traffic]
    if isinstance(store, ReplicatedStore):
        assert not store.replicas[0].refused


# Transactions


async def test_traffic_is_set_changed_and_deleted_under_the_clock_of_routes(store: RouteStore) -> None:
    await create(store, V1, V2, V3)
    first = await divide(store, CANARY)
    second = await divide(store, CUT_OVER, first)
    assert (first.revision, second.revision) == (4, 5)
    assert first.create_time == second.create_time == first.update_time < second.update_time
    assert (await load(store, PAYMENTS)).family.traffic == second
    (deleted,) = await commit_set(store, [undivided(second)], INTENT)
    assert (await load(store, PAYMENTS)).family.traffic is None
    changes = (await history(store))[3:]
    assert [(change.kind, change.key, change.revision) for change in changes] == [
        (ChangeKind.TRAFFIC_SET, PAYMENTS, 4),
        (ChangeKind.TRAFFIC_SET, PAYMENTS, 5),
        (ChangeKind.TRAFFIC_DELETED, PAYMENTS, 6),
    ]
    assert [(change.traffic_before, change.traffic_after) for change in changes] == [
        (None, first),
        (first, second),
        (second, None),
    ]
    assert {change.before for change in changes} == {change.after for change in changes} == {None}
    assert changes[-1] == deleted
    assert await divide(store, CANARY) == (await load(store, PAYMENTS)).family.traffic


async def test_of_several_changes_of_traffic_in_one_transaction_the_last_one_says_what_is(store: RouteStore) -> None:
    others = [RouteKey("team-a", service, "prod", "") for service in ("orders", "search")]
    await create(store, V1, V2, V3)
    async with store.begin() as transaction:
        locked = await transaction.lock([MutationScope(PAYMENTS, INTENT, family=True)])
        first, brief, kept = make_set(
            locked, [divided(CANARY), divided(CUT_OVER, key=others[0]), divided(CANARY, key=others[1])], INTENT
        )
        assert brief.traffic_after
        assert first.traffic_after
        later = replace(locked, clock=replace(locked.clock, revision=6))
        second, gone = make_set(later, [divided(CUT_OVER, first.traffic_after), undivided(brief.traffic_after)], INTENT)
        await transaction.record([first, brief, kept, second, gone], [])
    assert await store.list_traffic(TrafficQuery()) == [second.traffic_after, kept.traffic_after]
    assert (await history(store))[3:] == [first, brief, kept, second, gone]


async def test_traffic_and_routes_of_a_transaction_become_visible_at_once(store: RouteStore) -> None:
    async with store.begin() as transaction:
        locked = await transaction.lock([MutationScope(PAYMENTS, INTENT, family=True)])
        drafts = [created(V1), created(V2), created(V3), divided(CANARY)]
        await transaction.record(make_set(locked, drafts, INTENT), [])
        assert await load(store, PAYMENTS) == Snapshot(PAYMENTS, None, 0)
    found = await load(store, PAYMENTS)
    assert found.as_of == 4
    assert [route.key for route in found.family.routes] == [V1, V2, V3]
    assert found.family.traffic
    assert found.family.traffic.division == CANARY


async def test_lock_shows_the_traffic_of_whole_families_alone(store: RouteStore) -> None:
    v1, v2, _, orders = await create(store, V1, V2, V3, ORDERS)
    traffic = await divide(store, CANARY)
    await divide(store, Division((Target("v1", POINTS),)), key=ORDERS.family_key)
    async with store.begin() as transaction:
        locked = await transaction.lock([MutationScope(V1, INTENT), MutationScope(ORDERS, INTENT)])
    assert (sorted(locked.routes, key=by_key), list(locked.traffic)) == ([orders, v1], [])
    async with store.begin() as transaction:
        locked = await transaction.lock([MutationScope(V1, INTENT, family=True), MutationScope(ORDERS, INTENT)])
    assert list(locked.traffic) == [traffic]
    assert {route.key for route in locked.routes} == {V1, V2, V3, ORDERS}
    async with store.begin() as transaction:
        locked = await transaction.lock([MutationScope(PAYMENTS, INTENT, family=True)])
    assert list(locked.traffic) == [traffic]
    assert sorted(locked.routes, key=by_key)[:2] == [v1, v2]


async def test_lock_shows_the_traffic_of_a_family_without_its_routes(store: RouteStore) -> None:
    v1, _, _, _ = await create(store, V1, V2, V3, ORDERS)
    traffic = await divide(store, CANARY)
    async with store.begin() as transaction:
        locked = await transaction.lock([MutationScope(V1, INTENT, divided=(PAYMENTS, ORDERS.family_key))])
    assert (list(locked.routes), list(locked.traffic)) == ([v1], [traffic])
    async with store.begin() as transaction:
        locked = await transaction.lock([MutationScope(PAYMENTS, INTENT, divided=(PAYMENTS,))])
    assert (list(locked.routes), list(locked.traffic)) == ([], [traffic])
    async with store.begin() as transaction:
        scopes = [MutationScope(ORDERS, INTENT, divided=(PAYMENTS,)), MutationScope(V1, INTENT, family=True)]
        locked = await transaction.lock(scopes)
    assert (len(locked.routes), list(locked.traffic)) == (4, [traffic])


async def test_lock_shows_the_others_of_a_commit(store: RouteStore) -> None:
    v1, _, _, orders = await create(store, V1, V2, V3, ORDERS)
    traffic = await divide(store, CANARY)
    elsewhere = RouteKey("team-b", "payments", "prod", "v1")
    async with store.begin() as transaction:
        locked = await transaction.lock([MutationScope(elsewhere, INTENT, others=(elsewhere, V1, ORDERS, V1))])
    assert sorted(locked.routes, key=by_key) == [orders, v1]
    assert list(locked.traffic) == []
    async with store.begin() as transaction:
        locked = await transaction.lock([MutationScope(ORDERS, INTENT, others=(V1, PAYMENTS, ORDERS))])
    assert {route.key for route in locked.routes} == {V1, V2, V3, ORDERS}
    assert len(locked.routes) == 4
    assert list(locked.traffic) == [traffic]
    async with store.begin() as transaction:
        locked = await transaction.lock([MutationScope(elsewhere.family_key, INTENT)])
    assert (list(locked.routes), list(locked.traffic)) == ([], [])


async def test_each_change_says_which_set_it_belongs_to(store: RouteStore) -> None:
    await commit_set(store, [created(V1)], INTENT)
    await commit_set(store, [created(V2), created(V3), divided(CANARY)], INTENT)
    sets = [(change.change_set_id, change.change_set_size, change.change_set_end) for change in await history(store)]
    assert sets == [(1, 1, 1), (2, 3, 4), (2, 3, 4), (2, 3, 4)]


# Outcomes


async def test_outcomes_of_traffic_and_of_commits_come_back_as_they_were(store: RouteStore) -> None:
    await create(store, V1, V2, V3)
    traffic = await divide(store, CANARY)
    outcomes = {
        "traffic": Outcome(None, 4, traffic=traffic),
        "gone": Outcome(None, 5),
        "commit": Outcome(None, 9, steps=(Step(7, 2), Step(0, 0), Step(9, 1)), change_set_id=7, change_count=3),
        "idle": Outcome(None, 6, steps=(Step(0, 0),)),
    }
    intents = {name: Intent("alice", request_id=name, fingerprint=b"body") for name in outcomes}
    stored = [StoredOutcome("team-a", name, b"body", outcome) for name, outcome in outcomes.items()]
    async with store.begin() as transaction:
        await transaction.lock([MutationScope(PAYMENTS, intents["traffic"], family=True)])
        await transaction.record([], stored)
    async with store.begin() as transaction:
        locked = await transaction.lock([MutationScope(PAYMENTS, intent, family=True) for intent in intents.values()])
    assert list(locked.remembered) == stored


# Lists


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_traffic_is_listed_in_the_order_of_code_points_by_pages(store: RouteStore, size: int) -> None:
    parts = ["a", "B", "a-b", "a.b", "Z", "10", "2"]
    keys = [RouteKey(tenant, service, "prod", "") for tenant in parts for service in ("s", "T")]
    for key in random.Random(1).sample(keys, len(keys)):
        await divide(store, CANARY, key=key)
    listed: list[RouteKey] = []
    while page := await store.list_traffic(TrafficQuery(after=listed[-1] if listed else None, limit=size)):
        assert len(page) <= size
        listed += [traffic.key for traffic in page]
    assert listed == sorted(keys, key=lambda key: [part.encode() for part in key])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (TrafficQuery(), {0, 1, 2, 3}),
        (TrafficQuery(tenant="a"), {0, 1, 2}),
        (TrafficQuery(tenant="a", service="s"), {0, 1}),
        (TrafficQuery(env="f"), {1}),
        (TrafficQuery(service="s", env="e"), {0, 3}),
        (TrafficQuery(tenant="%"), set()),
    ],
)
async def test_traffic_is_listed_that_matches_every_part_that_is_set(
    store: RouteStore, query: TrafficQuery, expected: set[int]
) -> None:
    keys = [RouteKey(*parts, "") for parts in (("a", "s", "e"), ("a", "s", "f"), ("a", "t", "e"), ("b", "s", "e"))]
    all_traffic = [await divide(store, CANARY, key=key) for key in keys]
    assert await store.list_traffic(query) == [all_traffic[number] for number in sorted(expected)]
    async with store.scan(RouteQuery(query.tenant, query.service, query.env)) as table:
        assert list(table.traffic) == [all_traffic[number] for number in sorted(expected)]
        assert table.clock == await store.clock()


async def test_a_scan_has_the_traffic_of_its_own_moment(store: RouteStore) -> None:
    await create(store, V1, V2, V3)
    traffic = await divide(store, CANARY)
    async with store.scan(RouteQuery(limit=1)) as table:
        batches = aiter(table.batches)
        await anext(batches)
        await divide(store, CUT_OVER, traffic)
        assert [len(batch) async for batch in batches] == [1, 1]
    assert (list(table.traffic), table.clock.revision) == ([traffic], 4)


async def test_changes_of_traffic_are_listed_as_those_of_routes_are(store: RouteStore) -> None:
    await create(store, V1, V2, V3)
    await divide(store, CANARY)
    found = await store.list_changes(ChangeQuery(tenant="team-a", service="payments", env="prod", after_revision=2))
    assert [change.kind for change in found] == [ChangeKind.CREATED, ChangeKind.TRAFFIC_SET]
    assert [change.kind for change in await store.list_changes(ChangeQuery(version="v1"))] == [ChangeKind.CREATED]


def by_key(route: Route) -> RouteKey:
    return route.key
