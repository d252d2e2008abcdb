"""The law of ``ports.RouteStore`` and ``ports.RouteTransaction``, for every implementation."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.errors import PointsmanError, RequestIdReused
from pointsman_server.domain.routes import Change, ChangeKind, Draft, Route, RouteKey, Snapshot
from pointsman_server.ports.store import (
    ChangeQuery,
    Clock,
    Intent,
    LockedState,
    MutationScope,
    Outcome,
    RouteQuery,
    RouteStore,
    StoredOutcome,
)
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.ledger import Ledger
from pointsman_server.writes.mutations import Activate, Create, Deactivate, Delete, Update
from tests.support import changes as support
from tests.support.fakes import MemoryCache, MemoryStore

URL = "https://payments.internal:8443"
INTENT = Intent("alice")
V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
ORDERS = RouteKey("team-a", "orders", "prod", "v1")
ABSENT = RouteKey("team-a", "nothing", "prod", "v1")


class Rollback(Exception):
    """What a test raises to leave a transaction."""


async def record(store: RouteStore, *drafts: Draft, intent: Intent = INTENT) -> list[Change]:
    return await support.commit(store, drafts, intent)


async def test_no_read_is_older_than_its_call(store: RouteStore) -> None:
    for number in range(20):
        route = await create(store, RouteKey("team-a", "payments", "prod", f"n{number}"))
        (snapshot,) = await store.load([route.key])
        assert (snapshot.route, snapshot.as_of) == (route, route.revision)
        assert route in await store.list_routes(RouteQuery())
        async with store.scan(RouteQuery()) as table:
            assert table.clock.revision == route.revision
            assert route in [each async for batch in table.batches for each in batch]


def asking(*keys: RouteKey, intent: Intent = INTENT, family: bool = False) -> list[MutationScope]:
    return [MutationScope(key, intent, family) for key in keys]


async def create(store: RouteStore, key: RouteKey, *, active: bool = True, intent: Intent = INTENT) -> Route:
    (change,) = await record(store, Draft(ChangeKind.CREATED, key, None, URL, active, {}), intent=intent)
    assert change.after
    return change.after


async def delete(store: RouteStore, route: Route) -> Change:
    (change,) = await record(store, Draft(ChangeKind.DELETED, route.key, route))
    return change


async def load(store: RouteStore, key: RouteKey) -> Snapshot:
    (snapshot,) = await store.load([key])
    return snapshot


async def history(store: RouteStore) -> list[Change]:
    return await store.list_changes(ChangeQuery(limit=10_000))


# Loads


async def test_a_new_store_is_at_revision_0_and_has_an_epoch(store: RouteStore) -> None:
    clock = await store.clock()
    assert clock.revision == 0
    assert clock.epoch
    (found,) = await store.load([V1])
    assert (found, found.epoch) == (Snapshot(V1, None, 0), clock.epoch)


async def test_a_load_answers_one_snapshot_a_key_in_the_order_asked(store: RouteStore) -> None:
    routes = {key: await create(store, key) for key in (V1, V2, ORDERS)}
    asked = [ORDERS, ABSENT, V2, V1]
    assert await store.load(asked) == [Snapshot(key, routes.get(key), 3) for key in asked]


async def test_a_load_of_nothing_is_nothing(store: RouteStore) -> None:
    assert await store.load([]) == []


async def test_a_load_answers_a_key_that_is_asked_twice_twice(store: RouteStore) -> None:
    route = await create(store, V1)
    assert await store.load([V1, V1]) == [Snapshot(V1, route, 1)] * 2


async def test_as_of_counts_the_changes_of_other_keys_too(store: RouteStore) -> None:
    route = await create(store, V1)
    await create(store, ORDERS)
    assert await load(store, V1) == Snapshot(V1, route, 2)
    assert (await load(store, ABSENT)).as_of == 2


async def test_all_of_a_load_is_of_one_moment_while_others_write(store: RouteStore) -> None:
    """Two routes change together, always: a load that sees them differ mixed two moments."""
    first, second = await create(store, V1), await create(store, V2)

    async def write() -> None:
        nonlocal first, second
        for number in range(40):
            both = [Draft(ChangeKind.UPDATED, r.key, r, f"{URL}/{number}", r.active, {}) for r in (first, second)]
            changes = await record(store, *both)
            first, second = (change.after or first for change in changes)
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    while not writing.done():
        one, other = await store.load([V1, V2])
        assert one.as_of == other.as_of
        assert one.route
        assert other.route
        assert one.route.url == other.route.url
        assert one.as_of == other.route.revision == one.route.revision + 1
        await asyncio.sleep(0)
    await writing


# Transactions


async def test_what_a_transaction_records_is_invisible_until_it_commits_and_then_all_there(store: RouteStore) -> None:
    async with store.begin() as transaction:
        drafts = [Draft(ChangeKind.CREATED, key, None, URL, active=True) for key in (V1, V2)]
        changes = await support.record(transaction, drafts, INTENT)
        assert [snapshot.route for snapshot in await store.load([V1, V2])] == [None, None]
        assert await history(store) == []
        assert (await store.clock()).revision == 0
    assert [snapshot.route for snapshot in await store.load([V1, V2])] == [change.after for change in changes]
    assert await history(store) == changes
    assert (await store.clock()).revision == 2


async def test_a_rollback_leaves_nothing_and_consumes_no_revision(store: RouteStore) -> None:
    intent = Intent("alice", request_id="one", fingerprint=b"1")

    async def write() -> None:
        async with store.begin() as transaction:
            ledger = Ledger(await transaction.lock(asking(V1, intent=intent)))
            (change,) = ledger.apply([Draft(ChangeKind.CREATED, V1, None, URL, active=True)], intent)
            await transaction.record([change], [remembered(V1, intent, Outcome(change.after, change.revision))])
            raise Rollback

    with pytest.raises(Rollback):
        await write()
    assert await load(store, V1) == Snapshot(V1, None, 0)
    assert await history(store) == []
    assert (await store.clock()).revision == 0
    assert await replay(store, V1, intent) is None
    assert (await create(store, V2)).revision == 1


async def test_a_cancelled_transaction_leaves_nothing(store: RouteStore) -> None:
    recorded = asyncio.Event()

    async def write() -> None:
        async with store.begin() as transaction:
            await support.record(transaction, [Draft(ChangeKind.CREATED, V1, None, URL, active=True)], INTENT)
            recorded.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(write())
    await recorded.wait()
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
    assert (await create(store, V1)).revision == 1


async def test_lock_shows_what_is_asked_for_and_a_clock_as_of_which_it_is_true(store: RouteStore) -> None:
    routes = {key: await create(store, key) for key in (V3, V1, V2, ORDERS)}
    elsewhere = [RouteKey("team-a", "payments", "staging", "v1"), RouteKey("team-b", "payments", "prod", "v1")]
    for key in elsewhere:
        await create(store, key)
    begun = datetime.now(UTC)
    async with store.begin() as transaction:
        locked = await transaction.lock(
            [MutationScope(ORDERS, INTENT), MutationScope(V2, INTENT), MutationScope(ABSENT, INTENT)]
        )
    assert {route.key: route for route in locked.routes} == {key: routes[key] for key in (V2, ORDERS)}
    assert locked.clock == Clock((await store.clock()).epoch, 6)
    assert begun - timedelta(minutes=1) < locked.moment < begun + timedelta(minutes=1)
    assert list(locked.remembered) == [None] * 3


async def test_lock_shows_whole_families_where_they_are_asked_for_and_each_route_once(store: RouteStore) -> None:
    routes = {key: await create(store, key) for key in (V3, V1, V2, ORDERS)}
    await create(store, RouteKey("team-a", "payments", "staging", "v1"))
    async with store.begin() as transaction:
        locked = await transaction.lock([*asking(V1, V2, ABSENT, family=True), MutationScope(V1, INTENT)])
    assert sorted(locked.routes, key=lambda route: route.key) == [routes[V1], routes[V2], routes[V3]]


async def test_lock_waits_for_other_writers_and_then_sees_what_they_committed(store: RouteStore) -> None:
    """Also when the route did not exist before, and whatever the two write."""
    async with store.begin() as transaction:
        locked = await transaction.lock(asking(V1))
        second, third = (asyncio.create_task(lock(store, key)) for key in (V1, ORDERS))
        await store.load([V1])  # the others have had every chance to get the lock
        assert not any(task.done() for task in (second, third))
        changes = Ledger(locked).apply([Draft(ChangeKind.CREATED, V1, None, URL, active=True)], INTENT)
        await transaction.record(changes, [])
    async with asyncio.timeout(30):
        seen, other = await second, await third
    assert ([route.key for route in seen.routes], seen.clock.revision) == ([V1], 1)
    assert other.clock.revision == 1
    assert min(seen.moment, other.moment) > locked.moment


async def lock(store: RouteStore, *keys: RouteKey) -> LockedState:
    async with store.begin() as transaction:
        return await transaction.lock(asking(*keys))


async def test_who_records_nothing_lets_the_next_one_write(store: RouteStore) -> None:
    await lock(store, V1)
    async with asyncio.timeout(30):
        assert (await create(store, V1)).revision == 1


async def test_a_key_may_change_several_times_in_one_transaction(store: RouteStore) -> None:
    """Its last change says what is: also of a route that was there, and comes back with another time of birth."""
    old = await create(store, V1)
    async with store.begin() as transaction:
        ledger = Ledger(await transaction.lock(asking(V1, V2, V3)))
        ledger.apply([Draft(ChangeKind.DELETED, V1, old)], INTENT)
        (again,) = ledger.apply([Draft(ChangeKind.CREATED, V1, None, URL + "/new", active=True)], INTENT)
        (brief,) = ledger.apply([Draft(ChangeKind.CREATED, V2, None, URL)], INTENT)
        ledger.apply([Draft(ChangeKind.DELETED, V2, brief.after)], INTENT)
        (first,) = ledger.apply([Draft(ChangeKind.CREATED, V3, None, URL)], INTENT)
        (last,) = ledger.apply([Draft(ChangeKind.ACTIVATED, V3, first.after, URL, active=True)], INTENT)
        await transaction.record(ledger.changes, [])
    assert await store.load([V1, V2, V3]) == [
        Snapshot(V1, again.after, 7),
        Snapshot(V2, None, 7),
        Snapshot(V3, last.after, 7),
    ]
    assert again.after
    assert again.after.create_time > old.create_time
    assert (await history(store))[1:] == ledger.changes
    await _check_that_history_adds_up(store)


async def test_each_change_of_a_transaction_keeps_who_made_it_and_why(store: RouteStore) -> None:
    intents = [Intent("alice", "one", "id-1", b"1", "trace-1"), Intent("bob", "two", "id-2", b"2", "trace-2")]
    async with store.begin() as transaction:
        ledger = Ledger(await transaction.lock(asking(V1, V2)))
        for key, intent in zip((V1, V2), intents, strict=True):
            ledger.apply([Draft(ChangeKind.CREATED, key, None, URL)], intent)
        await transaction.record(ledger.changes, [])
    kept = [(c.actor, c.reason, c.request_id, c.traceparent) for c in await history(store)]
    assert kept == [("alice", "one", "id-1", "trace-1"), ("bob", "two", "id-2", "trace-2")]


# Revisions


async def test_a_change_has_before_and_after_and_the_route_is_after(store: RouteStore) -> None:
    created = await create(store, V1)
    labels = {"tier": "gold"}
    (updated,) = await record(store, Draft(ChangeKind.UPDATED, V1, created, URL + "/new", active=True, labels=labels))
    assert updated.after
    (switched,) = await record(
        store, Draft(ChangeKind.DEACTIVATED, V1, updated.after, URL + "/new", active=False, labels=labels)
    )
    assert switched.after
    assert await load(store, V1) == Snapshot(V1, switched.after, 3)
    deleted = await delete(store, switched.after)

    changes = await history(store)
    assert changes[1:] == [updated, switched, deleted]
    assert [change.kind for change in changes] == ["CREATED", "UPDATED", "DEACTIVATED", "DELETED"]
    assert [change.before for change in changes] == [None, created, updated.after, switched.after]
    assert [change.after for change in changes] == [created, updated.after, switched.after, None]
    assert (updated.after.url, updated.after.labels, updated.after.active) == (URL + "/new", labels, True)
    assert not switched.after.active
    assert await load(store, V1) == Snapshot(V1, None, 4)


async def test_a_change_keeps_who_why_and_how_it_came(store: RouteStore) -> None:
    intent = Intent(
        "alice", "because", "id-1", b"digest", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "v=1"
    )
    await create(store, V1, intent=intent)
    (change,) = await history(store)
    assert (change.actor, change.reason, change.request_id) == ("alice", "because", "id-1")
    assert (change.traceparent, change.tracestate) == (intent.traceparent, intent.tracestate)
    assert change.epoch == (await store.clock()).epoch


async def test_every_change_has_an_event_id_of_its_own(store: RouteStore) -> None:
    drafts = [Draft(ChangeKind.CREATED, key, None, URL) for key in (V1, V2, V3)]
    await record(store, *drafts)
    assert len({change.event_id for change in await history(store)}) == 3


async def test_drafts_get_consecutive_revisions_in_their_order(store: RouteStore) -> None:
    await create(store, ORDERS)
    changes = await record(store, *(Draft(ChangeKind.CREATED, key, None, URL) for key in (V3, V1, V2)))
    assert [(change.revision, change.key) for change in changes] == [(2, V3), (3, V1), (4, V2)]


async def test_revisions_of_a_key_increase_across_delete_and_recreate(store: RouteStore) -> None:
    first = await create(store, V1)
    gone = await delete(store, first)
    second = await create(store, V1)
    assert first.revision < gone.revision < second.revision
    assert second.create_time > first.create_time
    assert (await load(store, V1)).route == second


async def test_create_time_stays_and_update_time_moves(store: RouteStore) -> None:
    created = await create(store, V1)
    (change,) = await record(store, Draft(ChangeKind.UPDATED, V1, created, URL + "/new", active=True))
    assert change.after
    assert change.after.create_time == created.create_time == created.update_time
    assert change.after.update_time == change.occur_time > created.update_time


async def test_times_are_now_aware_and_in_utc(store: RouteStore) -> None:
    begun = datetime.now(UTC)
    await create(store, V1)
    (change,) = await history(store)
    route = (await load(store, V1)).route
    assert route
    for moment in (route.create_time, route.update_time, change.occur_time):
        assert moment.tzinfo is UTC
        assert begun - timedelta(minutes=1) < moment < begun + timedelta(minutes=1)


LABELS = {
    "": "empty name",
    "naïve": "Ω≈ç√",
    "emoji": "🚂🛤️",
    "quote": "'\"\\%s $1 {}",
    "null": "null",
    "long": "x" * 5000,
}


async def test_text_comes_back_as_it_went_in(store: RouteStore) -> None:
    url, intent = "https://пример.example/ü?q='%s\"", Intent("alice 🚂", "weil's \\ so ist %s", "id")
    (change,) = await record(store, Draft(ChangeKind.CREATED, V1, None, url, True, LABELS), intent=intent)
    assert change.after
    assert (change.after.url, change.after.labels) == (url, LABELS)
    assert (await load(store, V1)).route == change.after
    assert await history(store) == [change]
    assert (change.actor, change.reason) == (intent.actor, intent.reason)
    gone = await delete(store, change.after)
    assert gone.before == change.after


async def test_keys_that_differ_only_in_case_are_different(store: RouteStore) -> None:
    lower, upper = RouteKey("a", "b", "c", "v1"), RouteKey("A", "b", "c", "v1")
    route = await create(store, lower)
    assert await store.load([upper, lower]) == [Snapshot(upper, None, 1), Snapshot(lower, route, 1)]


async def test_an_exclusive_activation_is_consecutive_revisions_the_activation_first(store: RouteStore) -> None:
    committer = GroupCommitter(store, MemoryCache(), lambda _: None)
    for key, active in ((V1, True), (V2, False), (V3, True)):
        await create(store, key, active=active)
    await create(store, ORDERS)
    outcome = await committer.activate(Activate(V2, exclusive=True), INTENT)
    changes = (await history(store))[4:]
    assert [(change.revision, change.kind, change.key) for change in changes] == [
        (5, ChangeKind.ACTIVATED, V2),
        (6, ChangeKind.DEACTIVATED, V1),
        (7, ChangeKind.DEACTIVATED, V3),
    ]
    assert outcome == Outcome(changes[0].after, 7)
    live = await store.list_routes(RouteQuery(active=True))
    assert [route.key for route in live] == [ORDERS, V2]


async def test_no_reader_sees_none_or_two_active_while_activation_moves(store: RouteStore) -> None:
    committer = GroupCommitter(store, MemoryCache(), lambda _: None)
    for key in (V1, V2, V3):
        await create(store, key, active=key is V1)

    async def move() -> None:
        for number in range(30):
            await committer.activate(Activate((V1, V2, V3)[number % 3], exclusive=True), INTENT)
            await asyncio.sleep(0)

    moving = asyncio.create_task(move())
    while not moving.done():
        snapshots = await store.load([V1, V2, V3])
        assert sum(bool(snapshot.route and snapshot.route.active) for snapshot in snapshots) == 1
        await asyncio.sleep(0)
    await moving


async def test_commit_order_is_revision_order_without_gaps_under_concurrent_writers(store: RouteStore) -> None:
    """Eight writers in shared and own families, some of which give up; a reader polls as the relay does."""
    seen: list[int] = []

    async def write(writer: int) -> None:
        chance = random.Random(writer)
        for _ in range(40):
            await _mutate(store, writer, chance)

    async def poll() -> None:
        # What a reader of ``revision > last`` never gets any more is lost to it: so every poll must go on where it was.
        after = seen[-1] if seen else 0
        seen.extend(
            change.revision for change in await store.list_changes(ChangeQuery(after_revision=after, limit=999))
        )

    writing = asyncio.gather(*(write(writer) for writer in range(8)))
    while not writing.done():
        await poll()
        await asyncio.sleep(0)
    await writing
    await poll()
    assert len(seen) > 100
    assert seen == list(range(1, (await store.clock()).revision + 1))
    assert seen == [change.revision for change in await history(store)]
    await _check_that_history_adds_up(store)


async def _mutate(store: RouteStore, writer: int, chance: random.Random) -> None:
    """Do one thing to a random key; every seventh time or so, roll it back."""
    service = chance.choice(["shared", f"own-{writer}"])
    key = RouteKey("team-a", service, "prod", chance.choice(["v1", "v2", "v3"]))
    url = f"{URL}/{chance.random()}"
    if chance.random() > 0.15:
        await _one_of(GroupCommitter(store, MemoryCache(), lambda _: None), key, url, chance)
        return
    with suppress(Rollback):
        async with store.begin() as transaction:
            ledger = Ledger(await transaction.lock(asking(key)))
            route = ledger.see(key).route
            kind = ChangeKind.UPDATED if route else ChangeKind.CREATED
            await transaction.record(ledger.apply([Draft(kind, key, route, url)], INTENT), [])
            raise Rollback


async def _one_of(committer: GroupCommitter, key: RouteKey, url: str, chance: random.Random) -> None:
    choice = chance.randrange(5)
    with suppress(PointsmanError):
        if choice == 0:
            await committer.create(Create(key, url, {}), INTENT)
        elif choice == 1:
            await committer.update(Update(key, url, allow_missing=True), INTENT)
        elif choice == 2:
            await committer.activate(Activate(key, exclusive=True), INTENT)
        elif choice == 3:
            await committer.deactivate(Deactivate(key), INTENT)
        else:
            await committer.delete(Delete(key), INTENT)


async def _check_that_history_adds_up(store: RouteStore) -> None:
    """Each change begins where the last one of its key ended, and the end of history is what is."""
    state: dict[RouteKey, Route | None] = {}
    for change in await history(store):
        assert change.before == state.get(change.key)
        assert change.after is None or change.after.revision == change.revision
        state[change.key] = change.after
    routes = await store.list_routes(RouteQuery(limit=1000))
    assert {route.key: route for route in routes} == {key: route for key, route in state.items() if route}


# Replay


def asked(fingerprint: bytes = b"body", request_id: str = "id-1") -> Intent:
    return Intent("alice", request_id=request_id, fingerprint=fingerprint)


def remembered(key: RouteKey, intent: Intent, outcome: Outcome) -> StoredOutcome:
    return StoredOutcome(key.tenant, intent.request_id, intent.fingerprint, outcome)


async def remember(store: RouteStore, key: RouteKey, intent: Intent, outcome: Outcome) -> None:
    async with store.begin() as transaction:
        await transaction.lock(asking(key, intent=intent))
        await transaction.record([], [remembered(key, intent, outcome)])


async def replay(store: RouteStore, key: RouteKey, intent: Intent) -> StoredOutcome | None:
    async with store.begin() as transaction:
        (found,) = (await transaction.lock(asking(key, intent=intent))).remembered
    return found


async def test_a_remembered_outcome_comes_back_as_it_was(store: RouteStore) -> None:
    route = await create(store, V1)
    outcome = Outcome(route, 17)
    await remember(store, V1, asked(), outcome)
    await delete(store, route)
    assert await replay(store, V1, asked()) == StoredOutcome("team-a", "id-1", b"body", outcome)


async def test_the_outcome_of_a_delete_is_remembered_too(store: RouteStore) -> None:
    await remember(store, V1, asked(), Outcome(None, 17))
    assert await replay(store, V1, asked()) == remembered(V1, asked(), Outcome(None, 17))


async def test_without_a_request_id_nothing_is_known(store: RouteStore) -> None:
    await remember(store, V1, asked(), Outcome(None, 17))
    assert await replay(store, V1, asked(request_id="")) is None


async def test_a_request_id_belongs_to_its_tenant(store: RouteStore) -> None:
    elsewhere = RouteKey("team-b", "payments", "prod", "v1")
    await remember(store, V1, asked(), Outcome(None, 1))
    assert await replay(store, elsewhere, asked(b"other")) is None
    await remember(store, elsewhere, asked(b"other"), Outcome(None, 2))
    assert await replay(store, elsewhere, asked(b"other")) == remembered(elsewhere, asked(b"other"), Outcome(None, 2))
    assert await replay(store, V1, asked()) == remembered(V1, asked(), Outcome(None, 1))


async def test_what_requests_are_known_for_comes_in_the_order_asked(store: RouteStore) -> None:
    one, two, none = asked(request_id="one"), asked(b"2", request_id="two"), asked(request_id="none")
    await remember(store, V1, two, Outcome(None, 2))
    await remember(store, ORDERS, one, Outcome(None, 1))
    async with store.begin() as transaction:
        wanted = [
            MutationScope(V1, none),
            MutationScope(V1, two),
            MutationScope(V2, INTENT),
            MutationScope(ORDERS, one),
            MutationScope(V1, two),
        ]
        known = (await transaction.lock(wanted)).remembered
    assert [found and found.outcome.revision for found in known] == [None, 2, None, 1, 2]


@pytest.mark.parametrize("key", [V1, V2, ORDERS], ids=["same key", "same family", "other family"])
async def test_a_request_id_that_is_known_with_another_fingerprint_is_refused(store: RouteStore, key: RouteKey) -> None:
    committer = GroupCommitter(store, MemoryCache(), lambda _: None)
    await committer.create(Create(V1, URL, {}), asked())
    with pytest.raises(RequestIdReused):
        await committer.create(Create(key, URL, {}), asked(b"other body"))
    assert len(await history(store)) == 1


@pytest.mark.parametrize("key", [V1, V2, ORDERS], ids=["same key", "same family", "other family"])
async def test_of_two_servers_with_one_id_at_once_one_is_refused_and_leaves_nothing(
    store: RouteStore, key: RouteKey
) -> None:
    servers = [GroupCommitter(store, MemoryCache(), lambda _: None) for _ in range(2)]
    bodies = zip(servers, (V1, key), (b"one", b"other"), strict=True)
    results = await asyncio.gather(
        *(committer.create(Create(target, URL, {}), asked(body)) for committer, target, body in bodies),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["Outcome", "RequestIdReused"]
    assert len(await history(store)) == (await store.clock()).revision == 1


async def test_of_concurrent_equal_requests_at_two_servers_all_have_the_first_answer(store: RouteStore) -> None:
    servers = [GroupCommitter(store, MemoryCache(), lambda _: None) for _ in range(2)]
    outcomes = await asyncio.gather(*(servers[n % 2].create(Create(V1, URL, {}), asked()) for n in range(6)))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert [change.revision for change in await history(store)] == [1]


# Groups


async def test_a_group_of_five_hundred_is_one_transaction_with_a_revision_for_each(store: RouteStore) -> None:
    committer = GroupCommitter(store, MemoryCache(), lambda _: None)
    keys = [RouteKey("team-a", f"s{number % 7}", "prod", f"v{number}") for number in range(500)]
    outcomes = await asyncio.gather(*(committer.create(Create(key, URL, LABELS), INTENT) for key in keys))
    assert [outcome.revision for outcome in outcomes] == list(range(1, 501))
    assert [(change.revision, change.key) for change in await history(store)] == list(enumerate(keys, 1))
    assert len({change.occur_time for change in await history(store)}) == 1
    assert [snapshot.route for snapshot in await store.load(keys)] == [outcome.route for outcome in outcomes]


async def test_servers_whose_groups_overlap_in_opposite_order_wait_and_do_not_deadlock(store: RouteStore) -> None:
    keys = [RouteKey("team-a", f"s{number}", "prod", "v1") for number in range(10)]
    servers = [GroupCommitter(store, MemoryCache(), lambda _: None) for _ in range(3)]

    async def write(committer: GroupCommitter, order: list[RouteKey], name: str) -> list[int]:
        revisions = []
        for number in range(10):
            updates = [Update(key, f"{URL}/{name}/{number}", allow_missing=True) for key in order]
            revisions += await asyncio.gather(*(committer.update(update, INTENT) for update in updates))
        return [outcome.revision for outcome in revisions]

    async with asyncio.timeout(60):
        orders = zip(servers, (keys, keys[::-1], keys[5:] + keys[:5]), "abc", strict=True)
        written = await asyncio.gather(*(write(*one) for one in orders))
    assert sorted(revision for one in written for revision in one) == list(range(1, 301))
    assert all(one == sorted(one) for one in written)
    await _check_that_history_adds_up(store)


async def test_a_mutation_that_the_database_refuses_does_not_fail_the_others(store: RouteStore) -> None:
    """It should have been refused before; a NUL is nothing that PostgreSQL can keep."""
    if isinstance(store, MemoryStore):
        store.refuses = _refuse_nul
    committer = GroupCommitter(store, MemoryCache(), lambda _: None)
    reasons = ["fine", "a\0b", "good"]
    results = await asyncio.gather(
        *(
            committer.create(Create(key, URL, {}), Intent("alice", reason))
            for key, reason in zip((V1, V2, V3), reasons, strict=True)
        ),
        return_exceptions=True,
    )
    assert [isinstance(result, Outcome) for result in results] == [True, False, True]
    assert not isinstance(results[1], PointsmanError)
    assert [(change.revision, change.key) for change in await history(store)] == [(1, V1), (2, V3)]


def _refuse_nul(changes: Sequence[Change]) -> None:
    if any("\0" in change.reason for change in changes):
        raise ValueError("a NUL")


# Lists


@pytest.fixture
async def many(store: RouteStore) -> list[RouteKey]:
    """Create keys whose order by code point differs from every friendlier one; return them in that order."""
    parts = ["a", "B", "a-b", "a.b", "a_b", "aB", "ab", "b", "Z", "0", "10", "2"]
    keys = [RouteKey(tenant, "s", "e", version) for tenant in parts for version in ("v1", "V2", "v10")]
    for key in random.Random(1).sample(keys, len(keys)):
        await create(store, key, active=key.version != "V2")
    return sorted(keys, key=lambda key: (key.tenant.encode(), key.service, key.env, key.version.encode()))


async def test_routes_are_listed_in_the_order_of_code_points(store: RouteStore, many: list[RouteKey]) -> None:
    assert [route.key for route in await store.list_routes(RouteQuery())] == many


@pytest.mark.parametrize("size", [1, 5, 36])
async def test_pages_of_routes_join_without_gap_or_repeat(store: RouteStore, many: list[RouteKey], size: int) -> None:
    listed: list[RouteKey] = []
    while page := await store.list_routes(RouteQuery(after=listed[-1] if listed else None, limit=size)):
        assert len(page) <= size
        listed += [route.key for route in page]
    assert listed == many


async def test_routes_are_listed_after_a_key_that_is_gone(store: RouteStore, many: list[RouteKey]) -> None:
    route = (await load(store, many[4])).route
    assert route
    await delete(store, route)
    after = await store.list_routes(RouteQuery(after=many[4]))
    assert [route.key for route in after] == many[5:]


async def test_a_listed_route_is_what_a_load_answers(store: RouteStore) -> None:
    await create(store, V1)
    assert await store.list_routes(RouteQuery()) == [(await load(store, V1)).route]


ROUTE_FILTERS: list[tuple[RouteQuery, set[int]]] = [
    (RouteQuery(), {0, 1, 2, 3, 4}),
    (RouteQuery(tenant="a"), {0, 1, 2, 3}),
    (RouteQuery(tenant="a", service="s"), {0, 1, 2}),
    (RouteQuery(service="s", env="e"), {0, 1, 4}),
    (RouteQuery(env="f"), {2}),
    (RouteQuery(active=True), {0, 2, 3, 4}),
    (RouteQuery(tenant="a", active=False), {1}),
    (RouteQuery(tenant="A"), set()),
    (RouteQuery(tenant="%"), set()),
]


@pytest.mark.parametrize(("query", "expected"), ROUTE_FILTERS)
async def test_routes_are_listed_that_match_every_part_that_is_set(
    store: RouteStore, query: RouteQuery, expected: set[int]
) -> None:
    keys = [
        RouteKey("a", "s", "e", "v1"),
        RouteKey("a", "s", "e", "v2"),
        RouteKey("a", "s", "f", "v1"),
        RouteKey("a", "t", "e", "v1"),
        RouteKey("b", "s", "e", "v1"),
    ]
    for key in keys:
        await create(store, key, active=key.version == "v1")
    assert {keys.index(route.key) for route in await store.list_routes(query)} == expected


CHANGE_FILTERS: list[tuple[ChangeQuery, list[int]]] = [
    (ChangeQuery(), [1, 2, 3, 4, 5, 6]),
    (ChangeQuery(newest_first=True), [6, 5, 4, 3, 2, 1]),
    (ChangeQuery(limit=2), [1, 2]),
    (ChangeQuery(limit=2, newest_first=True), [6, 5]),
    (ChangeQuery(after_revision=2), [3, 4, 5, 6]),
    (ChangeQuery(before_revision=3), [1, 2]),
    (ChangeQuery(after_revision=2, before_revision=5), [3, 4]),
    (ChangeQuery(after_revision=2, before_revision=3), []),
    (ChangeQuery(after_revision=1, limit=2, newest_first=True), [6, 5]),
    (ChangeQuery(before_revision=6, limit=2, newest_first=True), [5, 4]),
    (ChangeQuery(after_revision=6), []),
    (ChangeQuery(tenant="team-a", service="payments"), [1, 2, 4, 5]),
    (ChangeQuery(version="v2"), [2]),
    (ChangeQuery(env="staging"), []),
    (ChangeQuery(actor="bob"), [3, 6]),
    (ChangeQuery(actor="bob", service="orders", after_revision=3), [6]),
]


@pytest.mark.parametrize(("query", "expected"), CHANGE_FILTERS)
async def test_changes_are_listed_that_match_between_exclusive_bounds(
    store: RouteStore, query: ChangeQuery, expected: list[int]
) -> None:
    bob = Intent("bob")
    route = await create(store, V1)
    await create(store, V2)
    order = await create(store, ORDERS, intent=bob)
    (change,) = await record(store, Draft(ChangeKind.DEACTIVATED, V1, route, URL, active=False))
    assert change.after
    await delete(store, change.after)
    await record(store, Draft(ChangeKind.DELETED, ORDERS, order), intent=bob)
    assert [change.revision for change in await store.list_changes(query)] == expected


# Scans


async def scanned(store: RouteStore, query: RouteQuery) -> tuple[Clock, list[list[Route]]]:
    async with store.scan(query) as table:
        return table.clock, [list(batch) async for batch in table.batches]


async def test_a_scan_reads_all_that_matches_in_the_order_of_keys(store: RouteStore) -> None:
    others = [RouteKey("team-b", "payments", "prod", "v1"), RouteKey("team-a", "payments", "Test", "v1")]
    routes = {key: await create(store, key, active=key != V2) for key in (V3, ORDERS, *others, V1, V2)}
    clock, batches = await scanned(store, RouteQuery(limit=2))
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert [route for batch in batches for route in batch] == [routes[key] for key in sorted(routes)]
    assert clock == await store.clock()
    for query, keys in (
        (RouteQuery("team-a", limit=100), sorted({V1, V2, V3, ORDERS, others[1]})),
        (RouteQuery("", "payments", limit=100), sorted({V1, V2, V3, *others})),
        (RouteQuery("", "", "Test", limit=100), [others[1]]),
        (RouteQuery("team-a", "payments", "prod", limit=100), [V1, V2, V3]),
        (RouteQuery("nobody", limit=100), []),
    ):
        _, batches = await scanned(store, query)
        assert [route.key for batch in batches for route in batch] == keys


async def test_an_empty_scan_has_a_clock(store: RouteStore) -> None:
    clock, batches = await scanned(store, RouteQuery())
    assert (clock, batches) == (await store.clock(), [])


async def test_a_scan_sees_no_change_that_is_made_meanwhile(store: RouteStore) -> None:
    before = [await create(store, key) for key in (V1, V2, V3)]
    async with store.scan(RouteQuery(limit=1)) as table:
        batches = aiter(table.batches)
        found = list(await anext(batches))
        await delete(store, before[1])
        await create(store, ORDERS)
        found += [route async for batch in batches for route in batch]
    assert found == before
    assert table.clock.revision == 3
    assert (await scanned(store, RouteQuery()))[0].revision == 5


async def test_a_scan_that_is_left_early_holds_nothing(store: RouteStore) -> None:
    for key in (V1, V2, V3):
        await create(store, key)
    for _ in range(12):
        # More than there are connections.
        with suppress(Rollback):
            async with store.scan(RouteQuery(limit=1)) as table:
                await anext(aiter(table.batches))
                raise Rollback
    assert len((await scanned(store, RouteQuery()))[1]) == 1
    await create(store, ORDERS)


# PostgreSQL alone


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE route_changes SET actor = 'nobody'",
        "UPDATE route_changes SET actor = 'nobody' WHERE false",
        "DELETE FROM route_changes",
        "TRUNCATE route_changes",
    ],
)
async def test_history_cannot_be_rewritten(database_url: str, statement: str) -> None:
    database = Database(database_url, pool_min=1, timeout=30.0)
    await database.open()
    store = PostgresStore(database)
    await create(store, V1)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with database.connection() as connection:
            await connection.execute(statement)
    assert [change.actor for change in await history(store)] == ["alice"]
    await database.close()


async def test_forgotten_requests_are_those_that_are_old_enough(database_url: str) -> None:
    database = Database(database_url, pool_min=1, timeout=30.0)
    await database.open()
    store = PostgresStore(database)
    await remember(store, V1, asked(), Outcome(None, 1))
    assert await store.forget_requests(3600) == 0
    assert await replay(store, V1, asked())
    assert await store.forget_requests(0) == 1
    assert await replay(store, V1, asked()) is None
    await database.close()
