"""A hit is decoded to the snapshot that was cached."""

import pytest

from pointsman_server.domain.codec import rest_to_bytes
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Family, Route, RouteKey, Snapshot
from pointsman_server.reads.cache_entry import (
    ABSENT,
    ACTIVE,
    FAMILY,
    INACTIVE,
    MAX_DECODED_BYTES,
    NO_FAMILY,
    REST,
    EntryScope,
    snapshot_of,
)
from tests.support.fakes import BIRTH, EPOCH

KEY = RouteKey("team-a", "payments", "prod", "v1")
HEADLESS = bytes(REST)
ENTRY = EntryScope(Scope("team-a", "prod"), EPOCH)


@pytest.mark.parametrize(("active", "state"), [(True, ACTIVE), (False, INACTIVE)])
def test_a_route_is_decoded_with_its_key(active: bool, state: int) -> None:
    route = Route(KEY, "https://a.internal", active, {"tier": "gold"}, 3, BIRTH, BIRTH)
    assert snapshot_of(KEY, (HEADLESS + rest_to_bytes(route), state, 7, 0.5, ENTRY)) == Snapshot(KEY, route, 7, EPOCH)
    other = KEY._replace(version="v2")
    decoded = snapshot_of(other, (HEADLESS + rest_to_bytes(route), state, 7, 0.5, ENTRY)).route
    assert decoded
    assert decoded.key == other


def test_absence_has_no_route() -> None:
    assert snapshot_of(KEY, (HEADLESS, ABSENT, 7, 0.5, ENTRY)) == Snapshot(KEY, None, 7, EPOCH)


@pytest.mark.parametrize("url_length", [10, MAX_DECODED_BYTES])
def test_a_family_is_decoded_with_its_key_whether_or_not_it_is_remembered(url_length: int) -> None:
    key = KEY.family_key
    family = Family(key, None, (Route(KEY, "u" * url_length, True, {}, 3, BIRTH, BIRTH),))
    hit = (HEADLESS + rest_to_bytes(family), FAMILY, 7, 0.5, ENTRY)
    assert snapshot_of(key, hit) == snapshot_of(key, hit) == Snapshot(key, family, 7, EPOCH)
    assert snapshot_of(key, (HEADLESS, NO_FAMILY, 7, 0.5, ENTRY)) == Snapshot(key, None, 7, EPOCH)
