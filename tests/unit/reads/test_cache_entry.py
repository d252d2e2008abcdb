"""A hit is decoded to the snapshot that was cached."""

import pytest

from pointsman_server.domain.codec import rest_to_bytes
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.reads.cache_entry import ABSENT, ACTIVE, INACTIVE, EntryScope, snapshot_of
from tests.support.fakes import BIRTH, EPOCH

KEY = RouteKey("team-a", "payments", "prod", "v1")
ENTRY = EntryScope(Scope("team-a", "prod"), EPOCH)


@pytest.mark.parametrize(("active", "state"), [(True, ACTIVE), (False, INACTIVE)])
def test_a_route_is_decoded_with_its_key(active: bool, state: int) -> None:
    route = Route(KEY, "https://a.internal", active, {"tier": "gold"}, 3, BIRTH, BIRTH)
    assert snapshot_of(KEY, (rest_to_bytes(route), state, 7, 0.5, ENTRY)) == Snapshot(KEY, route, 7, EPOCH)
    other = KEY._replace(version="v2")
    decoded = snapshot_of(other, (rest_to_bytes(route), state, 7, 0.5, ENTRY)).route
    assert decoded
    assert decoded.key == other


def test_absence_has_no_route() -> None:
    assert snapshot_of(KEY, (b"", ABSENT, 7, 0.5, ENTRY)) == Snapshot(KEY, None, 7, EPOCH)
