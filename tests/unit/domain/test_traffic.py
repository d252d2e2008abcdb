"""Traffic: each version has as many points as its weight, and a change of weights moves as few as possible."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.selection import POINTS
from pointsman_server.domain.routes import Family, Route, RouteKey, Traffic
from pointsman_server.domain.traffic import Division, Slice, Target, allot

NOW = datetime(2026, 11, 27, tzinfo=UTC)
FAMILY = RouteKey("team-a", "payments", "prod", "")


@st.composite
def weights(draw: st.DrawFn) -> tuple[Target, ...]:
    versions = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, POINTS), min_size=len(versions) - 1, max_size=len(versions) - 1)))
    return tuple(
        Target(version, end - begin) for version, begin, end in zip(versions, [0, *cuts], [*cuts, POINTS], strict=True)
    )


def owners(slices: Sequence[Slice]) -> list[str]:
    return [piece.version for piece in slices for _ in range(piece.size)]


def test_a_single_target_has_every_point() -> None:
    assert allot([Target("v1", POINTS)]) == (Slice("v1", POINTS),)


def test_a_target_without_weight_has_none() -> None:
    assert allot([Target("v0", 0), Target("v1", POINTS)]) == (Slice("v1", POINTS),)


def test_a_shift_takes_the_last_points_and_gives_them_back() -> None:
    before = allot([Target("v1", POINTS)])
    shifted = allot([Target("v1", 9_000), Target("v2", 1_000)], before)
    assert shifted == (Slice("v1", 9_000), Slice("v2", 1_000))
    assert allot([Target("v1", POINTS)], shifted) == before


@settings(deadline=None)
@given(weights())
def test_each_has_as_many_points_as_its_weight(targets: tuple[Target, ...]) -> None:
    points = owners(allot(targets))
    assert len(points) == POINTS
    assert all(points.count(version) == weight for version, weight in targets)


@settings(deadline=None)
@given(st.lists(weights(), min_size=2, max_size=5))
def test_no_more_points_move_than_weights_do(steps: list[tuple[Target, ...]]) -> None:
    slices = allot(steps[0])
    for before, after in itertools.pairwise(steps):
        moved = allot(after, slices)
        had, has = dict(before), dict(after)
        lost = sum(max(0, weight - has.get(version, 0)) for version, weight in had.items())
        changed = [old for old, new in zip(owners(slices), owners(moved), strict=True) if old != new]
        assert len(changed) == lost
        assert all(owners(moved).count(version) == weight for version, weight in after)
        # Who keeps or gains a share loses no point.
        assert all(has.get(version, 0) < had[version] for version in changed)
        slices = moved


@settings(deadline=None)
@given(st.lists(weights(), min_size=1, max_size=5))
def test_neighbours_are_one_slice(steps: list[tuple[Target, ...]]) -> None:
    slices: tuple[Slice, ...] = ()
    for targets in steps:
        slices = allot(targets, slices)
        assert all(piece.size > 0 for piece in slices)
        assert all(one.version != other.version for one, other in itertools.pairwise(slices))


def test_a_division_names_its_targets_and_fallbacks() -> None:
    assert Division((Target("v1", 0), Target("v2", POINTS)), ("v0", "v1")).versions == {"v0", "v1", "v2"}


def test_a_family_has_the_revision_of_what_changed_last_in_it() -> None:
    def route(version: str, revision: int) -> Route:
        return Route(FAMILY._replace(version=version), "https://a.internal", True, {}, revision, NOW, NOW)

    division = Division((Target("v1", POINTS),))
    traffic = Traffic(FAMILY, division, allot(division.targets), 8, NOW, NOW)
    assert Family(FAMILY, None, ()).revision == 0
    assert Family(FAMILY, traffic, (route("v1", 5),)).revision == 8
    assert Family(FAMILY, traffic, (route("v1", 5), route("v2", 9))).revision == 9
