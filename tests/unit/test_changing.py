"""The write path: what each mutation decides, and in which order it is carried out."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import pytest

from pointsman_server.changing import (
    Activate,
    Changer,
    Create,
    Deactivate,
    Delete,
    Update,
    decide_activate,
    decide_create,
    decide_deactivate,
    decide_delete,
    decide_update,
)
from pointsman_server.errors import (
    InvalidField,
    PointsmanError,
    RequestIdReused,
    RevisionMismatch,
    RouteExists,
    RouteNotFound,
    StoreUnavailable,
)
from pointsman_server.ports import Intent, Locked, Outcome
from pointsman_server.routes import ChangeKind, Draft, Route, RouteKey, Snapshot
from tests.support.fakes import BIRTH, MemoryCache, MemoryStore

V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
URL, NEW = "https://old.internal", "https://new.internal"
LABELS = {"tier": "gold"}
INTENT = Intent("alice")


def route(key: RouteKey = V1, *, active: bool = True, revision: int = 5) -> Route:
    return Route(key, URL, active, LABELS, revision, BIRTH, BIRTH)


def seen(found: Route | None = None, *siblings: Route) -> Locked:
    return Locked(found, siblings, 9, "epoch")


# Create


@pytest.mark.parametrize("active", [True, False])
def test_create_makes_the_route_that_was_asked_for(active: bool) -> None:
    drafts = decide_create(Create(V1, NEW, LABELS, active), seen(None, route(V2)))
    assert drafts == [Draft(ChangeKind.CREATED, V1, None, NEW, active, LABELS)]


def test_created_routes_are_active_unless_asked_otherwise() -> None:
    assert Create(V1, NEW, {}).active


@pytest.mark.parametrize("active", [True, False])
def test_create_refuses_a_taken_key_with_its_revision(active: bool) -> None:
    with pytest.raises(RouteExists) as refused:
        decide_create(Create(V1, NEW, {}), seen(route(active=active)))
    assert refused.value.metadata == {"key": str(V1), "revision": "5"}


# Update


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize(
    ("url", "labels", "becomes"),
    [
        (NEW, None, (NEW, LABELS)),
        (None, {"a": "b"}, (URL, {"a": "b"})),
        (None, {}, (URL, {})),
        (NEW, {}, (NEW, {})),
        (NEW, LABELS, (NEW, LABELS)),
    ],
)
def test_update_changes_what_is_set_and_leaves_the_rest(
    active: bool, url: str | None, labels: dict[str, str] | None, becomes: tuple[str, dict[str, str]]
) -> None:
    before = route(active=active)
    drafts = decide_update(Update(V1, url, labels), seen(before))
    assert drafts == [Draft(ChangeKind.UPDATED, V1, before, becomes[0], active, becomes[1])]


@pytest.mark.parametrize(("url", "labels"), [(URL, None), (None, LABELS), (URL, LABELS), (None, None)])
def test_update_to_what_already_is_makes_no_change(url: str | None, labels: dict[str, str] | None) -> None:
    assert decide_update(Update(V1, url, labels), seen(route())) == []


def test_update_of_an_absent_route_is_refused() -> None:
    with pytest.raises(RouteNotFound):
        decide_update(Update(V1, NEW), seen())


@pytest.mark.parametrize("labels", [None, {}, LABELS])
def test_upsert_creates_an_absent_route_active(labels: dict[str, str] | None) -> None:
    drafts = decide_update(Update(V1, NEW, labels, allow_missing=True), seen())
    assert drafts == [Draft(ChangeKind.CREATED, V1, None, NEW, active=True, labels=labels or {})]


def test_upsert_without_a_url_cannot_create() -> None:
    with pytest.raises(InvalidField, match="url: is required to create the route"):
        decide_update(Update(V1, None, LABELS, allow_missing=True), seen())


@pytest.mark.parametrize("active", [True, False])
def test_upsert_of_a_present_route_is_an_update_and_leaves_its_activity(active: bool) -> None:
    before = route(active=active)
    drafts = decide_update(Update(V1, NEW, allow_missing=True), seen(before))
    assert drafts == [Draft(ChangeKind.UPDATED, V1, before, NEW, active, LABELS)]


# Activate and deactivate


def test_activate_switches_an_inactive_route_on_and_changes_nothing_else() -> None:
    before = route(active=False)
    drafts = decide_activate(Activate(V1), seen(before, route(V2)))
    assert drafts == [Draft(ChangeKind.ACTIVATED, V1, before, URL, True, LABELS)]


def test_activating_an_active_route_makes_no_change() -> None:
    assert decide_activate(Activate(V1), seen(route(), route(V2))) == []


def test_exclusive_activation_comes_first_then_every_active_sibling_goes_inactive() -> None:
    before, sibling, idle = route(active=False), route(V2, revision=6), route(V3, active=False)
    drafts = decide_activate(Activate(V1, exclusive=True), seen(before, idle, sibling))
    assert drafts == [
        Draft(ChangeKind.ACTIVATED, V1, before, URL, True, LABELS),
        Draft(ChangeKind.DEACTIVATED, V2, sibling, URL, False, LABELS),
    ]


def test_exclusive_activation_of_an_active_route_deactivates_its_siblings_only() -> None:
    drafts = decide_activate(Activate(V1, exclusive=True), seen(route(), route(V2), route(V3)))
    assert [(draft.kind, draft.key) for draft in drafts] == [
        (ChangeKind.DEACTIVATED, V2),
        (ChangeKind.DEACTIVATED, V3),
    ]


def test_exclusive_activation_of_the_only_active_route_makes_no_change() -> None:
    assert decide_activate(Activate(V1, exclusive=True), seen(route(), route(V2, active=False))) == []


def test_deactivate_switches_an_active_route_off_and_changes_nothing_else() -> None:
    before = route()
    drafts = decide_deactivate(Deactivate(V1), seen(before, route(V2)))
    assert drafts == [Draft(ChangeKind.DEACTIVATED, V1, before, URL, False, LABELS)]


def test_deactivating_an_inactive_route_makes_no_change() -> None:
    assert decide_deactivate(Deactivate(V1), seen(route(active=False))) == []


# Delete


@pytest.mark.parametrize("active", [True, False])
def test_delete_removes_a_route_active_or_not(active: bool) -> None:
    before = route(active=active)
    assert decide_delete(Delete(V1), seen(before, route(V2))) == [Draft(ChangeKind.DELETED, V1, before)]


# What they share

DECISIONS: list[Callable[[int, Locked], Sequence[Draft]]] = [
    lambda expected, found: decide_update(Update(V1, NEW, expected_revision=expected), found),
    lambda expected, found: decide_activate(Activate(V1, expected), found),
    lambda expected, found: decide_deactivate(Deactivate(V1, expected), found),
    lambda expected, found: decide_delete(Delete(V1, expected), found),
]
every_decision = pytest.mark.parametrize("decide", DECISIONS, ids=["update", "activate", "deactivate", "delete"])
both = pytest.mark.parametrize("active", [True, False])


@every_decision
def test_an_absent_route_is_refused_with_the_revision_as_of_which_it_is_absent(
    decide: Callable[[int, Locked], Sequence[Draft]],
) -> None:
    for expected in (0, 5):
        with pytest.raises(RouteNotFound) as refused:
            decide(expected, seen(None, route(V2)))
        assert refused.value.metadata == {"key": str(V1), "revision": "9", "epoch": "epoch"}


@every_decision
@both
def test_another_revision_than_expected_is_refused_even_when_there_is_nothing_to_change(
    decide: Callable[[int, Locked], Sequence[Draft]], active: bool
) -> None:
    for expected in (4, 6, 9):
        with pytest.raises(RevisionMismatch) as refused:
            decide(expected, seen(route(active=active)))
        assert refused.value.metadata == {"key": str(V1), "expected_revision": str(expected), "revision": "5"}


@every_decision
@both
def test_the_expected_revision_is_as_good_as_none(
    decide: Callable[[int, Locked], Sequence[Draft]], active: bool
) -> None:
    assert decide(5, seen(route(active=active))) == decide(0, seen(route(active=active)))


# Carrying out


class JournalCache(MemoryCache):
    """Writes into the journal of the world, too."""

    def __init__(self, journal: list[str]) -> None:
        super().__init__()
        self.told = journal

    async def mark(self, keys: Sequence[RouteKey], token: str) -> None:
        self.told.append("mark")
        await super().mark(keys, token)

    async def settle(self, snapshots: Sequence[Snapshot], token: str) -> None:
        self.told.append("settle")
        await super().settle(snapshots, token)


class World:
    """A changer, and everything that it tells."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.journal = self.store.journal
        self.cache = JournalCache(self.journal)
        self.learnt: list[Snapshot] = []
        self.changer = Changer(self.store, self.cache, self.learn)

    def learn(self, snapshots: Sequence[Snapshot]) -> None:
        self.journal.append("learn")
        self.learnt += snapshots

    async def shared(self, key: RouteKey = V1) -> Snapshot | None:
        (found,) = await self.cache.get([key], "reader")
        return found.snapshot


