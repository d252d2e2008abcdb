"""Which history the store tells, and what happens when it is an older one."""

import asyncio
from collections.abc import Sequence

import pytest

from pointsman_server.domain.errors import StoreRestored, StoreUnavailable
from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.epochs.guarded_store import GuardedStore, WitnessedStream
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ports.store import ChangeQuery, Clock, Intent, LockedState, MutationScope, RouteQuery
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Create, Update
from tests.support.changes import make_change
from tests.support.fakes import MemoryCache, MemoryStore, MemoryTransaction

KEY = RouteKey("team-a", "payments", "prod", "v1")
INTENT = Intent("alice")
OLD, NEW = "old-epoch", "new-epoch"


class Scene:
    """A store under guard, and how often its epoch became another."""

    def __init__(self) -> None:
        self.switches: list[str] = []
        self.memory = MemoryStore()
        self.memory.epoch = OLD
        self.epochs = EpochTracker(lambda: self.switches.append(self.epochs.epoch))
        self.store = GuardedStore(self.memory, self.epochs)
        self.committer = GroupCommitter(self.store, MemoryCache(), lambda _: None)

    async def write(self, url: str) -> int:
        return (await self.committer.update(Update(KEY, url, allow_missing=True), INTENT)).revision


@pytest.fixture
async def scene() -> Scene:
    """A store that is known to be at revision 10."""
    scene = Scene()
    scene.memory.revision = 10
    await scene.store.clock()
    return scene


async def test_the_first_epoch_is_no_switch(scene: Scene) -> None:
    assert (scene.epochs.seen, scene.switches) == (Clock(OLD, 10), [])


async def test_everything_that_is_read_or_written_is_seen(scene: Scene) -> None:
    scene.memory.revision = 11
    await scene.store.load([KEY])
    assert scene.epochs.seen.revision == 11
    await scene.write("https://a")
    assert scene.epochs.seen.revision == 12


async def test_a_lower_revision_under_the_same_epoch_stops_every_use_of_the_store(scene: Scene) -> None:
    scene.memory.revision = 9
    with pytest.raises(StoreRestored):
        await scene.store.load([KEY])
    assert scene.epochs.lost == "it is at revision 9, and was at 10"
    scene.memory.revision = 9
    for use in (
        scene.store.load([KEY]),
        scene.store.list_routes(RouteQuery()),
        scene.store.list_changes(ChangeQuery()),
        scene.write("https://a"),
    ):
        with pytest.raises(StoreRestored):
            await use
    assert scene.memory.revision == 9


async def test_a_write_that_would_get_a_used_revision_is_rolled_back(scene: Scene) -> None:
    """Nobody has read the clock since the restore."""
    scene.memory.revision = 5
    with pytest.raises(StoreRestored):
        await scene.write("https://a")
    assert (scene.memory.revision, scene.memory.changes) == (5, [])


async def test_what_is_known_while_the_key_is_locked_counts_too(scene: Scene) -> None:
    """Redis says it at the mark, after the lock."""
    cache = MemoryCache()
    mark = cache.mark

    async def telling(keys: Sequence[RouteKey], owner: str, held: Sequence[RouteKey] = ()) -> None:
        await mark(keys, owner, held)
        scene.epochs.witness(OLD, 11)

    cache.mark = telling  # type: ignore[method-assign]
    committer = GroupCommitter(scene.store, cache, lambda _: None)
    with pytest.raises(StoreUnavailable):
        await committer.create(Create(KEY, "https://a", {}), INTENT)
    with pytest.raises(StoreRestored):
        await committer.create(Create(KEY, "https://a", {}), INTENT)
    assert (scene.memory.revision, scene.memory.routes) == (10, {})


async def test_a_store_that_is_where_it_was_is_used_again(scene: Scene) -> None:
    scene.memory.revision = 9
    await scene.store.clock()
    assert scene.epochs.lost
    scene.memory.revision = 10
    await scene.store.clock()
    assert not scene.epochs.lost
    assert await scene.write("https://a") == 11


async def test_a_new_epoch_forgets_the_old_one_whatever_its_revision(scene: Scene) -> None:
    scene.memory.revision = 9
    await scene.store.clock()
    scene.memory.epoch, scene.memory.revision = NEW, 4
    await scene.store.clock()
    assert (scene.epochs.seen, scene.switches, scene.epochs.lost) == (Clock(NEW, 4), [NEW], "")
    assert await scene.write("https://a") == 5


async def test_a_write_is_the_first_to_see_a_new_epoch(scene: Scene) -> None:
    scene.memory.epoch, scene.memory.revision = NEW, 10
    assert await scene.write("https://a") == 11
    assert (scene.epochs.seen, scene.switches) == (Clock(NEW, 11), [NEW])


