"""The state that a group is decided against: each mutation sees what those before it did."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from pointsman_server.domain.errors import RequestIdReused
from pointsman_server.domain.routes import ChangeKind, Draft, Route, RouteKey, Snapshot
from pointsman_server.ports.store import Clock, Intent, LockedState, Outcome, StoredOutcome
from pointsman_server.writes.ledger import Ledger
from tests.support.fakes import BIRTH, EPOCH

V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
ORDERS = RouteKey("team-a", "orders", "prod", "v1")
URL = "https://payments.internal"
NOW = BIRTH + timedelta(days=700)
OLD = Route(V2, URL, True, {"tier": "gold"}, 5, BIRTH, BIRTH)
INTENT = Intent("alice", "because", "id-1", b"body", "trace")


@pytest.fixture
def ledger() -> Ledger:
    """A ledger that begins at revision 9, with one route."""
    return Ledger(LockedState(Clock(EPOCH, 9), NOW, [OLD], [None]))


def created(key: RouteKey) -> Draft:
    return Draft(ChangeKind.CREATED, key, None, URL, True, {"a": "b"})


def test_revisions_go_on_from_the_clock_one_by_one_through_all_mutations(ledger: Ledger) -> None:
    first = ledger.apply([created(V1), created(V3)], INTENT)
    second = ledger.apply([created(ORDERS)], INTENT)
    assert [change.revision for change in ledger.changes] == [10, 11, 12]
    assert (ledger.changes, ledger.revision) == (first + second, 12)


def test_a_change_has_all_of_its_draft_its_intent_and_the_moment(ledger: Ledger) -> None:
    (change,) = ledger.apply([created(V1)], INTENT)
    assert change.after == Route(V1, URL, True, {"a": "b"}, 10, NOW, NOW)
    assert (change.kind, change.key, change.before) == (ChangeKind.CREATED, V1, None)
    assert (change.actor, change.reason, change.request_id, change.traceparent) == ("alice", "because", "id-1", "trace")
    assert (change.occur_time, change.epoch) == (NOW, EPOCH)


def test_each_change_has_an_event_id_of_its_own(ledger: Ledger) -> None:
    ids = [change.event_id for change in ledger.apply([created(V1), created(V3)], INTENT)]
    assert [str(UUID(event_id)) for event_id in ids] == ids
    assert len(set(ids)) == 2


def test_a_route_keeps_its_time_of_birth_unless_it_is_created_again(ledger: Ledger) -> None:
    (updated,) = ledger.apply([Draft(ChangeKind.UPDATED, V2, OLD, URL + "/new", True)], INTENT)
    assert updated.after == Route(V2, URL + "/new", True, {}, 10, BIRTH, NOW)
    (gone,) = ledger.apply([Draft(ChangeKind.DELETED, V2, updated.after)], INTENT)
    assert (gone.before, gone.after) == (updated.after, None)
    (again,) = ledger.apply([created(V2)], INTENT)
    assert again.after
    assert again.after.create_time == NOW


def test_siblings_are_shown_where_asked_for_and_as_they_became(ledger: Ledger) -> None:
    ledger.apply([created(V3), created(V1), created(ORDERS)], INTENT)
    assert ledger.see(V2, family=True).siblings == [change.after for change in ledger.changes[:2]]
    seen = ledger.see(V2)
    assert (seen.route, seen.siblings, seen.revision, seen.epoch) == (OLD, (), 12, EPOCH)
    ledger.apply([Draft(ChangeKind.DELETED, V3, ledger.see(V3).route)], INTENT)
    assert [sibling.key for sibling in ledger.see(V2, family=True).siblings] == [V1]


def test_snapshots_are_of_the_end_each_key_once(ledger: Ledger) -> None:
    (change,) = ledger.apply([created(V1)], INTENT)
    ledger.apply([Draft(ChangeKind.DELETED, V2, OLD)], INTENT)
    found = ledger.snapshots([V2, V1, V2])
    assert found == [Snapshot(V2, None, 11), Snapshot(V1, change.after, 11)]
    assert {snapshot.epoch for snapshot in found} == {EPOCH}


def test_a_request_is_replayed_from_the_store_or_from_the_group(ledger: Ledger) -> None:
    assert ledger.replay(V1, INTENT, None) is None
    ledger.remember(V1, INTENT, Outcome(OLD, 10))
    assert ledger.replay(V1, INTENT, None) == Outcome(OLD, 10)
    assert ledger.replay(V1, INTENT, StoredOutcome("team-a", "id-1", b"body", Outcome(None, 3))) == Outcome(None, 3)
    assert list(ledger.remembered.values()) == [StoredOutcome("team-a", "id-1", b"body", Outcome(OLD, 10))]


def test_an_id_of_another_request_is_refused_wherever_it_is_known(ledger: Ledger) -> None:
    other = replace(INTENT, fingerprint=b"other")
    with pytest.raises(RequestIdReused):
        ledger.replay(V1, INTENT, StoredOutcome("team-a", "id-1", b"other", Outcome(None, 3)))
    ledger.remember(V1, INTENT, Outcome(None, 10))
    with pytest.raises(RequestIdReused):
        ledger.replay(ORDERS, other, None)


def test_an_id_belongs_to_its_tenant_and_an_empty_id_is_not_kept(ledger: Ledger) -> None:
    ledger.remember(V1, INTENT, Outcome(None, 10))
    assert ledger.replay(V1._replace(tenant="team-b"), INTENT, None) is None
    ledger.remember(V1, Intent("alice"), Outcome(None, 11))
    assert ledger.replay(V1, Intent("alice"), None) is None
    assert len(ledger.remembered) == 1
