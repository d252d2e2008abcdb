"""The law of ``ports.BulkStore`` and ``ports.ImportTransaction``, for every implementation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as configured
from hypothesis import strategies as st

from pointsman_server.adapters.postgres.bulk_store import PostgresBulkStore
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.domain.errors import MOST_VIOLATIONS, RequestIdReused, RevisionsMismatch, RouteExists, RoutesExist
from pointsman_server.domain.routes import Change, ChangeKind, Draft, RouteKey, Wanted
from pointsman_server.ports.bulk_store import BulkStore, Existing, Imported, Merged
from pointsman_server.ports.store import ChangeQuery, Intent, MutationScope, RouteQuery, RouteStore
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.ledger import Ledger
from pointsman_server.writes.mutations import Activate, Create, Deactivate, Update
from tests.support.bulk_fakes import MemoryBulkStore
from tests.support.fakes import MemoryCache, MemoryStore

INTENT = Intent("alice", "the move", traceparent="00-1-2-3", tracestate="vendor=1")
V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
OTHER = RouteKey("team-b", "orders", "test", "v1")
URL, NEWER = "https://payments.internal:8443", "https://payments.internal:9443/new"


class Rollback(Exception):
    """What a test raises to leave a transaction."""


class Stores(NamedTuple):
    """The same routes, one by one and many at once."""

    bulk: BulkStore
    routes: RouteStore

    async def imports(self, *wanted: Wanted, existing: Existing = Existing.UPDATE, intent: Intent = INTENT) -> Merged:
        async with self.bulk.begin_import() as transaction:
            await transaction.stage(wanted)
            locked = await transaction.lock(wanted[0].key.tenant, intent, existing)
            return locked.known or await transaction.merge()

    @property
    def committer(self) -> GroupCommitter:
        return GroupCommitter(self.routes, MemoryCache(), lambda _: None)

    async def history(self) -> list[Change]:
        return await self.routes.list_changes(ChangeQuery(limit=100_000))


@pytest.fixture(params=["memory", "postgres"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        memory = MemoryStore()
        yield Stores(MemoryBulkStore(memory), memory)
        return
    database = Database(request.getfixturevalue("database_url"), pool_min=1, pool_max=10, timeout=30.0)
    await database.open()
    yield Stores(PostgresBulkStore(database), PostgresStore(database))
    await database.close()


def timeless(change: Change) -> Change:
    """A change without what no two changes share."""
    born = change.occur_time
    after = change.after and replace(change.after, create_time=born, update_time=born)
    before = change.before and replace(change.before, create_time=born, update_time=born)
    return replace(change, event_id="", before=before, after=after, occur_time=born)


async def test_new_routes_are_created_active_and_without_labels_unless_it_is_said(stores: Stores) -> None:
    merged = await stores.imports(Wanted(V1, URL), Wanted(V2, NEWER, {"tier": "1", "é": 'a"\\b'}, False))
    assert merged.imported == Imported(created=2, updated=0, unchanged=0, first=1, last=2, revision=2)
    assert list(merged.revisions) == [1, 2]
    first, second = await stores.routes.list_routes(RouteQuery())
    assert (first.key, first.url, first.active, first.labels, first.revision) == (V1, URL, True, {}, 1)
    assert (second.key, second.url, second.active, second.labels) == (V2, NEWER, False, {"tier": "1", "é": 'a"\\b'})
    assert (await stores.routes.clock()).revision == 2


async def test_an_import_writes_the_history_that_single_mutations_would(stores: Stores) -> None:
    committer = stores.committer
    await committer.create(Create(V1, URL, {"tier": "1"}), INTENT)
    await committer.update(Update(V1, NEWER, {"tier": "2"}), INTENT)
    await committer.deactivate(Deactivate(V1), INTENT)
    await committer.activate(Activate(V1), INTENT)
    key = V1._replace(tenant="team-z")
    for wanted in (
        Wanted(key, URL, {"tier": "1"}),
        Wanted(key, NEWER, {"tier": "2"}),
        Wanted(key, NEWER, active=False),
        Wanted(key, NEWER, active=True),
    ):
        await stores.imports(wanted)
    changes = await stores.history()
    singly, at_once = changes[:4], changes[4:]
    for one, other in zip(singly, at_once, strict=True):
        twin = timeless(replace(other, occur_time=one.occur_time))
        for each in (one, other):
            assert (each.change_set_id, each.change_set_size, each.change_set_end) == (each.revision, 1, each.revision)
        shift = {"key": V1, "revision": one.revision}
        before = twin.before and replace(twin.before, key=V1, revision=twin.before.revision - 4)
        after = twin.after and replace(twin.after, **shift)
        set_of_one = {"change_set_id": one.revision, "change_set_end": one.revision}
        assert replace(twin, **shift, **set_of_one, before=before, after=after) == timeless(one)
    for before, after in pairwise(at_once):
        assert after.before == before.after
    assert len({change.event_id for change in changes}) == len(changes)
    created, *later = at_once
    assert created.after is not None
    assert all(change.after and change.after.create_time == created.after.create_time for change in later)
    assert all(change.after and change.after.update_time == change.occur_time for change in at_once)


async def test_what_is_not_said_stays(stores: Stores) -> None:
    await stores.imports(Wanted(V1, URL, {"tier": "1"}, False))
    await stores.imports(Wanted(V1, NEWER))
    (route,) = await stores.routes.list_routes(RouteQuery())
    assert (route.url, route.labels, route.active) == (NEWER, {"tier": "1"}, False)
    await stores.imports(Wanted(V1, NEWER, {}))
    (route,) = await stores.routes.list_routes(RouteQuery())
    assert route.labels == {}


async def test_what_is_as_it_shall_be_makes_no_change(stores: Stores) -> None:
    await stores.imports(Wanted(V1, URL, {"a": "1", "b": "2"}))
    merged = await stores.imports(Wanted(V1, URL, {"b": "2", "a": "1"}, True))
    assert merged.imported == Imported(created=0, updated=0, unchanged=1, first=0, last=0, revision=1)
    assert list(merged.revisions) == [1]
    assert len(await stores.history()) == 1


async def test_revisions_follow_the_request_but_for_those_that_leave_which_come_last(stores: Stores) -> None:
    await stores.imports(Wanted(V1, URL), Wanted(OTHER, URL))
    merged = await stores.imports(Wanted(V1, URL, active=False), Wanted(OTHER, URL), Wanted(V3, URL), Wanted(V2, URL))
    assert list(merged.revisions) == [5, 2, 3, 4]
    assert merged.imported == Imported(created=2, updated=1, unchanged=1, first=3, last=5, revision=5)
    kinds = [(change.key, change.kind) for change in await stores.history()][2:]
    assert kinds == [(V3, ChangeKind.CREATED), (V2, ChangeKind.CREATED), (V1, ChangeKind.DEACTIVATED)]


async def test_existing_routes_can_be_skipped(stores: Stores) -> None:
    await stores.imports(Wanted(V1, URL))
    merged = await stores.imports(Wanted(V1, NEWER), Wanted(V2, URL), existing=Existing.SKIP)
    assert (merged.imported.created, merged.imported.updated, merged.imported.unchanged) == (1, 0, 1)
    assert list(merged.revisions) == [1, 2]
    assert [route.url for route in await stores.routes.list_routes(RouteQuery())] == [URL, URL]


async def test_existing_routes_can_refuse_everything_and_each_is_named(stores: Stores) -> None:
    await stores.imports(Wanted(V2, URL))
    with pytest.raises(RoutesExist) as refused:
        await stores.imports(Wanted(V1, URL), Wanted(V2, URL), Wanted(V3, URL), existing=Existing.REFUSE)
    assert [violation.field for violation in refused.value.violations] == ["routes[1].key"]
    assert len(await stores.routes.list_routes(RouteQuery())) == 1


async def test_routes_at_the_revisions_that_are_expected_are_changed(stores: Stores) -> None:
    await stores.imports(Wanted(V1, URL), Wanted(V2, URL), Wanted(V3, URL))
    merged = await stores.imports(
        Wanted(V1, NEWER, expected_revision=1), Wanted(V2, URL, expected_revision=2), Wanted(V3, NEWER)
    )
    assert (merged.imported.updated, merged.imported.unchanged) == (2, 1)
    assert list(merged.revisions) == [4, 2, 5]


@pytest.mark.parametrize("existing", [Existing.UPDATE, Existing.SKIP])
async def test_routes_at_other_revisions_refuse_all_and_each_is_named(stores: Stores, existing: Existing) -> None:
    await stores.imports(Wanted(V1, URL), Wanted(V2, URL))
    await stores.imports(Wanted(V2, NEWER))
    with pytest.raises(RevisionsMismatch) as refused:
        await stores.imports(
            Wanted(V1, NEWER, expected_revision=1),
            Wanted(V2, URL, expected_revision=2),
            Wanted(V3, URL, expected_revision=12),
            existing=existing,
        )
    assert [(violation.field, violation.description) for violation in refused.value.violations] == [
        ("routes[1].expected_revision", "is 2, and the route is at revision 3"),
        ("routes[2].expected_revision", "is 12, and there is no such route"),
    ]
    assert len(await stores.history()) == 3


async def test_of_many_routes_at_other_revisions_the_first_are_named(stores: Stores) -> None:
    keys = [V1._replace(version=f"v{number}") for number in range(40)]
    await stores.imports(*(Wanted(key, URL) for key in keys))
    with pytest.raises(RevisionsMismatch) as refused:
        await stores.imports(*(Wanted(key, NEWER, expected_revision=99) for key in reversed(keys)))
    fields = [violation.field for violation in refused.value.violations]
    assert fields == [f"routes[{number}].expected_revision" for number in range(MOST_VIOLATIONS)]
    assert refused.value.message.endswith("; and more")


# The stores are shared by the examples on purpose: each begins where the one before it ended.
@configured(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 12), late=st.data())
async def test_one_route_that_somebody_else_has_changed_refuses_all(
    stores: Stores, count: int, late: st.DataObject
) -> None:
    keys = [V1._replace(version=f"v{number}") for number in range(count)]
    await stores.imports(*(Wanted(key, URL) for key in keys))
    before = {route.key: route for route in await stores.routes.list_routes(RouteQuery())}
    changed = late.draw(st.sampled_from(keys))
    await stores.committer.update(Update(changed, f"{URL}/{before[changed].revision}"), INTENT)
    history = await stores.history()
    wanted = [Wanted(key, NEWER, expected_revision=before[key].revision) for key in keys]
    with pytest.raises(RevisionsMismatch) as refused:
        await stores.imports(*wanted)
    (violation,) = refused.value.violations
    assert violation.field == f"routes[{keys.index(changed)}].expected_revision"
    assert await stores.history() == history
    others = [each for each in wanted if each.key != changed]
    if others:
        assert (await stores.imports(*others)).imported.updated == len(others)


async def test_a_change_by_somebody_else_in_the_last_moment_refuses_everything(stores: Stores) -> None:
    await stores.imports(Wanted(V1, URL), Wanted(V2, URL))
    async with stores.bulk.begin_import() as transaction:
        await transaction.stage([Wanted(V1, NEWER, expected_revision=1), Wanted(V2, NEWER, expected_revision=2)])
        await stores.committer.deactivate(Deactivate(V2), INTENT)
        with pytest.raises(RevisionsMismatch):
            await transaction.lock("team-a", INTENT, Existing.UPDATE)
    assert [route.url for route in await stores.routes.list_routes(RouteQuery())] == [URL, URL]


async def test_the_same_request_answers_as_the_first_time_did(stores: Stores) -> None:
    intent = replace(INTENT, request_id="chunk-1", fingerprint=b"one")
    first = await stores.imports(Wanted(V1, URL), intent=intent)
    await stores.imports(Wanted(V1, NEWER))
    again = await stores.imports(Wanted(V1, URL), intent=intent)
    assert (again.imported, list(again.revisions)) == (first.imported, [])
    async with stores.bulk.begin_import() as transaction:
        assert await transaction.remembered("team-a", intent) == again
        assert await transaction.remembered("team-b", intent) is None
    (route,) = await stores.routes.list_routes(RouteQuery())
    assert route.url == NEWER


async def test_another_request_under_the_same_id_is_refused(stores: Stores) -> None:
    intent = replace(INTENT, request_id="chunk-1", fingerprint=b"one")
    await stores.imports(Wanted(V1, URL), intent=intent)
    with pytest.raises(RequestIdReused):
        await stores.imports(Wanted(V2, URL), intent=replace(intent, fingerprint=b"two"))
    assert len(await stores.history()) == 1


async def test_one_id_is_not_for_an_import_and_a_mutation(stores: Stores) -> None:
    ours = replace(INTENT, request_id="chunk-1", fingerprint=b"an import")
    theirs = replace(INTENT, request_id="chunk-1", fingerprint=b"a mutation")
    await stores.imports(Wanted(V1, URL), intent=ours)
    with pytest.raises(RequestIdReused):
        await stores.committer.create(Create(V2, URL, {}), theirs)
    await stores.committer.create(Create(V2, URL, {}), replace(theirs, request_id="chunk-2"))
    with pytest.raises(RequestIdReused):
        await stores.imports(Wanted(V3, URL), intent=replace(ours, request_id="chunk-2"))


async def test_what_is_rolled_back_never_was(stores: Stores) -> None:
    intent = replace(INTENT, request_id="chunk-1", fingerprint=b"one")
    with suppress(Rollback):
        async with stores.bulk.begin_import() as transaction:
            await transaction.stage([Wanted(V1, URL)])
            await transaction.lock("team-a", intent, Existing.UPDATE)
            raise Rollback
    assert await stores.history() == []
    assert (await stores.imports(Wanted(V2, URL), intent=intent)).imported.first == 1


async def test_an_import_waits_for_a_mutation_that_has_decided_and_sees_what_it_did(stores: Stores) -> None:
    async with stores.routes.begin() as transaction:
        locked = await transaction.lock([MutationScope(V1, INTENT)])
        waiting = asyncio.create_task(stores.imports(Wanted(V1, NEWER)))
        for _ in range(20):
            await stores.routes.clock()  # in the meantime it comes as far as it can
        await transaction.record(Ledger(locked).apply([_created(V1)], INTENT), [])
        assert not waiting.done()
    merged = await waiting
    assert (merged.imported.created, merged.imported.updated) == (0, 1)
    assert [change.kind for change in await stores.history()] == [ChangeKind.CREATED, ChangeKind.UPDATED]


async def test_a_mutation_waits_for_an_import_that_has_locked_and_sees_what_it_did(stores: Stores) -> None:
    async with stores.bulk.begin_import() as transaction:
        await transaction.stage([Wanted(V1, URL)])
        assert (await transaction.lock("team-a", INTENT, Existing.UPDATE)).clock.revision == 0
        waiting = asyncio.create_task(stores.committer.create(Create(V1, NEWER, {}), INTENT))
        for _ in range(20):
            await stores.routes.clock()  # in the meantime it comes as far as it can
        await transaction.merge()
    with pytest.raises(RouteExists):
        await waiting
    assert len(await stores.history()) == 1


async def test_many_imports_and_mutations_at_once_leave_a_dense_history(stores: Stores) -> None:
    keys = [RouteKey("team-a", f"service-{number}", "prod", "v1") for number in range(300)]

    async def many(number: int) -> None:
        await stores.imports(*(Wanted(key, f"https://a{number}.internal") for key in keys[number * 30 :]))

    async def one(number: int) -> None:
        command = Update(keys[number * 7], url=f"https://b{number}.internal", allow_missing=True)
        await stores.committer.update(command, INTENT)

    await asyncio.gather(*(many(number) for number in range(5)), *(one(number) for number in range(40)))
    changes = await stores.history()
    assert [change.revision for change in changes] == list(range(1, len(changes) + 1))
    last: dict[RouteKey, Change] = {}
    for change in changes:
        before = last.get(change.key)
        assert change.before == (before and before.after)
        last[change.key] = change
    assert {route.key: route for route in await stores.routes.list_routes(RouteQuery(limit=1000))} == {
        key: change.after for key, change in last.items()
    }


def _created(key: RouteKey) -> Draft:
    return Draft(ChangeKind.CREATED, key, None, URL, active=True)