async def test_a_write_that_changes_nothing_is_the_first_to_see_a_new_epoch(scene: Scene) -> None:
    await scene.write("https://a")
    scene.memory.epoch, scene.memory.revision = NEW, 4
    assert await scene.write("https://a") == 4
    assert (scene.epochs.seen, scene.switches, scene.epochs.lost) == (Clock(NEW, 4), [NEW], "")


async def test_what_was_locked_before_the_restore_is_not_gone_by(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = MemoryTransaction.lock

    async def answered_late(transaction: MemoryTransaction, asked: Sequence[MutationScope]) -> LockedState:
        found = await lock(transaction, asked)
        scene.memory.epoch, scene.memory.revision = NEW, 4
        await scene.store.clock()
        return found

    monkeypatch.setattr(MemoryTransaction, "lock", answered_late)
    with pytest.raises(StoreRestored):
        await scene.write("https://a")
    assert (scene.memory.revision, scene.epochs.seen) == (4, Clock(NEW, 4))


async def test_back_in_an_epoch_that_has_ended_is_a_restore_too(scene: Scene) -> None:
    scene.memory.epoch, scene.memory.revision = NEW, 4
    await scene.store.clock()
    scene.memory.epoch, scene.memory.revision = OLD, 12
    await scene.store.clock()
    assert scene.epochs.lost == f"it is back in epoch {OLD}, which ended when {NEW} began"
    assert scene.switches == [NEW]


async def test_a_read_that_others_overtook_is_no_restore(scene: Scene) -> None:
    scene.memory.after_read.close()
    reading = asyncio.create_task(scene.store.load([KEY]))
    await scene.memory.after_read.arrivals()
    scene.epochs.witness(OLD, 20)
    scene.memory.after_read.open()
    assert (await reading)[0].as_of == 10
    assert not scene.epochs.lost


async def test_a_read_from_before_the_restore_is_read_again(scene: Scene) -> None:
    scene.memory.after_read.close()
    reading = asyncio.create_task(scene.store.load([KEY]))
    await scene.memory.after_read.arrivals()
    scene.memory.epoch, scene.memory.revision = NEW, 4
    await scene.store.clock()
    scene.memory.after_read.open()
    (found,) = await reading
    assert (found.epoch, found.as_of) == (NEW, 4)
    assert (scene.switches, scene.epochs.lost) == ([NEW], "")


async def test_what_was_heard_of_a_new_epoch_is_not_held_against_its_first_read(scene: Scene) -> None:
    scene.epochs.witness(NEW, 7)
    scene.memory.epoch, scene.memory.revision = NEW, 6  # a read that began before 7 was committed
    await scene.store.clock()
    assert not scene.epochs.lost
    await scene.store.clock()
    assert scene.epochs.lost


async def test_a_stream_is_a_witness(scene: Scene) -> None:
    class Stream:
        async def receive(self, _seconds: float) -> Sequence[Change]:
            return [make_change(30, epoch=OLD)]

        async def close(self) -> None:
            pass

    stream = WitnessedStream(Stream(), scene.epochs)
    assert len(await stream.receive(1.0)) == 1
    assert scene.epochs.seen == Clock(OLD, 30)
    await stream.close()


def test_a_loss_is_logged_once_and_again_when_it_happens_again(caplog: pytest.LogCaptureFixture) -> None:
    epochs = EpochTracker()
    for revision in (5, 4, 3, 5, 2):
        epochs.read(Clock("one", revision), epochs.seen)
    assert caplog.text.count("the store was restored to an older state") == 2
    assert "it is at revision 4, and was at 5" in caplog.text
    assert epochs.lost == "it is at revision 2, and was at 5"


def test_a_read_that_overlaps_a_new_epoch_counts_only_if_it_is_of_the_new_one() -> None:
    epochs = EpochTracker()
    epochs.read(Clock("one", 5), epochs.seen)
    before = epochs.seen
    epochs.read(Clock("two", 3), epochs.seen)

    epochs.read(Clock("one", 9), before)
    assert epochs.seen == Clock("two", 3)
    epochs.read(Clock("two", 4), before)
    assert epochs.seen == Clock("two", 4)
    assert epochs.lost == ""


def test_before_the_first_read_no_epoch_is_known_and_nothing_is_lost() -> None:
    epochs = EpochTracker()
    assert (epochs.seen, epochs.lost) == (Clock("", 0), "")
    epochs.check()


def test_the_first_revision_is_witnessed() -> None:
    epochs = EpochTracker()
    epochs.read(Clock("one", 0), epochs.seen)
    epochs.witness("one", 1)
    assert epochs.seen == Clock("one", 1)
