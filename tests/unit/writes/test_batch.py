"""A group in progress: its outcomes, and what caches must learn of it."""

from collections.abc import Sequence

import pytest

from pointsman_server.domain.errors import RouteNotFound
from pointsman_server.domain.routes import Route, RouteKey
from pointsman_server.ports.store import Clock, Intent, LockedState, MutationScope, Outcome, Step, StoredOutcome
from pointsman_server.runtime.offload import LARGE
from pointsman_server.writes.batch import Batch, Mutation
from pointsman_server.writes.commit import decide_all, scope_of
from pointsman_server.writes.ledger import Ledger
from pointsman_server.writes.mutations import Activate, Command, Create, Delete, DeleteTraffic
from tests.support.fakes import BIRTH, EPOCH

V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
FAMILY = V1.family_key
ORDERS = RouteKey("team-b", "orders", "prod", "v1")
URL = "https://payments.internal"
RETRY = Intent("alice", request_id="id", fingerprint=b"body")
ROUTES = [Route(V1, URL, True, {}, 3, BIRTH, BIRTH), Route(V2, URL, True, {}, 5, BIRTH, BIRTH)]


@pytest.fixture
def batch() -> Batch:
    return Batch(Ledger(LockedState(Clock(EPOCH, 9), BIRTH, ROUTES, [])))


def committing(*commands: Command, intent: Intent = RETRY, dry_run: bool = False) -> Mutation:
    return Mutation(scope_of(commands, intent), decide_all(commands), change_set=True, dry_run=dry_run)


def services(count: int) -> list[RouteKey]:
    return [RouteKey("team-a", f"s{number}", "prod", "v1") for number in range(count)]


def creating(keys: Sequence[RouteKey]) -> Mutation:
    return committing(*(Create(key, URL, {}) for key in keys), intent=Intent("alice"))


def test_a_commit_is_answered_with_its_steps_and_its_change_set(batch: Batch) -> None:
    batch.carry_out(committing(Create(V3, URL, {}), Activate(V3), Create(ORDERS, URL, {})), None)
    (outcome,) = batch.outcomes
    assert outcome == Outcome(None, 11, None, (Step(10, 1), Step(0, 0), Step(11, 1)), 10, 2)
    assert isinstance(outcome, Outcome)
    assert outcome.changes == batch.ledger.changes
    assert [(each.change_set_id, each.change_set_size, each.change_set_end) for each in outcome.changes] == [
        (10, 2, 11)
    ] * 2
    assert [intent for _, intent in batch.made] == [RETRY] * 2


def test_of_a_refused_commit_nothing_stays(batch: Batch) -> None:
    batch.carry_out(committing(Create(V3, URL, {}), Delete(ORDERS)), None)
    assert isinstance(batch.outcomes[0], Exception)
    assert batch.outcomes[0].reason == RouteNotFound.reason  # type: ignore[attr-defined]
    assert (batch.ledger.revision, batch.ledger.changes, batch.records) == (9, [], False)
    assert batch.ledger.see(V3).route is None
    assert (batch.settled, batch.dropped, batch.confirmed()) == ({}, {}, ([], {}))


def test_a_dry_run_is_answered_like_a_commit_as_of_the_revision_before_it_and_leaves_nothing(batch: Batch) -> None:
    commands = [Create(V3, URL, {}), Activate(V1, exclusive=True)]
    batch.carry_out(committing(*commands, dry_run=True), None)
    assert (batch.ledger.revision, batch.ledger.changes, batch.records) == (9, [], False)
    assert (batch.settled, batch.dropped, batch.confirmed()) == ({}, {}, ([], {}))
    batch.carry_out(committing(*commands), None)
    dry, wet = batch.outcomes
    assert isinstance(dry, Outcome)
    assert isinstance(wet, Outcome)
    assert (dry.steps, dry.change_set_id, dry.change_count) == (wet.steps, wet.change_set_id, wet.change_count)
    assert (dry.revision, wet.revision) == (9, 12)
    assert [change.after for change in dry.changes] == [change.after for change in wet.changes]


def test_changed_routes_are_settled_and_their_families_dropped(batch: Batch) -> None:
    batch.carry_out(committing(Create(V3, URL, {}), Create(ORDERS, URL, {}), Delete(V1)), None)
    assert list(batch.settled) == [V3, ORDERS, V1]
    assert batch.dropped == {FAMILY: 12, ORDERS.family_key: 11}


def test_routes_of_a_large_change_set_are_dropped_as_of_their_last_change(batch: Batch) -> None:
    keys = services(LARGE + 1)
    batch.carry_out(creating(keys[:1]), None)
    batch.carry_out(committing(Delete(keys[0])), None)
    assert list(batch.settled) == keys[:1]
    batch.carry_out(creating(keys), None)
    assert batch.settled == {}
    assert batch.dropped == {key: 12 + number for number, key in enumerate(keys)} | {
        key.family_key: 12 + number for number, key in enumerate(keys)
    }
    batch.carry_out(committing(Delete(keys[0]), intent=Intent("bob")), None)
    assert batch.settled == {}
    assert batch.dropped[keys[0]] == batch.dropped[keys[0].family_key] == 12 + len(keys)


def test_what_is_found_as_wanted_is_confirmed_unless_it_was_changed(batch: Batch) -> None:
    batch.carry_out(committing(Activate(V1), Activate(V2)), None)
    snapshots, dropped = batch.confirmed()
    assert [(each.key, each.as_of) for each in snapshots] == [(V1, 9), (V2, 9)]
    assert dropped == {FAMILY: 5}
    batch.carry_out(committing(Delete(V1), intent=Intent("bob")), None)
    snapshots, dropped = batch.confirmed()
    assert [(each.key, each.as_of) for each in snapshots] == [(V2, 10)]
    assert dropped == {}


def test_many_confirmed_routes_are_dropped_below_their_revision(batch: Batch) -> None:
    keys = services(LARGE + 1)
    stored = StoredOutcome("team-a", "id", b"body", Outcome(None, 7))
    mutation = Mutation(MutationScope(keys[0], RETRY, others=(*keys, FAMILY)), lambda _: [], change_set=True)
    batch.carry_out(mutation, stored)
    assert batch.outcomes == [stored.outcome]
    snapshots, dropped = batch.confirmed()
    assert snapshots == []
    assert dropped == {
        **{key.family_key: 7 for key in (*keys, V1)}, **dict.fromkeys(keys, 9), V1: 3, V2: 5,
    }  # fmt: skip


def test_a_replay_confirms_the_families_of_which_only_the_traffic_was_read(batch: Batch) -> None:
    stored = StoredOutcome("team-b", "id", b"body", Outcome(None, 7))
    mutation = committing(DeleteTraffic(ORDERS.family_key), DeleteTraffic(FAMILY))
    batch.carry_out(mutation, stored)
    assert batch.confirmed() == ([], {ORDERS.family_key: 7, FAMILY: 7})