@pytest.fixture
def world() -> World:
    return World()


async def test_marked_before_the_commit_settled_and_learnt_after_it(world: World) -> None:
    await world.changer.create(Create(V1, URL, {}), INTENT)
    assert world.journal == ["lock", "mark", "record", "commit", "learn", "settle"]


async def test_a_mutation_is_answered_with_the_route_after_it_and_its_revision(world: World) -> None:
    outcome = await world.changer.create(Create(V1, URL, LABELS), INTENT)
    assert outcome == Outcome(world.store.routes[V1], 1)
    assert outcome.route
    assert (outcome.route.url, outcome.route.labels, outcome.route.revision) == (URL, LABELS, 1)


async def test_after_the_answer_caches_hold_what_was_written(world: World) -> None:
    outcome = await world.changer.create(Create(V1, URL, {}), INTENT)
    assert world.learnt == [await world.shared()] == [Snapshot(V1, outcome.route, 1)]


async def test_after_a_delete_caches_hold_the_absence_with_its_revision(world: World) -> None:
    await world.changer.create(Create(V1, URL, {}), INTENT)
    assert await world.changer.delete(Delete(V1), INTENT) == Outcome(None, 2)
    assert await world.shared() == world.learnt[-1] == Snapshot(V1, None, 2)


async def test_an_exclusive_activation_marks_learns_and_settles_every_route_that_it_changes(world: World) -> None:
    for key, active in ((V1, False), (V2, True), (V3, True)):
        await world.changer.create(Create(key, URL, {}, active), INTENT)
    world.cache.journal.clear()
    world.learnt.clear()
    outcome = await world.changer.activate(Activate(V1, exclusive=True), INTENT)
    assert world.cache.journal == [("mark", [V1, V2, V3]), ("settle", [V1, V2, V3])]
    assert world.learnt == [Snapshot(key, world.store.routes[key], 4 + i) for i, key in enumerate((V1, V2, V3))]
    assert outcome == Outcome(world.store.routes[V1], 6)


