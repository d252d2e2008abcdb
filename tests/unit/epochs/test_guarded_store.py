"""The wrappers that check the epoch: what they pass on, what they note, and when they refuse."""

from collections.abc import Sequence

import pytest

from pointsman_server.domain.errors import StoreRestored, StoreUnavailable
from pointsman_server.domain.routes import Change, RouteKey, Snapshot, Wanted
from pointsman_server.epochs.guarded_store import GuardedBulkStore, GuardedHistory, GuardedStore, WitnessedStream
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ports.bulk_store import Existing
from pointsman_server.ports.store import ChangeQuery, Clock, Intent, MutationScope, RouteQuery, TrafficQuery
from pointsman_server.writes.bulk_import import BulkImporter, Import
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Create, Delete
from tests.support.bulk_fakes import MemoryBulkStore
from tests.support.changes import make_change
from tests.support.fakes import EPOCH, MemoryCache, MemoryStore
from tests.support.history import MemoryHistory

V1, V2 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2"))
URL = "https://payments.internal"
INTENT = Intent("alice", request_id="id", fingerprint=b"body")


class Fixture:
    def __init__(self) -> None:
        self.switched = 0
        self.memory, self.epochs = MemoryStore(), EpochTracker(self.on_switch)
        self.store = GuardedStore(self.memory, self.epochs)
        self.history = GuardedHistory(MemoryHistory(self.memory), self.epochs)
        self.bulk = GuardedBulkStore(MemoryBulkStore(self.memory), self.epochs)
        self.committer = GroupCommitter(self.store, MemoryCache(), lambda _: None)
        self.importer = BulkImporter(self.bulk, MemoryCache(), lambda _keys, _revisions: None)

    def on_switch(self) -> None:
        self.switched += 1

    def lose(self) -> None:
        """Put the store back to its beginning; the tracker has not noticed."""
        self.memory.revision = 0
        self.memory.routes.clear()
        self.memory.changes.clear()


async def begun() -> Fixture:
    """A store of one route whose epoch is known."""
    fixture = Fixture()
    await fixture.store.clock()
    await fixture.committer.create(Create(V1, URL, {}), Intent("alice"))
    return fixture


async def test_queries_are_passed_on_and_refused_while_the_store_is_behind() -> None:
    fixture = await begun()
    await fixture.committer.create(Create(V2, URL, {}), INTENT)
    assert [route.key for route in await fixture.store.list_routes(RouteQuery(after=V1))] == [V2]
    assert [change.key for change in await fixture.store.list_changes(ChangeQuery(version="v2"))] == [V2]
    assert [snapshot.key for snapshot in await fixture.store.load([V2, V1])] == [V2, V1]
    assert await fixture.store.load([]) == []

    fixture.lose()
    await fixture.store.clock()

    with pytest.raises(StoreRestored):
        await fixture.store.list_routes(RouteQuery())
    with pytest.raises(StoreRestored):
        await fixture.store.list_changes(ChangeQuery())
    with pytest.raises(StoreRestored):
        await fixture.store.load([V1])
    with pytest.raises(StoreRestored):
        async with fixture.store.begin():
            pytest.fail("began")
    with pytest.raises(StoreRestored):
        async with fixture.bulk.begin_import():
            pytest.fail("began")


async def test_traffic_and_families_are_passed_on_and_refused_while_the_store_is_behind() -> None:
    fixture = await begun()
    traffic = fixture.memory.divide(V1, ("v1", 10_000))
    assert await fixture.store.list_traffic(TrafficQuery()) == [traffic]
    (family,) = await fixture.store.load([V1.family_key])
    assert (family.family.traffic, family.as_of) == (traffic, 2)
    assert fixture.epochs.seen == Clock(EPOCH, 2)
    async with fixture.store.scan(RouteQuery()) as table:
        assert list(table.traffic) == [traffic]

    fixture.lose()
    await fixture.store.clock()

    with pytest.raises(StoreRestored):
        await fixture.store.list_traffic(TrafficQuery())


async def test_the_history_is_passed_on_and_refused_while_the_store_is_behind() -> None:
    fixture = await begun()
    (created,) = fixture.memory.changes
    await fixture.committer.delete(Delete(V1), INTENT)
    assert await fixture.history.revision_at(created.occur_time) == 1
    assert await fixture.history.load_as_of([V1], 1) == [Snapshot(V1, created.after, 1)]
    assert await fixture.history.list_routes_as_of(RouteQuery(), 1) == [created.after]
    assert fixture.epochs.seen == Clock(EPOCH, 2), "an earlier revision says nothing of where the store is"

    fixture.lose()
    await fixture.store.clock()

    for read in (
        fixture.history.revision_at(created.occur_time),
        fixture.history.load_as_of([V1], 1),
        fixture.history.list_routes_as_of(RouteQuery(), 1),
    ):
        with pytest.raises(StoreRestored):
            await read


