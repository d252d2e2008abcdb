"""A change set while it is decided: what it sees of itself, and what the ledger sees of it."""

from datetime import timedelta

import pytest

from pointsman_server.domain.routes import ChangeKind, Draft, Route, RouteKey, Traffic
from pointsman_server.domain.traffic import Division, Slice, Target
from pointsman_server.ports.store import Clock, LockedState, Step
from pointsman_server.writes.ledger import Ledger
from pointsman_server.writes.overlay import Overlay
from tests.support.fakes import BIRTH, EPOCH

V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
FAMILY = V1.family_key
URL = "https://payments.internal"
NOW = BIRTH + timedelta(days=700)
ONE = Route(V1, URL, True, {}, 3, BIRTH, BIRTH)
TWO = Route(V2, URL, True, {}, 5, BIRTH, BIRTH)
DIVISION = Division((Target("v1", 9_000), Target("v2", 1_000)))
TRAFFIC = Traffic(FAMILY, DIVISION, (Slice("v2", 1_000), Slice("v1", 9_000)), 7, BIRTH, BIRTH)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(LockedState(Clock(EPOCH, 9), NOW, [ONE, TWO], [None], [TRAFFIC]))


@pytest.fixture
def overlay(ledger: Ledger) -> Overlay:
    return Overlay(ledger)


def created(key: RouteKey) -> Draft:
    return Draft(ChangeKind.CREATED, key, None, URL, True, {"a": "b"})


def test_what_is_applied_is_seen_above_and_not_below(ledger: Ledger, overlay: Overlay) -> None:
    assert overlay.apply([created(V3), Draft(ChangeKind.DELETED, V1, ONE)]) == Step(10, 2)
    assert overlay.apply([Draft(ChangeKind.UPDATED, V2, TWO, f"{URL}/2", True)]) == Step(12, 1)
    three = Route(V3, URL, True, {"a": "b"}, 10, NOW, NOW)
    two = Route(V2, f"{URL}/2", True, {}, 12, BIRTH, NOW)
    assert (overlay.see(V1).route, overlay.see(V2).route, overlay.see(V3).route) == (None, two, three)
    assert list(overlay.see(V2, family=True).siblings) == [three]
    assert (overlay.see(V2).revision, overlay.revision) == (12, 12)
    assert [ledger.see(key).route for key in (V1, V2, V3)] == [ONE, TWO, None]
    assert ledger.revision == 9


def test_traffic_keeps_its_points_and_its_time_of_birth(overlay: Overlay) -> None:
    wanted = Division((Target("v1", 5_000), Target("v2", 5_000)))
    overlay.apply([Draft(ChangeKind.TRAFFIC_SET, FAMILY, None, traffic_before=TRAFFIC, division=wanted)])
    slices = (Slice("v2", 1_000), Slice("v1", 5_000), Slice("v2", 4_000))
    assert overlay.see(V1).traffic == overlay.see(FAMILY).traffic == Traffic(FAMILY, wanted, slices, 10, BIRTH, NOW)
    overlay.apply([Draft(ChangeKind.TRAFFIC_DELETED, FAMILY, None, traffic_before=TRAFFIC)])
    assert overlay.see(FAMILY).traffic is None
    overlay.apply([Draft(ChangeKind.TRAFFIC_SET, FAMILY, None, division=DIVISION)])
    again = overlay.see(FAMILY).traffic
    assert again == Traffic(FAMILY, DIVISION, (Slice("v1", 9_000), Slice("v2", 1_000)), 12, NOW, NOW)


def test_former_slices_can_be_restored_exactly(overlay: Overlay) -> None:
    former = (Slice("v1", 1), Slice("v2", 1_000), Slice("v1", 8_999))
    overlay.apply(
        [Draft(ChangeKind.TRAFFIC_SET, FAMILY, None, traffic_before=TRAFFIC, division=DIVISION, slices=former)]
    )
    traffic = overlay.see(FAMILY).traffic
    assert traffic
    assert traffic.slices == former


def test_only_what_a_step_without_drafts_saw_is_confirmed(overlay: Overlay) -> None:
    overlay.see(V1)
    overlay.apply([created(V3)])
    assert (overlay.unchanged, overlay.unchanged_families) == ({}, {})
    overlay.see(V2)
    assert overlay.apply([]) == Step(0, 0)
    assert list(overlay.unchanged) == [V2]
    # The traffic is a part of the family that was seen.
    assert overlay.unchanged_families == {FAMILY: 7}
    overlay.see(V1, family=True)
    overlay.apply([])
    assert set(overlay.unchanged) == {V1, V2, V3}
    assert overlay.unchanged_families == {FAMILY: 10}


def test_a_family_is_confirmed_by_traffic_alone_without_its_routes(overlay: Overlay) -> None:
    overlay.see(FAMILY, family=True)
    overlay.apply([])
    assert (overlay.unchanged, overlay.unchanged_families) == ({}, {FAMILY: 7})


def test_what_was_never_there_confirms_nothing_of_its_family(overlay: Overlay) -> None:
    absent = RouteKey("team-b", "payments", "prod", "v1")
    overlay.see(absent)
    overlay.apply([])
    assert (list(overlay.unchanged), overlay.unchanged_families) == ([absent], {absent.family_key: 0})