async def test_what_changes_is_learnt_before_the_shared_cache_is_waited_for(world: World) -> None:
    """So that whoever asks this server from now on gets it, however slow Redis is."""
    await world.changer.create(Create(V1, URL, {}), INTENT)
    assert world.journal.index("learn") < world.journal.index("settle")


Mutate = Callable[[Changer], Awaitable[Outcome]]

NO_CHANGE: dict[str, Mutate] = {
    "update": lambda changer: changer.update(Update(V1, URL), INTENT),
    "activate": lambda changer: changer.activate(Activate(V1), INTENT),
    "deactivate": lambda changer: changer.deactivate(Deactivate(V2), INTENT),
}


@pytest.mark.parametrize("mutate", NO_CHANGE.values(), ids=NO_CHANGE)
async def test_a_mutation_that_changes_nothing_marks_and_settles_nothing_and_takes_no_revision(
    world: World, mutate: Mutate
) -> None:
    route = world.store.put(V1)
    idle = world.store.put(V2, active=False)
    outcome = await mutate(world.changer)
    assert outcome == Outcome(idle if outcome.route == idle else route, 2)
    assert [what for what, _ in world.cache.journal] == ["consume"]
    assert world.store.changes == []
    assert "record" not in world.journal


async def test_a_mutation_that_changes_nothing_still_shows_this_server_what_is(world: World) -> None:
    """It is answered OK: from then on, this server must not answer the state before, which it may have cached."""
    route = world.store.put(V1)
    outcome = await world.changer.activate(Activate(V1), INTENT)
    assert world.learnt == [Snapshot(V1, route, outcome.revision)]
    assert world.journal == ["lock", "learn", "commit"]


