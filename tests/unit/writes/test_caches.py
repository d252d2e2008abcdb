"""How caches learn of a group: all at once before the commit, this process first after it."""

from collections.abc import Sequence

import pytest

from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.store import Clock, Intent, LockedState, MutationScope
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.writes.batch import Batch, Mutation
from pointsman_server.writes.caches import WrittenCaches
from pointsman_server.writes.commit import decide_all
from pointsman_server.writes.ledger import Ledger
from pointsman_server.writes.mutations import Activate, Create
from tests.support.fakes import BIRTH, EPOCH, MemoryCache, MemoryStore

V1, V2 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2"))
FAMILY = V1.family_key
OWNER = "owner"


class Scene:
    """Caches of one process, and the shared one."""

    def __init__(self) -> None:
        self.cache = MemoryCache()
        self.told: list[tuple[str, object]] = []
        self.caches = WrittenCaches(self.cache, self.apply_local_write, self.supersede, FairShare())

    def apply_local_write(self, snapshots: Sequence[Snapshot]) -> None:
        self.told.append(("apply", [(each.key, each.as_of) for each in snapshots]))

    def supersede(self, keys: Sequence[RouteKey], revisions: Sequence[int]) -> None:
        self.told.append(("supersede", list(zip(keys, revisions, strict=True))))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def batch(*commands: Create | Activate) -> Batch:
    store = MemoryStore()
    made = Batch(Ledger(LockedState(Clock(EPOCH, 9), BIRTH, [store.put(V1)], [])))
    for command in commands:
        made.carry_out(Mutation(MutationScope(command.key, Intent("alice")), decide_all([command])), None)
    return made


async def test_changed_routes_are_marked_and_families_only_where_they_are_held(scene: Scene) -> None:
    await scene.caches.mark(batch(Create(V2, "https://a", {})), OWNER)
    assert scene.cache.journal == [("mark", [V2]), ("mark_held", [FAMILY])]
    assert list(scene.cache.entries) == [V2]


async def test_this_process_first_then_the_shared_cache(scene: Scene) -> None:
    written = scene.caches.written(batch(Create(V2, "https://a", {}), Activate(V1)))
    await written.apply_locally()
    assert scene.told == [("apply", [(V2, 10), (V1, 10)]), ("supersede", [(FAMILY, 10)])]
    assert scene.cache.journal == []
    await written.settle(OWNER)
    assert scene.cache.journal == [("settle", [V2]), ("drop_older", [FAMILY]), ("consume", [V1])]


@pytest.mark.parametrize(("as_of", "kept"), [(1, True), (0, False)], ids=["new enough", "older"])
async def test_what_changes_nothing_drops_a_family_only_below_what_was_seen(
    scene: Scene, as_of: int, kept: bool
) -> None:
    await scene.cache.get([FAMILY], "reader")
    await scene.cache.fill([Snapshot(FAMILY, None, as_of)], "reader")
    written = scene.caches.written(batch(Activate(V1)))
    await written.apply_locally()
    await written.settle(OWNER)
    assert scene.told == [("apply", [(V1, 9)]), ("supersede", [(FAMILY, 1)])]
    assert (FAMILY in scene.cache.entries) is kept


async def test_without_redis_nothing_is_raised(scene: Scene) -> None:
    scene.cache.down = True
    made = batch(Create(V2, "https://a", {}), Activate(V1))
    await scene.caches.mark(made, OWNER)
    await scene.caches.written(made).settle(OWNER)


async def test_a_group_without_a_change_tells_nobody(scene: Scene) -> None:
    written = scene.caches.written(Batch(Ledger(LockedState(Clock(EPOCH, 9), BIRTH, [], []))))
    await written.apply_locally()
    await written.settle(OWNER)
    assert (scene.told, scene.cache.journal) == ([], [])
