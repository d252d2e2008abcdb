from dataclasses import replace

import pytest

from pointsman_server.adapters.kafka.decoder import NotAChange, change_from_bytes
from pointsman_server.audit.hash_chain import canonical
from pointsman_server.domain.routes import Change, ChangeKind, RouteKey, Traffic
from pointsman_server.domain.traffic import Division, Slice, Target
from tests.support.changes import make_change


def test_a_change_is_decoded_as_it_was_published() -> None:
    assert change_from_bytes(canonical(make_change(7))) == make_change(7)


def test_an_epoch_that_postgresql_rejects_is_no_change() -> None:
    # The audit consumer would retry it without end.
    with pytest.raises(NotAChange):
        change_from_bytes(canonical(replace(make_change(7), epoch="e\0")))


CHANGE = make_change(7)
assert CHANGE.after is not None
WHEN = CHANGE.occur_time
DIVISION = Division((Target("v1", 9000), Target("v2", 1000)), ("v3",))
TRAFFIC = Traffic(CHANGE.key.family_key, DIVISION, (Slice("v1", 9000), Slice("v2", 1000)), 7, WHEN, WHEN)
SET = replace(CHANGE, kind=ChangeKind.TRAFFIC_SET, key=TRAFFIC.key, after=None, traffic_after=TRAFFIC)
UNSET = replace(SET, kind=ChangeKind.TRAFFIC_DELETED, traffic_before=replace(TRAFFIC, revision=6), traffic_after=None)
OTHER = replace(CHANGE.after, key=RouteKey("acme", "pay", "prod", "v2"))


@pytest.mark.parametrize(
    "change",
    [
        replace(CHANGE, after=OTHER),
        replace(CHANGE, before=OTHER),
        replace(CHANGE, after=replace(CHANGE.after, revision=8)),
        replace(CHANGE, after=None),
        replace(CHANGE, kind=ChangeKind.DELETED),
    ],
    ids=["after of another key", "before of another key", "another revision", "no route", "a route after a deletion"],
)
def test_a_change_with_routes_of_another_key_or_revision_is_no_change(change: Change) -> None:
    # Caches would answer it under the key of the change.
    with pytest.raises(NotAChange, match="without a valid"):
        change_from_bytes(canonical(change))


def test_a_change_of_traffic_is_decoded_as_it_was_published() -> None:
    assert change_from_bytes(canonical(SET)) == SET
    assert change_from_bytes(canonical(UNSET)) == UNSET


@pytest.mark.parametrize(
    "change",
    [
        replace(SET, traffic_after=None),
        replace(SET, traffic_after=replace(TRAFFIC, key=TRAFFIC.key._replace(service="other"))),
        replace(SET, traffic_before=replace(TRAFFIC, key=TRAFFIC.key._replace(service="other"))),
        replace(SET, traffic_after=replace(TRAFFIC, revision=8)),
        replace(SET, after=CHANGE.after),
        replace(UNSET, traffic_after=TRAFFIC),
        replace(CHANGE, traffic_after=TRAFFIC),
        replace(CHANGE, traffic_before=TRAFFIC),
    ],
    ids=[
        "no traffic",
        "after of another key",
        "before of another key",
        "another revision",
        "a route",
        "traffic after its deletion",
        "a route with traffic after it",
        "a route with traffic before it",
    ],
)
def test_a_change_with_other_traffic_than_its_own_is_no_change(change: Change) -> None:
    with pytest.raises(NotAChange, match="without a valid"):
        change_from_bytes(canonical(change))


@pytest.mark.parametrize(
    "change",
    [
        replace(CHANGE, key=CHANGE.key._replace(version=""), after=replace(CHANGE.after, key=TRAFFIC.key)),
        replace(SET, key=CHANGE.key),
        replace(SET, key=TRAFFIC.key._replace(env="")),
    ],
    ids=["a route without a version", "traffic with one", "traffic without an env"],
)
def test_a_key_has_a_version_unless_it_is_that_of_traffic(change: Change) -> None:
    with pytest.raises(NotAChange):
        change_from_bytes(canonical(change))
