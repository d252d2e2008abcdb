"""An answer gives its active route, or the reason with the revision as of which it holds."""

import pytest

from pointsman_server.domain.errors import RouteInactive, RouteNotFound
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.reads.answer import Answer, Source
from tests.support.fakes import BIRTH, EPOCH

KEY = RouteKey("team-a", "payments", "prod", "v1")


def route(*, active: bool) -> Route:
    return Route(KEY, "https://a.internal", active, {}, 3, BIRTH, BIRTH)


def test_an_active_route_is_given() -> None:
    assert Answer(Snapshot(KEY, route(active=True), 7, EPOCH), Source.LOCAL).route() == route(active=True)


@pytest.mark.parametrize(("held", "error"), [(None, RouteNotFound), (route(active=False), RouteInactive)])
def test_an_absent_or_inactive_route_is_an_error_with_its_revision(
    held: Route | None, error: type[RouteNotFound] | type[RouteInactive]
) -> None:
    with pytest.raises(error) as refused:
        Answer(Snapshot(KEY, held, 7, EPOCH), Source.REDIS).route()
    assert refused.value.metadata == {"key": str(KEY), "revision": "7", "epoch": EPOCH}


def test_the_encoded_route_is_no_part_of_the_comparison() -> None:
    snapshot = Snapshot(KEY, None, 7, EPOCH)
    assert Answer(snapshot, Source.REDIS, encoded=b"a") == Answer(snapshot, Source.REDIS)
    assert Answer(snapshot, Source.REDIS).age == 0.0
