"""writes.group_commit: how mutations are carried out, and in which order caches and callers learn of them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

from pointsman_server.domain.errors import (
    InvalidField,
    MutationsRefused,
    Overloaded,
    PointsmanError,
    RequestIdReused,
    RevisionMismatch,
    RouteExists,
    RouteInTraffic,
    RouteNotFound,
    StoreUnavailable,
)
from pointsman_server.domain.routes import Change, ChangeKind, Draft, RouteKey, Snapshot
from pointsman_server.domain.traffic import Division, Slice, Target
from pointsman_server.ports.cache import NOTHING
from pointsman_server.ports.store import Intent, MutationScope, Outcome, Step
from pointsman_server.writes.commit import Commit
from pointsman_server.writes.group_commit import GROUP, WAITING, GroupCommitter
from pointsman_server.writes.mutations import (
    Activate,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    SetTraffic,
    Update,
)
from pointsman_server.writes.overlay import Overlay
from tests.support.fakes import MemoryCache, MemoryStore

V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
FAMILY = V1.family_key
URL, NEW = "https://old.internal", "https://new.internal"
LABELS = {"tier": "gold"}
INTENT = Intent("alice")


class JournalCache(MemoryCache):
    """Writes into the journal of the world, too."""

    def __init__(self, journal: list[str]) -> None:
        super().__init__()
        self.told = journal
        self.owners: list[str] = []

    async def mark(self, keys: Sequence[RouteKey], owner: str, held: Sequence[RouteKey] = ()) -> None:
        self.owners.append(owner)
        self.told.append("mark")
        await super().mark(keys, owner, held)

    async def settle(
        self, snapshots: Sequence[Snapshot], owner: str, dropped: Mapping[RouteKey, int] = NOTHING
    ) -> None:
        self.told.append("settle")
        await super().settle(snapshots, owner, dropped)


class World:
    """A committer, and everything that it tells."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.journal = self.store.journal
        self.cache = JournalCache(self.journal)
        self.applied: list[Snapshot] = []
        self.committed: list[Sequence[Change]] = []
        self.superseded: dict[RouteKey, int] = {}
        self.committer = GroupCommitter(
            self.store, self.cache, self.apply_local_write, self.on_committed, supersede=self.supersede
        )

    @property
    def of_routes(self) -> list[tuple[str, list[RouteKey]]]:
        """What the cache was told of routes, without families."""
        return self._told_of(lambda key: bool(key.version))

    @property
    def of_families(self) -> list[tuple[str, list[RouteKey]]]:
        return self._told_of(lambda key: not key.version)

    def _told_of(self, wanted: Callable[[RouteKey], bool]) -> list[tuple[str, list[RouteKey]]]:
        told = [(name, [key for key in keys if wanted(key)]) for name, keys in self.cache.journal]
        return [(name, keys) for name, keys in told if keys]

    def on_committed(self, changes: Sequence[Change]) -> None:
        assert self.journal[-1] == "apply" or self.superseded
        self.committed.append(changes)

    def supersede(self, keys: Sequence[RouteKey], revisions: Sequence[int]) -> None:
        self.superseded |= zip(keys, revisions, strict=True)

    def apply_local_write(self, snapshots: Sequence[Snapshot]) -> None:
        self.journal.append("apply")
        self.applied += snapshots

    async def create(self, key: RouteKey, intent: Intent = INTENT) -> Outcome:
        return await self.committer.create(Create(key, URL, {}), intent)

    async def together(self, *mutations: Awaitable[Outcome]) -> list[Outcome | BaseException]:
        """Carry them out in one group, in this order."""
        self.store.groups.clear()
        results = await asyncio.gather(*mutations, return_exceptions=True)
        assert self.store.groups == [len(mutations)]
        return results

    async def shared(self, key: RouteKey = V1) -> Snapshot | None:
        (found,) = await self.cache.get([key], "reader")
        return found.snapshot


@pytest.fixture
def world() -> World:
    return World()


async def test_the_changes_of_each_commit_are_handed_on_together_once_they_are_in_the_local_cache(world: World) -> None:
    await world.create(V1)
    await world.create(V2)
    await world.committer.activate(Activate(V1), INTENT)  # is so already
    await world.committer.activate(Activate(V1, exclusive=True), INTENT)
    await world.together(world.create(V3), world.committer.delete(Delete(V2), INTENT))
    assert [[change.revision for change in changes] for changes in world.committed] == [[1], [2], [3], [4, 5]]
    assert [change for changes in world.committed for change in changes] == world.store.changes