async def test_what_was_found_as_wanted_is_shown_with_its_epoch(world: World) -> None:
    """A token without one cannot be told from one of the time before a restore."""
    world.store.put(V1)
    await world.changer.activate(Activate(V1), INTENT)
    await world.changer.create(Create(V2, URL, {}), RETRY)
    await world.changer.create(Create(V2, URL, {}), RETRY)
    assert [snapshot.epoch for snapshot in world.learnt] == [world.store.epoch] * 3


REFUSED: dict[str, tuple[Mutate, type[PointsmanError]]] = {
    "create": (lambda changer: changer.create(Create(V1, URL, {}), INTENT), RouteExists),
    "update": (lambda changer: changer.update(Update(V1, NEW, expected_revision=9), INTENT), RevisionMismatch),
    "activate": (lambda changer: changer.activate(Activate(V3), INTENT), RouteNotFound),
    "deactivate": (lambda changer: changer.deactivate(Deactivate(V3), INTENT), RouteNotFound),
    "delete": (lambda changer: changer.delete(Delete(V1, 9), INTENT), RevisionMismatch),
}


@pytest.mark.parametrize(("mutate", "error"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_mutation_tells_the_caches_nothing_and_leaves_nothing(
    world: World, mutate: Mutate, error: type[PointsmanError]
) -> None:
    world.store.put(V1)
    with pytest.raises(error):
        await mutate(world.changer)
    assert (world.cache.journal, world.learnt, world.store.revision) == ([], [], 1)
    assert world.journal == ["lock"]


@pytest.mark.parametrize(
    "mutate",
    [
        lambda changer: changer.create(Create(V1, "no url", {}), INTENT),
        lambda changer: changer.update(Update(V1, "no url"), INTENT),
    ],
)
async def test_a_bad_url_is_refused_before_anything_is_locked(world: World, mutate: Mutate) -> None:
    with pytest.raises(InvalidField):
        await mutate(world.changer)
    assert world.journal == []


async def test_who_looks_between_mark_and_settle_gets_neither_the_old_nor_the_new_state(world: World) -> None:
    world.store.put(V1)
    await world.cache.get([V1], "filler")
    await world.cache.fill([Snapshot(V1, world.store.routes[V1], 1)], "filler")
    world.store.before_commit.close()
    writing = asyncio.create_task(world.changer.update(Update(V1, NEW), INTENT))
    await world.store.before_commit.arrivals()
    assert await world.shared() is None
    assert world.learnt == []
    world.store.before_commit.open()
    await writing
    found = await world.shared()
    assert found
    assert found.route
    assert found.route.url == NEW


@pytest.mark.parametrize("commits_anyway", [False, True], ids=["rolled back", "committed unseen"])
async def test_when_the_commit_fails_nothing_is_learnt_or_settled_and_the_mark_stays(
    world: World, commits_anyway: bool
) -> None:
    """The outcome is unknown: no cache may say either, until the mark expires."""
    world.store.commit_failure = StoreUnavailable()
    world.store.commits_anyway = commits_anyway
    with pytest.raises(StoreUnavailable):
        await world.changer.create(Create(V1, URL, {}), INTENT)
    assert world.learnt == []
    assert "settle" not in world.journal
    (found,) = await world.cache.get([V1], "reader")
    assert (found.snapshot, found.leased) == (None, False)


async def test_a_writer_that_is_cancelled_before_its_commit_leaves_nothing_but_the_mark(world: World) -> None:
    world.store.before_commit.close()
    writing = asyncio.create_task(world.changer.create(Create(V1, URL, {}), INTENT))
    await world.store.before_commit.arrivals()
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    world.store.before_commit.open()
    assert (world.store.routes, world.learnt) == ({}, [])
    assert (await world.changer.create(Create(V1, URL, {}), INTENT)).revision == 1


async def test_with_the_shared_cache_down_writes_go_on(world: World) -> None:
    world.cache.down = True
    outcome = await world.changer.create(Create(V1, URL, {}), INTENT)
    assert world.learnt == [Snapshot(V1, outcome.route, 1)]


async def test_with_the_store_down_no_write_is_answered_and_no_cache_is_touched(world: World) -> None:
    world.store.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await world.changer.create(Create(V1, URL, {}), INTENT)
    assert (world.journal, world.learnt) == ([], [])


# Replay

RETRY = Intent("alice", request_id="id-1", fingerprint=b"body")


async def test_the_same_request_again_is_answered_as_the_first_and_changes_nothing(world: World) -> None:
    first = await world.changer.create(Create(V1, URL, {}), RETRY)
    await world.changer.delete(Delete(V1), INTENT)
    world.cache.journal.clear()
    assert await world.changer.create(Create(V1, URL, {}), RETRY) == first
    assert world.cache.journal == [("consume", [V1])]
    assert world.store.revision == 2


async def test_a_retry_whose_first_answer_was_lost_is_applied_once(world: World) -> None:
    world.store.commit_failure, world.store.commits_anyway = StoreUnavailable(), True
    with pytest.raises(StoreUnavailable):
        await world.changer.create(Create(V1, URL, {}), RETRY)
    world.store.commit_failure = None
    assert await world.changer.create(Create(V1, URL, {}), RETRY) == Outcome(world.store.routes[V1], 1)
    assert len(world.store.changes) == 1


async def test_a_retry_whose_first_attempt_was_rolled_back_is_applied_now(world: World) -> None:
    world.store.commit_failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await world.changer.create(Create(V1, URL, {}), RETRY)
    world.store.commit_failure = None
    assert (await world.changer.create(Create(V1, URL, {}), RETRY)).revision == 1


async def test_a_replay_shows_this_server_what_is_now_not_what_was_then(world: World) -> None:
    """The first attempt may have gone to another server: this one may still have cached the state before it."""
    await world.changer.create(Create(V1, URL, {}), RETRY)
    now = world.store.put(V1, NEW)
    world.learnt.clear()
    replayed = await world.changer.create(Create(V1, URL, {}), RETRY)
    assert replayed.revision == 1
    assert world.learnt == [Snapshot(V1, now, 2)]


async def test_the_outcome_without_a_change_is_replayed_too(world: World) -> None:
    world.store.put(V1)
    first = await world.changer.activate(Activate(V1), RETRY)
    world.store.put(V1, active=False)
    assert await world.changer.activate(Activate(V1), RETRY) == first


async def test_a_refusal_is_not_remembered(world: World) -> None:
    with pytest.raises(RouteNotFound):
        await world.changer.activate(Activate(V1), RETRY)
    route = world.store.put(V1)
    assert (await world.changer.activate(Activate(V1), RETRY)).route == route


async def test_the_same_id_with_another_request_is_refused_and_touches_no_cache(world: World) -> None:
    await world.changer.create(Create(V1, URL, {}), RETRY)
    world.cache.journal.clear()
    world.learnt.clear()
    with pytest.raises(RequestIdReused):
        await world.changer.create(Create(V2, URL, {}), Intent("alice", request_id="id-1", fingerprint=b"other"))
    assert (world.cache.journal, world.learnt) == ([], [])


async def test_without_a_request_id_nothing_is_remembered(world: World) -> None:
    await world.changer.create(Create(V1, URL, {}), INTENT)
    assert world.store.requests == {}
