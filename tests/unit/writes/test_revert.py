"""writes.revert: what a revert decides, on the ledger."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.domain.errors import EpochChanged, PointsmanError, RouteInTraffic, TargetNotFound
from pointsman_server.domain.routes import HEARTBEAT, Change, ChangeKind, RouteKey
from pointsman_server.domain.traffic import Division, Slice, Target
from pointsman_server.ports.store import Clock, Intent, LockedState
from pointsman_server.writes import commit
from pointsman_server.writes.ledger import Ledger, changes_of
from pointsman_server.writes.mutations import (
    Activate,
    Command,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    SetTraffic,
    Update,
)
from pointsman_server.writes.overlay import Overlay
from pointsman_server.writes.revert import Touched, Undoing, Undone, decide_revert, scope_of
from tests.support.fakes import BIRTH, EPOCH

FAMILY = RouteKey("team-a", "payments", "prod", "")
V1, V2, V3 = (FAMILY._replace(version=version) for version in ("v1", "v2", "v3"))
OTHER = RouteKey("team-b", "orders", "dev", "v1")
URL, NEW = "https://old.internal", "https://new.internal"
INTENT = Intent("alice")
KINDS = ChangeKind


class Content(NamedTuple):
    """What a revert brings back."""

    routes: dict[RouteKey, tuple[str, bool, dict[str, str]]]
    traffic: dict[RouteKey, tuple[Division, tuple[Slice, ...]]]


class World:
    """A ledger that commits and reverts."""

    def __init__(self, *commands: Command) -> None:
        self.ledger = Ledger(LockedState(Clock(EPOCH, 0), BIRTH + timedelta(days=1), [], []))
        self.changes: list[Change] = []
        self.do(*commands)

    def do(self, *commands: Command) -> list[Change]:
        overlay = Overlay(self.ledger)
        if commands:
            commit.decide_all(commands)(overlay)
        return self._take(overlay)

    def revert(self, changes: Sequence[Change], *, force: bool = False, epoch: str = EPOCH) -> list[Change]:
        overlay = Overlay(self.ledger)
        undone = undone_by(changes)
        if undone:
            (step,) = decide_revert(undone, epoch, force=force)(overlay)
            assert step.change_count == len(overlay.applied)
        return self._take(overlay)

    def content(self) -> Content:
        families = {change.key.family_key for change in self.changes}
        routes = {key: route for family in families for key, route in self.ledger.routes_of(family).items()}
        traffic = {family: found for family in families if (found := self.ledger.traffic_of(family))}
        return Content(
            {key: (route.url, route.active, dict(route.labels)) for key, route in routes.items()},
            {key: (each.division, each.slices) for key, each in traffic.items()},
        )

    def _take(self, overlay: Overlay) -> list[Change]:
        changes = changes_of(overlay, INTENT, self.ledger)
        self.ledger.adopt(overlay, changes)
        self.changes += changes
        return changes


def undone_by(changes: Sequence[Change]) -> list[Undone]:
    undoing = Undoing()
    undoing.add(changes)
    return list(undoing.undone.values())


def divided(*weights: tuple[str, int], fallbacks: tuple[str, ...] = ()) -> SetTraffic:
    return SetTraffic(FAMILY, Division(tuple(Target(*each) for each in weights), fallbacks))


def kinds(changes: Sequence[Change]) -> list[tuple[ChangeKind, str]]:
    return [(change.kind, change.key.version) for change in changes]


CREATED = (Create(V1, URL, {"tier": "gold"}), Create(V2, URL, {}, active=False))


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([Create(V3, URL, {})], [(KINDS.DELETED, "v3")]),
        ([Update(V1, NEW)], [(KINDS.UPDATED, "v1")]),
        ([Update(V1, labels={})], [(KINDS.UPDATED, "v1")]),
        ([Activate(V2)], [(KINDS.DEACTIVATED, "v2")]),
        ([Deactivate(V1)], [(KINDS.ACTIVATED, "v1")]),
        ([Delete(V1)], [(KINDS.CREATED, "v1")]),
        ([Delete(V2)], [(KINDS.CREATED, "v2")]),
        ([divided(("v1", 10_000))], [(KINDS.TRAFFIC_DELETED, "")]),
        # Both the url and whether it is active: one change.
        ([Update(V1, NEW), Deactivate(V1)], [(KINDS.UPDATED, "v1")]),
        # Something that was there only in between.
        ([Create(V3, URL, {}), Delete(V3)], []),
        ([Deactivate(V1), Activate(V1)], []),
    ],
)
def test_each_mutation_is_undone_by_its_inverse(commands, expected) -> None:
    world = World(*CREATED)
    before = world.content()

    undone = world.revert(world.do(*commands))

    assert kinds(undone) == expected
    assert world.content() == before


def test_the_former_slices_come_back_so_that_every_caller_is_where_it_was() -> None:
    world = World(*CREATED, divided(("v2", 5_000), ("v1", 5_000)))
    before = world.content()
    # From here new slices of the same weights would begin with v1.
    changes = world.do(divided(("v1", 10_000)))

    assert kinds(world.revert(changes)) == [(KINDS.TRAFFIC_SET, "")]
    assert world.content() == before


def test_removed_traffic_comes_back() -> None:
    world = World(*CREATED, divided(("v1", 5_000), ("v2", 5_000)))
    before = world.content()

    assert kinds(world.revert(world.do(DeleteTraffic(FAMILY)))) == [(KINDS.TRAFFIC_SET, "")]
    assert world.content() == before


def test_what_takes_over_is_there_before_what_goes() -> None:
    world = World(*CREATED, divided(("v1", 10_000)))
    changes = world.do(
        Create(V3, URL, {}),
        Activate(V2),
        divided(("v3", 10_000)),
        Deactivate(V1),
        Update(V2, NEW),
        Create(OTHER, URL, {}),
    )

    assert kinds(world.revert(changes)) == [
        (KINDS.ACTIVATED, "v1"),
        (KINDS.TRAFFIC_SET, ""),
        # The former url, too, but it deactivates.
        (KINDS.UPDATED, "v2"),
        (KINDS.DELETED, "v3"),
        (KINDS.DELETED, "v1"),
    ]


def test_a_route_that_is_created_again_begins_anew() -> None:
    world = World(*CREATED)
    (again,) = world.revert(world.do(Delete(V1)))
    assert again.before is None
    assert again.after is not None
    assert again.after.labels == {"tier": "gold"}


def test_a_revert_of_a_revert_does_it_again() -> None:
    world = World(*CREATED, divided(("v1", 10_000)))
    changes = world.do(Create(V3, URL, {}), Update(V1, NEW), divided(("v1", 4_000), ("v3", 6_000)), Delete(V2))
    after = world.content()

    undone = world.revert(changes)
    assert world.content() != after
    world.revert(undone)

    assert world.content() == after


def test_undoing_it_twice_changes_nothing_more() -> None:
    world = World(*CREATED)
    changes = world.do(Update(V1, NEW), Delete(V2))
    world.revert(changes)

    assert world.revert(changes) == []


def test_a_key_that_was_changed_since_is_refused_with_its_present_revision() -> None:
    world = World(*CREATED)
    changes = world.do(Update(V1, NEW), Update(V2, NEW), divided(("v1", 10_000)), Create(V3, URL, {}))
    moved, *_ = world.do(Deactivate(V1), Delete(V3))
    before = world.content()

    with pytest.raises(Touched) as caught:
        world.revert(changes)

    assert [(undone.key, revision) for undone, revision in caught.value.touched] == [(V1, moved.revision)]
    assert caught.value.message == "1 keys were changed since"
    assert world.content() == before


@pytest.mark.parametrize(
    ("done", "since", "gone"),
    [
        ([Update(V1, NEW)], [Delete(V1)], True),
        ([Update(V1, NEW)], [Delete(V1), Create(V1, NEW, {})], False),
        ([Delete(V1)], [Create(V1, NEW, {})], False),
        ([divided(("v1", 10_000))], [divided(("v2", 10_000))], False),
        ([divided(("v1", 10_000)), divided(("v2", 10_000))], [DeleteTraffic(FAMILY)], None),
    ],
)
def test_everything_that_would_be_lost_is_noticed(done, since, gone) -> None:
    world = World(*CREATED)
    changes = world.do(*done)
    later = world.do(*since)

    if gone is None:
        assert world.revert(changes) == []
        return
    with pytest.raises(Touched) as caught:
        world.revert(changes)
    assert [revision for _, revision in caught.value.touched] == [0 if gone else later[-1].revision]


def test_what_was_made_and_removed_again_since_is_no_loss() -> None:
    world = World(*CREATED)
    changes = world.do(Delete(V1))
    world.do(Create(V1, NEW, {}))
    world.do(Delete(V1))

    assert kinds(world.revert(changes)) == [(KINDS.CREATED, "v1")]


def test_force_brings_back_what_was_before_whatever_was_done_since() -> None:
    world = World(*CREATED)
    before = world.content()
    changes = world.do(Update(V1, NEW), Activate(V2), Create(V3, URL, {}))
    world.do(Delete(V1), Update(V2, NEW, {"a": "b"}), Deactivate(V3))

    world.revert(changes, force=True)

    assert world.content() == before


def test_a_version_that_traffic_names_now_is_not_deleted_even_by_force() -> None:
    world = World(*CREATED)
    changes = world.do(Create(V3, URL, {}))
    (shifted,) = world.do(divided(("v1", 5_000), ("v3", 5_000)))

    for force in (False, True):
        with pytest.raises(RouteInTraffic) as caught:
            world.revert(changes, force=force)
        assert caught.value.metadata == {"key": str(V3), "traffic_revision": str(shifted.revision)}


def test_traffic_that_names_a_version_which_is_gone_is_not_set_again_even_by_force() -> None:
    world = World(*CREATED, divided(("v2", 10_000)))
    changes = world.do(divided(("v1", 10_000)))
    world.do(Delete(V2))

    for force in (False, True):
        with pytest.raises(TargetNotFound) as caught:
            world.revert(changes, force=force)
        assert caught.value.metadata == {"key": str(FAMILY), "versions": "v2"}


def test_traffic_and_the_versions_that_it_names_come_back_together() -> None:
    world = World(*CREATED, divided(("v2", 10_000)))
    before = world.content()
    changes = world.do(divided(("v1", 10_000)), Delete(V2))

    assert kinds(world.revert(changes)) == [(KINDS.CREATED, "v2"), (KINDS.TRAFFIC_SET, "")]
    assert world.content() == before


def test_a_part_of_a_set_is_undone_alone() -> None:
    world = World(*CREATED)
    first, _second = world.do(Update(V1, NEW), Update(V2, NEW))

    assert kinds(world.revert([first])) == [(KINDS.UPDATED, "v1")]


def test_a_range_brings_back_what_was_before_its_first_change_of_a_key() -> None:
    world = World(*CREATED)
    before = world.content()
    changes = [
        *world.do(Update(V1, NEW)),
        *world.do(Deactivate(V1)),
        *world.do(Delete(V1)),
        *world.do(Create(V1, NEW, {})),
    ]

    assert kinds(world.revert(changes)) == [(KINDS.UPDATED, "v1")]
    assert world.content() == before


def test_heartbeats_in_a_range_stay() -> None:
    world = World(*CREATED, Create(HEARTBEAT, URL, {}))
    changes = world.do(Update(HEARTBEAT, NEW), Update(V1, NEW))
    world.do(Update(HEARTBEAT, URL))

    assert kinds(world.revert(changes)) == [(KINDS.UPDATED, "v1")]
    assert undone_by(changes[:1]) == []


def test_a_store_that_was_restored_since_is_left_alone() -> None:
    world = World(*CREATED)
    with pytest.raises(EpochChanged) as caught:
        world.revert(world.changes, epoch="another")
    assert caught.value.metadata == {"epoch": EPOCH, "resume_epoch": "another"}


def test_families_are_locked_where_traffic_has_to_be_known() -> None:
    world = World(*CREATED)
    undone = undone_by([*world.do(Update(V1, NEW)), *world.do(Create(OTHER, URL, {}))])
    scope = scope_of(undone, INTENT)
    assert (scope.key, scope.intent, scope.family) == (V1, INTENT, False)
    assert list(scope.others) == [V1, OTHER.family_key]

    scope = scope_of(undone_by(world.do(divided(("v1", 10_000)))), INTENT)
    assert (scope.key, scope.family, list(scope.others)) == (FAMILY, True, [FAMILY])


# Any commits of any mutations, on two families, so that names meet.
KEYS = [V1, V2, V3, RouteKey("team-b", "orders", "prod", "v1"), RouteKey("team-b", "orders", "prod", "v2")]
keys = st.sampled_from(KEYS)
urls, labels = st.sampled_from([URL, NEW]), st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"))


@st.composite
def divisions(draw: st.DrawFn) -> SetTraffic:
    family = draw(keys).family_key
    versions = draw(st.lists(st.sampled_from(["v1", "v2", "v3"]), min_size=1, max_size=3, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=len(versions) - 1, max_size=len(versions) - 1)))
    weights = [100 * (end - begin) for begin, end in pairwise([0, *cuts, 100])]
    fallbacks = draw(st.lists(st.sampled_from(["v1", "v2"]), max_size=2, unique=True))
    return SetTraffic(family, Division(tuple(map(Target, versions, weights)), tuple(fallbacks)))


commands = st.one_of(
    st.builds(Create, keys, urls, labels, st.booleans()),
    st.builds(Update, keys, urls, labels, allow_missing=st.booleans()),
    st.builds(Activate, keys, exclusive=st.booleans()),
    st.builds(Deactivate, keys),
    st.builds(Delete, keys),
    divisions(),
    st.builds(DeleteTraffic, keys.map(lambda key: key.family_key)),
)


def attempted(world: World, mutations: Sequence[Command]) -> list[Change]:
    """Make those of the mutations that are not refused, as one change set each."""
    made: list[Change] = []
    for mutation in mutations:
        try:
            made += world.do(mutation)
        except PointsmanError:
            continue
    return made


@given(st.lists(commands, max_size=12), st.lists(commands, max_size=12))
def test_any_changes_are_undone_exactly_and_done_again_exactly(earlier, done) -> None:
    world = World()
    attempted(world, [*(Create(key, URL, {}) for key in KEYS[:3]), *earlier])
    before = world.content()
    changes = attempted(world, done)
    after = world.content()

    undone = world.revert(changes)
    assert world.content() == before

    world.revert(undone)
    assert world.content() == after


@given(st.lists(commands, max_size=8), st.lists(commands, max_size=8), st.lists(commands, max_size=4), st.booleans())
def test_after_any_changes_since_a_revert_restores_exactly_or_refuses(earlier, done, since, force) -> None:
    world = World()
    attempted(world, [*(Create(key, URL, {}) for key in KEYS[:3]), *earlier])
    before = world.content()
    changes = attempted(world, done)
    attempted(world, since)
    present = world.content()

    try:
        world.revert(changes, force=force)
    except (Touched, RouteInTraffic, TargetNotFound):
        assert world.content() == present
        return

    now = world.content()
    touched = {change.key for change in changes}
    for of_now, of_before, of_present in zip(now, before, present, strict=True):
        for key in of_now.keys() | of_before.keys() | of_present.keys():
            expected = of_before if key in touched else of_present
            assert of_now.get(key) == expected.get(key)
    for family, (division, _) in now.traffic.items():
        assert all(family._replace(version=version) in now.routes for version in division.versions)