async def test_marked_before_the_commit_settled_and_applied_locally_after_it(world: World) -> None:
    await world.committer.create(Create(V1, URL, {}), INTENT)
    assert world.journal == ["lock", "mark", "record", "commit", "apply", "settle"]


async def test_a_mutation_is_answered_with_the_route_after_it_and_its_revision(world: World) -> None:
    outcome = await world.committer.create(Create(V1, URL, LABELS), INTENT)
    assert outcome == Outcome(world.store.routes[V1], 1)
    assert outcome.route
    assert (outcome.route.url, outcome.route.labels, outcome.route.revision) == (URL, LABELS, 1)


async def test_after_the_answer_caches_hold_what_was_written(world: World) -> None:
    outcome = await world.committer.create(Create(V1, URL, {}), INTENT)
    assert world.applied == [await world.shared()] == [Snapshot(V1, outcome.route, 1)]


async def test_after_a_delete_caches_hold_the_absence_with_its_revision(world: World) -> None:
    await world.committer.create(Create(V1, URL, {}), INTENT)
    assert await world.committer.delete(Delete(V1), INTENT) == Outcome(None, 2)
    assert await world.shared() == world.applied[-1] == Snapshot(V1, None, 2)


async def test_an_exclusive_activation_marks_learns_and_settles_every_route_that_it_changes(world: World) -> None:
    for key, active in ((V1, False), (V2, True), (V3, True)):
        await world.committer.create(Create(key, URL, {}, active), INTENT)
    world.cache.journal.clear()
    world.applied.clear()
    outcome = await world.committer.activate(Activate(V1, exclusive=True), INTENT)
    assert world.of_routes == [("mark", [V1, V2, V3]), ("settle", [V1, V2, V3])]
    assert world.applied == [Snapshot(key, world.store.routes[key], 6) for key in (V1, V2, V3)]
    assert outcome == Outcome(world.store.routes[V1], 6)


async def test_changes_are_in_the_local_cache_before_the_shared_cache_is_waited_for(world: World) -> None:
    """This server answers with them at once, however slow Redis is."""
    await world.committer.create(Create(V1, URL, {}), INTENT)
    assert world.journal.index("apply") < world.journal.index("settle")


Mutate = Callable[[GroupCommitter], Awaitable[Outcome]]

NO_CHANGE: dict[str, Mutate] = {
    "update": lambda committer: committer.update(Update(V1, URL), INTENT),
    "activate": lambda committer: committer.activate(Activate(V1), INTENT),
    "deactivate": lambda committer: committer.deactivate(Deactivate(V2), INTENT),
}


@pytest.mark.parametrize("mutate", NO_CHANGE.values(), ids=NO_CHANGE)
async def test_a_mutation_that_changes_nothing_marks_and_settles_nothing_and_takes_no_revision(
    world: World, mutate: Mutate
) -> None:
    route = world.store.put(V1)
    idle = world.store.put(V2, active=False)
    outcome = await mutate(world.committer)
    assert outcome == Outcome(idle if outcome.route == idle else route, 2)
    assert [what for what, _ in world.of_routes] == ["consume"]
    assert [what for what, _ in world.of_families] == ["drop_older"]
    assert world.store.changes == []
    assert "record" not in world.journal


async def test_a_mutation_that_changes_nothing_still_shows_this_server_what_is(world: World) -> None:
    """It is answered OK: from then on, this server must not answer the state before, which it may have cached."""
    route = world.store.put(V1)
    outcome = await world.committer.activate(Activate(V1), INTENT)
    assert world.applied == [Snapshot(V1, route, outcome.revision)]
    assert world.journal == ["lock", "commit", "apply"]


async def test_what_was_found_as_wanted_is_shown_with_its_epoch(world: World) -> None:
    """A token without one cannot be told from one of the time before a restore."""
    world.store.put(V1)
    await world.committer.activate(Activate(V1), INTENT)
    await world.committer.create(Create(V2, URL, {}), RETRY)
    await world.committer.create(Create(V2, URL, {}), RETRY)
    assert [snapshot.epoch for snapshot in world.applied] == [world.store.epoch] * 3