async def test_a_write_is_noted_once_it_is_committed() -> None:
    fixture = await begun()
    assert fixture.epochs.seen == Clock(EPOCH, 1)
    async with fixture.store.begin() as transaction:
        await transaction.lock([MutationScope(V2, INTENT)])
        await transaction.record([make_change(2, epoch=EPOCH), make_change(3, epoch=EPOCH)], [])
        assert fixture.epochs.seen == Clock(EPOCH, 1)
    assert fixture.epochs.seen == Clock(EPOCH, 3)


async def test_a_write_that_would_assign_a_revision_again_is_rolled_back() -> None:
    fixture = await begun()
    fixture.lose()
    with pytest.raises(StoreRestored):
        await fixture.committer.create(Create(V2, URL, {}), INTENT)
    assert (fixture.memory.revision, "record" in fixture.memory.journal[3:]) == (0, False)


async def test_a_revision_that_is_seen_after_the_lock_rolls_the_write_back() -> None:
    fixture = await begun()
    recorded: list[Sequence[Change]] = []
    fixture.memory.refuses = recorded.append
    async with fixture.store.begin() as transaction:
        await transaction.lock([MutationScope(V2, INTENT)])
        fixture.epochs.witness(EPOCH, 2)
        with pytest.raises(StoreUnavailable):
            await transaction.record([make_change(2, epoch=EPOCH)], [])
    assert recorded == []
    # The lock may have been lost: that alone does not say that the store was restored.
    assert fixture.epochs.lost == ""


async def test_an_import_is_passed_on_and_noted_once_it_is_committed() -> None:
    fixture = await begun()
    command = Import([Wanted(V1, "https://new.internal"), Wanted(V2, URL)], Existing.SKIP)
    imported = await fixture.importer.import_(command, INTENT)
    assert (imported.created, imported.updated, imported.unchanged, imported.revision) == (1, 0, 1, 2)
    assert fixture.epochs.seen == Clock(EPOCH, 2)
    assert await fixture.importer.import_(command, INTENT) == imported
    assert fixture.memory.journal.count("stage") == 1


async def test_an_import_that_merges_nothing_notes_nothing() -> None:
    fixture = await begun()
    async with fixture.bulk.begin_import() as transaction:
        await transaction.stage([Wanted(V2, URL)])
        locked = await transaction.lock("team-a", INTENT, Existing.UPDATE)
    assert locked.clock == Clock(EPOCH, 1)
    assert (fixture.epochs.seen, fixture.memory.revision) == (Clock(EPOCH, 1), 1)


async def test_an_import_that_would_assign_a_revision_again_is_rolled_back() -> None:
    fixture = await begun()
    fixture.lose()
    with pytest.raises(StoreRestored):
        await fixture.importer.import_(Import([Wanted(V2, URL)]), INTENT)
    assert (fixture.memory.revision, fixture.memory.routes) == (0, {})


async def test_a_revision_that_is_seen_after_the_lock_rolls_the_import_back() -> None:
    fixture = await begun()
    async with fixture.bulk.begin_import() as transaction:
        await transaction.stage([Wanted(V2, URL)])
        await transaction.lock("team-a", INTENT, Existing.UPDATE)
        fixture.epochs.witness(EPOCH, 2)
        with pytest.raises(StoreUnavailable):
            await transaction.merge()
    assert list(fixture.memory.routes) == [V1]


async def test_the_answer_of_an_import_of_another_epoch_is_not_replayed() -> None:
    fixture = await begun()
    command = Import([Wanted(V2, URL)])
    await fixture.importer.import_(command, INTENT)
    fixture.memory.epoch = "another"
    with pytest.raises(StoreRestored):
        await fixture.importer.import_(command, INTENT)
    assert fixture.switched == 0

    await fixture.store.clock()

    assert fixture.switched == 1
    assert (await fixture.importer.import_(command, INTENT)).revision == 2


async def test_a_load_that_saw_the_epoch_before_is_repeated() -> None:
    fixture = await begun()

    class Switching(MemoryStore):
        async def load(self, keys):  # type: ignore[no-untyped-def]
            found = await super().load(keys)
            if len(self.loads) == 1:
                fixture.epochs.read(Clock("another", 5), fixture.epochs.seen)
                self.epoch = "another"
                self.revision = 5
            return found

    store = Switching()
    (found,) = await GuardedStore(store, fixture.epochs).load([V1])
    assert (found.epoch, found.as_of, len(store.loads)) == ("another", 5, 2)


async def test_a_stream_notes_what_it_receives() -> None:
    epochs = EpochTracker()
    epochs.read(Clock("epoch", 1), epochs.seen)
    waits: list[float] = []

    class Stream:
        closed = False

        async def receive(self, seconds: float) -> Sequence[Change]:
            waits.append(seconds)
            return [make_change(7, epoch="epoch"), make_change(5, epoch="epoch")]

        async def close(self) -> None:
            self.closed = True

    inner = Stream()
    stream = WitnessedStream(inner, epochs)
    assert [change.revision for change in await stream.receive(0.25)] == [7, 5]
    assert (waits, epochs.seen) == ([0.25], Clock("epoch", 7))
    await stream.close()
    assert inner.closed
