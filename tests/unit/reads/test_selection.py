"""A Select chooses from a snapshot of a family, or says why it cannot."""

import pytest

from pointsman.selection import POINTS, Choice, Rule
from pointsman_server.domain.errors import AmbiguousVersion, NoActiveVersion
from pointsman_server.domain.routes import Family, Route, RouteKey, Snapshot, Traffic
from pointsman_server.domain.traffic import Division, Slice, Target
from pointsman_server.reads.selection import Selector, select
from tests.support.fakes import BIRTH, EPOCH

KEY = RouteKey("team-a", "payments", "prod", "")


def route(version: str, revision: int = 3) -> Route:
    return Route(KEY._replace(version=version), f"https://{version}.internal", True, {}, revision, BIRTH, BIRTH)


def traffic(*slices: Slice, fallbacks: tuple[str, ...] = (), revision: int = 9) -> Traffic:
    targets = tuple(Target(version, size) for version, size in slices)
    return Traffic(KEY, Division(targets, fallbacks), slices, revision, BIRTH, BIRTH)


def family(*versions: str, divided: Traffic | None = None) -> Snapshot:
    return Snapshot(KEY, Family(KEY, divided, tuple(map(route, versions))), 12, EPOCH)


def test_the_split_chooses_the_route_of_its_version() -> None:
    chosen, choice = select(family("v1", "v2", divided=traffic(Slice("v2", POINTS))), "user-1")
    assert (chosen, choice) == (route("v2"), Choice("v2", Rule.SPLIT))


def test_the_hash_is_of_the_family_and_the_sticky_key() -> None:
    """The vector: user-1 of team-a/payments/prod has the point 3894."""
    slices = (Slice("v1", 3894), Slice("v2", 1), Slice("v3", POINTS - 3895))
    assert select(family("v1", "v2", "v3", divided=traffic(*slices)), "user-1")[0] == route("v2")


def test_a_fallback_comes_after_the_targets() -> None:
    divided = traffic(Slice("v1", POINTS), fallbacks=("v0", "v2"))
    assert select(family("v2", divided=divided), "x") == (route("v2"), Choice("v2", Rule.FALLBACK, ("v1", "v0")))


def test_without_traffic_the_only_active_version_is_chosen() -> None:
    assert select(family("v1"), "x") == (route("v1"), Choice("v1", Rule.ONLY_ACTIVE))


def test_several_active_versions_are_ambiguous_and_named() -> None:
    with pytest.raises(AmbiguousVersion) as refused:
        select(family("v1", "v2"), "x")
    assert refused.value.metadata == {
        "key": "team-a/payments/prod",
        "versions": "v1,v2",
        "revision": "12",
        "epoch": EPOCH,
    }


def test_the_versions_that_the_traffic_names_are_all_inactive() -> None:
    with pytest.raises(NoActiveVersion) as refused:
        select(family(divided=traffic(Slice("v1", POINTS), fallbacks=("v0", "v1"))), "x")
    assert refused.value.metadata["versions"] == "v1,v0"


@pytest.mark.parametrize("value", [None, Family(KEY, None, ())])
def test_a_family_without_routes_has_no_active_version(value: Family | None) -> None:
    with pytest.raises(NoActiveVersion) as refused:
        select(Snapshot(KEY, value, 12, EPOCH), "x")
    assert refused.value.metadata == {"key": str(KEY), "versions": "", "revision": "12", "epoch": EPOCH}


def test_a_selector_tells_the_revision_of_the_traffic() -> None:
    assert Selector(Family(KEY, traffic(Slice("v1", POINTS)), ())).traffic_revision == 9
    assert Selector(Family(KEY, None, ())).traffic_revision == 0