REFUSED: dict[str, tuple[Mutate, type[PointsmanError]]] = {
    "create": (lambda committer: committer.create(Create(V1, URL, {}), INTENT), RouteExists),
    "update": (lambda committer: committer.update(Update(V1, NEW, expected_revision=9), INTENT), RevisionMismatch),
    "activate": (lambda committer: committer.activate(Activate(V3), INTENT), RouteNotFound),
    "deactivate": (lambda committer: committer.deactivate(Deactivate(V3), INTENT), RouteNotFound),
    "delete": (lambda committer: committer.delete(Delete(V1, 9), INTENT), RevisionMismatch),
}


@pytest.mark.parametrize(("mutate", "error"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_mutation_tells_the_caches_nothing_and_leaves_nothing(
    world: World, mutate: Mutate, error: type[PointsmanError]
) -> None:
    world.store.put(V1)
    with pytest.raises(error):
        await mutate(world.committer)
    assert (world.cache.journal, world.applied, world.store.revision) == ([], [], 1)
    assert world.journal == ["lock", "commit"]


@pytest.mark.parametrize(
    "mutate",
    [
        lambda committer: committer.create(Create(V1, "no url", {}), INTENT),
        lambda committer: committer.update(Update(V1, "no url"), INTENT),
    ],
)
async def test_a_bad_url_is_refused_before_anything_is_locked(world: World, mutate: Mutate) -> None:
    with pytest.raises(InvalidField):
        await mutate(world.committer)
    assert world.journal == []


async def test_a_reader_between_mark_and_settle_gets_neither_the_old_nor_the_new_state(world: World) -> None:
    world.store.put(V1)
    await world.cache.get([V1], "filler")
    await world.cache.fill([Snapshot(V1, world.store.routes[V1], 1)], "filler")
    world.store.before_commit.close()
    writing = asyncio.create_task(world.committer.update(Update(V1, NEW), INTENT))
    await world.store.before_commit.arrivals()
    assert await world.shared() is None
    assert world.applied == []
    world.store.before_commit.open()
    await writing
    found = await world.shared()
    assert found
    assert found.route
    assert found.route.url == NEW


@pytest.mark.parametrize("commits_anyway", [False, True], ids=["rolled back", "committed unseen"])
async def test_when_the_commit_fails_nothing_is_applied_or_settled_and_the_mark_stays(
    world: World, commits_anyway: bool
) -> None:
    """The outcome is unknown: no cache may say either, until the mark expires."""
    world.store.commit_failure = StoreUnavailable()
    world.store.commits_anyway = commits_anyway
    with pytest.raises(StoreUnavailable):
        await world.committer.create(Create(V1, URL, {}), INTENT)
    assert world.applied == []
    assert "settle" not in world.journal
    (found,) = await world.cache.get([V1], "reader")
    assert (found.snapshot, found.leased) == (None, False)


async def test_a_cancelled_caller_cancels_nothing(world: World) -> None:
    """Others share the transaction; and a retry with the request_id has the answer."""
    world.store.before_commit.close()
    impatient, patient = writing = [
        asyncio.create_task(world.create(key, RETRY if key is V1 else INTENT)) for key in (V1, V2)
    ]
    await world.store.before_commit.arrivals()
    impatient.cancel()
    await asyncio.wait([impatient])
    world.store.before_commit.open()
    assert (await patient).revision == 2
    assert writing[0].cancelled()
    assert await world.create(V1, RETRY) == Outcome(world.store.routes[V1], 1)


async def test_draining_waits_for_mutations_of_cancelled_callers(world: World) -> None:
    world.store.before_commit.close()
    first = asyncio.create_task(world.create(V1))
    await world.store.before_commit.arrivals()
    second = asyncio.create_task(world.create(V2))
    draining = asyncio.create_task(world.committer.drain())
    await asyncio.sleep(0)
    for task in (first, second):
        task.cancel()
    await asyncio.wait([first, second])
    assert not draining.done()
    world.store.before_commit.open()
    async with asyncio.timeout(30):
        await draining
    assert sorted(world.store.routes) == [V1, V2]
    assert world.store.groups == [1, 1]


async def test_with_the_shared_cache_down_writes_go_on(world: World) -> None:
    world.cache.down = True
    outcome = await world.committer.create(Create(V1, URL, {}), INTENT)
    assert world.applied == [Snapshot(V1, outcome.route, 1)]


async def test_with_the_store_down_no_write_is_answered_and_no_cache_is_touched(world: World) -> None:
    world.store.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await world.committer.create(Create(V1, URL, {}), INTENT)
    assert (world.journal, world.applied) == ([], [])


# Replay

RETRY = Intent("alice", request_id="id-1", fingerprint=b"body")


async def test_the_same_request_again_is_answered_as_the_first_and_changes_nothing(world: World) -> None:
    first = await world.committer.create(Create(V1, URL, {}), RETRY)
    await world.committer.delete(Delete(V1), INTENT)
    world.cache.journal.clear()
    assert await world.committer.create(Create(V1, URL, {}), RETRY) == first
    assert world.of_routes == [("consume", [V1])]
    assert world.store.revision == 2


async def test_a_retry_whose_first_answer_was_lost_is_applied_once(world: World) -> None:
    world.store.commit_failure, world.store.commits_anyway = StoreUnavailable(), True
    with pytest.raises(StoreUnavailable):
        await world.committer.create(Create(V1, URL, {}), RETRY)
    world.store.commit_failure = None
    assert await world.committer.create(Create(V1, URL, {}), RETRY) == Outcome(world.store.routes[V1], 1)
    assert len(world.store.changes) == 1


async def test_a_retry_whose_first_attempt_was_rolled_back_is_applied_now(world: World) -> None:
    world.store.commit_failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await world.committer.create(Create(V1, URL, {}), RETRY)
    world.store.commit_failure = None
    assert (await world.committer.create(Create(V1, URL, {}), RETRY)).revision == 1


async def test_a_replay_shows_this_server_what_is_now_not_what_was_then(world: World) -> None:
    """The first attempt may have gone to another server: this one may still have cached the state before it."""
    await world.committer.create(Create(V1, URL, {}), RETRY)
    now = world.store.put(V1, NEW)
    world.applied.clear()
    replayed = await world.committer.create(Create(V1, URL, {}), RETRY)
    assert replayed.revision == 1
    assert world.applied == [Snapshot(V1, now, 2)]


async def test_the_outcome_without_a_change_is_replayed_too(world: World) -> None:
    world.store.put(V1)
    first = await world.committer.activate(Activate(V1), RETRY)
    world.store.put(V1, active=False)
    assert await world.committer.activate(Activate(V1), RETRY) == first


async def test_a_refusal_is_not_remembered(world: World) -> None:
    with pytest.raises(RouteNotFound):
        await world.committer.activate(Activate(V1), RETRY)
    route = world.store.put(V1)
    assert (await world.committer.activate(Activate(V1), RETRY)).route == route


async def test_the_same_id_with_another_request_is_refused_and_touches_no_cache(world: World) -> None:
    await world.committer.create(Create(V1, URL, {}), RETRY)
    world.cache.journal.clear()
    world.applied.clear()
    with pytest.raises(RequestIdReused):
        await world.committer.create(Create(V2, URL, {}), Intent("alice", request_id="id-1", fingerprint=b"other"))
    assert (world.cache.journal, world.applied) == ([], [])


async def test_a_refused_request_is_not_remembered_but_decided_anew(world: World) -> None:
    """AIP-155 asks for the first answer of requests that succeeded; these had no effect."""
    await world.create(V1)
    with pytest.raises(RouteExists):
        await world.create(V1, RETRY)
    assert world.store.requests == {}
    await world.committer.delete(Delete(V1), INTENT)

    created = await world.create(V1, RETRY)

    assert created.revision == 3
    assert await world.create(V1, RETRY) == created
    assert len(world.store.changes) == 3


async def test_the_id_of_a_refused_request_may_go_with_another_one(world: World) -> None:
    await world.create(V1)
    with pytest.raises(RouteExists):
        await world.create(V1, RETRY)
    other = Intent("alice", request_id="id-1", fingerprint=b"other")
    assert (await world.create(V2, other)).revision == 2


async def test_without_a_request_id_nothing_is_remembered(world: World) -> None:
    await world.committer.create(Create(V1, URL, {}), INTENT)
    assert world.store.requests == {}


# Groups


async def test_the_first_goes_at_once_and_what_comes_meanwhile_is_the_next_group(world: World) -> None:
    world.store.before_commit.close()
    first = asyncio.create_task(world.create(V1))
    await world.store.before_commit.arrivals()
    others = [asyncio.create_task(world.create(RouteKey("team-a", f"s{n}", "prod", "v1"))) for n in range(20)]
    await asyncio.sleep(0)
    world.store.before_commit.open()
    assert (await first).revision == 1
    assert [(await other).revision for other in others] == list(range(2, 22))
    assert world.store.groups == [1, 20]


async def test_what_comes_while_another_server_writes_is_one_group(world: World) -> None:
    async with world.store.writing:
        creations = []
        for key in (V1, V2, V3):
            creations.append(asyncio.create_task(world.create(key)))
            for _ in range(10):
                await asyncio.sleep(0)
    await asyncio.gather(*creations)
    assert world.store.groups == [1, 2]


async def test_each_group_marks_as_an_owner_of_its_own(world: World) -> None:
    """Otherwise a server would take back the mark of another one that has not committed."""
    await world.create(V1)
    await world.create(V2)
    one, other = world.cache.owners
    assert one
    assert other
    assert one != other


async def test_a_group_is_marked_recorded_and_settled_once(world: World) -> None:
    await world.together(*(world.create(key) for key in (V1, V2, V3)))
    assert world.journal == ["lock", "mark", "record", "commit", "apply", "settle"]
    assert world.of_routes == [("mark", [V1, V2, V3]), ("settle", [V1, V2, V3])]


async def test_a_group_is_bounded_and_so_is_the_queue_behind_it(world: World) -> None:
    keys = [RouteKey("team-a", f"s{number}", "prod", "v1") for number in range(WAITING + 1)]
    results = await asyncio.gather(*(world.create(key) for key in keys), return_exceptions=True)
    assert world.store.groups == [GROUP] * (WAITING // GROUP)
    assert [type(result) for result in results] == [Outcome] * WAITING + [Overloaded]


async def test_each_of_a_group_sees_what_those_before_it_did(world: World) -> None:
    world.store.put(V2)
    outcomes = await world.together(
        world.committer.create(Create(V1, URL, LABELS, active=False), INTENT),
        world.committer.activate(Activate(V1, exclusive=True), INTENT),
        world.committer.update(Update(V1, NEW), INTENT),
        world.committer.delete(Delete(V1), INTENT),
        world.committer.create(Create(V1, URL, {}), INTENT),
    )
    changes = world.store.changes
    assert [(change.revision, change.kind, change.key) for change in changes] == [
        (2, ChangeKind.CREATED, V1),
        (3, ChangeKind.ACTIVATED, V1),
        (4, ChangeKind.DEACTIVATED, V2),
        (5, ChangeKind.UPDATED, V1),
        (6, ChangeKind.DELETED, V1),
        (7, ChangeKind.CREATED, V1),
    ]
    assert outcomes == [
        Outcome(changes[0].after, 2),
        Outcome(changes[1].after, 4),
        Outcome(changes[3].after, 5),
        Outcome(None, 6),
        Outcome(changes[5].after, 7),
    ]
    assert [change.before for change in changes if change.key == V1] == [
        None, changes[0].after, changes[1].after, changes[3].after, None,
    ]  # fmt: skip


async def test_a_key_that_changes_twice_is_left_in_its_last_state_everywhere(world: World) -> None:
    await world.together(
        world.committer.create(Create(V1, URL, {}), INTENT),
        world.committer.update(Update(V1, NEW), INTENT),
        world.create(V2),
    )
    last = Snapshot(V1, world.store.routes[V1], 3)
    assert world.of_routes == [("mark", [V1, V2]), ("settle", [V1, V2])]
    assert world.applied[0] == await world.shared() == last
    assert last.route
    assert last.route.url == NEW

    world.applied.clear()
    await world.together(world.committer.update(Update(V1, URL), INTENT), world.committer.delete(Delete(V1), INTENT))
    assert world.applied == [await world.shared()] == [Snapshot(V1, None, 5)]


async def test_a_group_leaves_the_shared_cache_at_the_last_state_when_a_reader_fills_in_between(world: World) -> None:
    """It leased and loaded before the group, and fills before the commit, and again after it."""
    world.store.put(V1)
    (miss,) = await world.cache.get([V1], "reader")
    assert miss.leased
    old = await world.store.load([V1])
    world.store.before_commit.close()
    updates = [Update(V1, NEW), Update(V1, NEW + "/2"), Update(V1, NEW + "/3")]
    writing = asyncio.gather(*(world.committer.update(one, INTENT) for one in updates))
    await world.store.before_commit.arrivals()
    await world.cache.fill(old, "reader")
    assert await world.shared() is None
    world.store.before_commit.open()
    await writing
    await world.cache.fill(old, "reader")
    assert await world.shared() == Snapshot(V1, world.store.routes[V1], 4)


async def test_of_two_creates_of_a_key_in_a_group_the_second_is_refused_with_the_revision_of_the_first(
    world: World,
) -> None:
    first, second = await world.together(world.create(V1), world.create(V1))
    assert first == Outcome(world.store.routes[V1], 1)
    assert isinstance(second, RouteExists)
    assert second.metadata["revision"] == "1"


async def test_a_refusal_in_the_middle_of_a_group_has_no_effect_on_the_others(world: World) -> None:
    before, refused, after = await world.together(
        world.create(V1),
        world.committer.update(Update(V1, NEW, expected_revision=7), INTENT),
        world.create(V2),
    )
    assert (before, after) == (Outcome(world.store.routes[V1], 1), Outcome(world.store.routes[V2], 2))
    assert isinstance(refused, RevisionMismatch)
    assert refused.metadata == {"key": str(V1), "expected_revision": "7", "revision": "1"}


async def test_what_was_deleted_in_a_group_is_absent_to_those_after_it(world: World) -> None:
    world.store.put(V1)
    gone, late = await world.together(
        world.committer.delete(Delete(V1), INTENT), world.committer.deactivate(Deactivate(V1), INTENT)
    )
    assert gone == Outcome(None, 2)
    assert isinstance(late, RouteNotFound)
    assert late.metadata["revision"] == "2"


async def test_the_same_request_twice_in_a_group_is_carried_out_once(world: World) -> None:
    first, again, reused = await world.together(
        world.create(V1, RETRY),
        world.create(V1, RETRY),
        world.create(V2, Intent("alice", request_id="id-1", fingerprint=b"other")),
    )
    assert first == again == Outcome(world.store.routes[V1], 1)
    assert isinstance(reused, RequestIdReused)
    assert len(world.store.changes) == 1
    assert await world.create(V1, RETRY) == first


async def test_a_request_that_was_refused_is_decided_anew_when_it_comes_again_in_the_group(world: World) -> None:
    refused, made, done = await world.together(
        world.committer.activate(Activate(V1, exclusive=True), RETRY),
        world.committer.create(Create(V1, URL, {}, active=False), INTENT),
        world.committer.activate(Activate(V1, exclusive=True), RETRY),
    )
    assert isinstance(refused, RouteNotFound)
    assert made == Outcome(world.store.changes[0].after, 1)
    assert done == Outcome(world.store.routes[V1], 2)


async def test_what_is_found_as_wanted_in_a_group_is_true_as_of_what_was_done_before_it(world: World) -> None:
    _, found = await world.together(world.create(V1), world.committer.activate(Activate(V1), INTENT))
    assert found == Outcome(world.store.routes[V1], 1)
    assert ("consume", [V1]) not in world.cache.journal


async def test_beside_changes_what_was_found_as_wanted_is_confirmed_as_of_all_of_them(world: World) -> None:
    route = world.store.put(V1)
    await world.together(world.committer.activate(Activate(V1), INTENT), world.create(V2), world.create(V3))
    assert world.of_routes == [("mark", [V2, V3]), ("settle", [V2, V3]), ("consume", [V1])]
    assert world.applied[-1] == Snapshot(V1, route, 3)


@pytest.mark.parametrize("commits_anyway", [False, True], ids=["rolled back", "committed unseen"])
async def test_when_the_commit_fails_all_of_the_group_fail_and_a_retry_has_the_one_answer(
    world: World, commits_anyway: bool
) -> None:
    world.store.commit_failure, world.store.commits_anyway = StoreUnavailable(), commits_anyway
    intents = {key: Intent("alice", request_id=str(key), fingerprint=b"body") for key in (V1, V2, V3)}
    failed = await world.together(*(world.create(key, intents[key]) for key in intents))
    assert [type(result) for result in failed] == [StoreUnavailable] * 3
    world.store.commit_failure = None
    outcomes = [await world.create(key, intents[key]) for key in intents]
    assert outcomes == [Outcome(world.store.routes[key], number) for number, key in enumerate(intents, 1)]
    assert [change.revision for change in world.store.changes] == [1, 2, 3]


async def test_a_mutation_that_would_have_been_refused_fails_with_the_group_too(world: World) -> None:
    """The refusal rests on what may not have been committed."""
    world.store.commit_failure = StoreUnavailable()
    failed = await world.together(world.create(V1), world.create(V1))
    assert [type(result) for result in failed] == [StoreUnavailable] * 2


async def test_a_mutation_that_breaks_the_transaction_breaks_its_own_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(changes: Sequence[Change]) -> None:
        if any(change.key == V2 for change in changes):
            raise ValueError("a value that no database takes")

    world.store.refuses = refuse
    results = await asyncio.gather(*(world.create(key) for key in (V1, V2, V3)), return_exceptions=True)
    assert world.store.groups == [3, 1, 1, 1]
    assert [type(result) for result in results] == [Outcome, ValueError, Outcome]
    assert [change.key for change in world.store.changes] == [V1, V3]
    assert "3 mutations failed together" in caplog.text


async def test_a_fault_after_the_commit_carries_nothing_out_twice(world: World) -> None:
    def fail(_: Sequence[Snapshot]) -> None:
        raise ValueError("a bug")

    world.committer._caches._apply_local_write = fail
    results = await world.together(world.create(V1), world.create(V2))
    assert [type(result) for result in results] == [ValueError] * 2
    assert [change.key for change in world.store.changes] == [V1, V2]


async def test_what_needs_no_change_is_answered_ok_without_redis(world: World) -> None:
    created = await world.create(V1)
    world.cache.down = True
    assert (await world.committer.activate(Activate(V1), INTENT)).route == created.route


async def test_every_key_of_a_group_that_needs_no_change_is_confirmed(world: World) -> None:
    for key in (V1, V2):
        await world.create(key)
    world.cache.journal.clear()
    world.applied.clear()
    await world.together(*(world.committer.activate(Activate(key), INTENT) for key in (V1, V2)))
    assert world.of_routes == [("consume", [V1, V2])]
    assert [snapshot.key for snapshot in world.applied] == [V1, V2]


async def test_a_request_id_that_was_used_for_another_request_is_named(world: World) -> None:
    await world.create(V1, RETRY)
    with pytest.raises(RequestIdReused, match="request_id id-1 was already used"):
        await world.create(V2, Intent("alice", request_id="id-1", fingerprint=b"other"))


async def test_too_many_waiting_mutations_are_refused_by_the_limit_of_writes(world: World) -> None:
    world.store.before_commit.close()
    keys = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(WAITING + GROUP + 1)]
    running = [asyncio.create_task(world.create(key)) for key in keys]
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    refused = done.pop().exception()
    assert isinstance(refused, Overloaded)
    assert "writes" in refused.metadata.values()
    world.store.before_commit.open()
    await asyncio.gather(*running, return_exceptions=True)


async def test_a_large_commit_has_a_group_of_its_own() -> None:
    store = MemoryStore()
    committer = GroupCommitter(store, MemoryCache(), lambda _: None)

    def commit(tenant: str) -> Awaitable[Outcome]:
        keys = [RouteKey(tenant, "payments", "prod", f"v{number}") for number in range(GROUP + 1)]
        return committer.commit(Commit([Create(key, URL, {}) for key in keys]), INTENT)

    store.before_commit.close()
    singles = [committer.create(Create(key, URL, {}), INTENT) for key in (V1, V2)]
    running = [asyncio.ensure_future(work) for work in (*singles, commit("team-b"), commit("team-c"))]
    await store.before_commit.arrivals()
    store.before_commit.open()
    outcomes = await asyncio.gather(*running)
    assert store.groups == [2, 1, 1]
    assert [outcome.change_count for outcome in outcomes] == [0, 0, GROUP + 1, GROUP + 1]


# Traffic, families and commits


WHOLE = Division((Target("v1", 10_000),))


async def test_traffic_is_set_read_back_and_deleted_like_a_route(world: World) -> None:
    world.store.put(V1)
    outcome = await world.committer.set_traffic(SetTraffic(FAMILY, WHOLE), INTENT)
    traffic = world.store.traffic[FAMILY]
    assert outcome == Outcome(None, 2, traffic)
    assert (traffic.division, traffic.slices) == (WHOLE, (Slice("v1", 10_000),))
    assert await world.committer.set_traffic(SetTraffic(FAMILY, WHOLE), INTENT) == Outcome(None, 2, traffic)
    with pytest.raises(RouteInTraffic):
        await world.committer.delete(Delete(V1), INTENT)
    assert await world.committer.delete_traffic(DeleteTraffic(FAMILY), INTENT) == Outcome(None, 3)
    assert await world.committer.delete(Delete(V1), INTENT) == Outcome(None, 4)
    assert [change.kind for change in world.store.changes] == [
        ChangeKind.TRAFFIC_SET, ChangeKind.TRAFFIC_DELETED, ChangeKind.DELETED,
    ]  # fmt: skip


async def test_malformed_traffic_reaches_no_store(world: World) -> None:
    with pytest.raises(InvalidField, match="must have weights that add up to 10,000"):
        await world.committer.set_traffic(SetTraffic(FAMILY, Division((Target("v1", 1),))), INTENT)
    assert world.journal == []


async def test_each_change_of_a_route_or_of_traffic_drops_its_family_here_and_in_the_shared_cache(world: World) -> None:
    for number, change in enumerate(
        (
            world.create(V1),
            world.committer.set_traffic(SetTraffic(FAMILY, WHOLE), INTENT),
            world.committer.deactivate(Deactivate(V1), INTENT),
            world.committer.delete_traffic(DeleteTraffic(FAMILY), INTENT),
            world.committer.delete(Delete(V1), INTENT),
        ),
        1,
    ):
        await world.cache.get([FAMILY], "reader")
        await world.cache.fill([Snapshot(FAMILY, None, number - 1)], "reader")
        world.cache.journal.clear()
        await change
        assert world.of_families == [("mark_held", [FAMILY]), ("drop_older", [FAMILY])]
        assert world.superseded == {FAMILY: number}
        assert await world.shared(FAMILY) is None
        world.cache.flush()


async def test_a_change_of_traffic_marks_and_settles_no_route(world: World) -> None:
    world.store.put(V1)
    await world.committer.set_traffic(SetTraffic(FAMILY, WHOLE), INTENT)
    assert (world.of_routes, world.applied) == ([], [])


async def test_a_refused_commit_has_no_effect_on_its_group(world: World) -> None:
    refused, made = await asyncio.gather(
        world.committer.commit(Commit([Create(V2, URL, {}), Delete(V3)]), INTENT),
        world.create(V1),
        return_exceptions=True,
    )
    assert isinstance(refused, MutationsRefused)
    assert made == Outcome(world.store.routes[V1], 1)
    assert list(world.store.routes) == [V1]


async def test_a_dry_run_takes_the_lock_records_nothing_and_tells_nobody(world: World) -> None:
    outcome = await world.committer.commit(Commit([Create(V1, URL, {})], dry_run=True), RETRY)
    assert (outcome.change_set_id, outcome.change_count, outcome.revision) == (1, 1, 0)
    assert world.journal == ["lock", "commit"]
    assert (world.store.changes, world.store.requests, world.cache.journal) == ([], {}, [])
    assert (world.applied, world.superseded, world.committed) == ([], {}, [])


async def test_the_same_commit_twice_in_a_group_is_carried_out_once(world: World) -> None:
    commit = Commit([Create(V1, URL, {}), Create(V2, URL, {})])
    first, again = await world.together(*(world.committer.commit(commit, RETRY) for _ in range(2)))
    assert first == again == Outcome(None, 2, None, (Step(1, 1), Step(2, 1)), 1, 2)
    assert len(world.store.changes) == 2


async def test_a_decision_of_another_kind_is_one_change_set(world: World) -> None:
    """The entry for whatever decides drafts of its own, such as a revert."""
    route = world.store.put(V1)

    def decide(overlay: Overlay) -> Sequence[Step]:
        assert overlay.see(V1).route == route
        drafts = [Draft(ChangeKind.DELETED, V1, route), Draft(ChangeKind.CREATED, V2, None, URL, True)]
        return [overlay.apply(drafts)]

    outcome = await world.committer.change_set(MutationScope(V1, RETRY, others=(V1, V2)), decide)
    assert outcome == Outcome(None, 3, None, (Step(2, 2),), 2, 2)
    assert [(change.change_set_id, change.change_set_size) for change in world.store.changes] == [(2, 2)] * 2
