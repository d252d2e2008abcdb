import sys
from datetime import UTC, datetime

import pytest

from pointsman.keys import RouteKey
from pointsman.near_cache.table.entries import DELETED, Behind, CachedResolution, InactiveRoute, entry_of
from pointsman.near_cache.table.view import View
from pointsman.results import Route, Source
from tests.support.watch_events import route

KEY = "team-a/payments/prod/v1"
URL = "https://one.internal"


def test_a_route_is_what_the_server_sent() -> None:
    key, entry = entry_of(View(), route(KEY, 5, URL))
    assert isinstance(entry, CachedResolution)
    assert (key, entry.url, entry.revision, entry.source, entry.labels) == (
        KEY,
        URL,
        5,
        Source.NEAR_CACHE,
        {"tier": "1"},
    )
    assert entry.route == Route(
        RouteKey.parse(KEY),
        URL,
        True,
        {"tier": "1"},
        5,
        datetime.fromtimestamp(1_700_000_000, UTC),
        datetime.fromtimestamp(1_700_000_005, UTC),
    )
    assert repr(entry) == f"CachedResolution({KEY} → {URL}, revision 5)"


def test_an_entry_is_small() -> None:
    key, entry = entry_of(View(), route("team-17/service-12345/prod/v1", 5, "https://service-12345.internal:8443/"))
    parts = [key, entry, *(part for part in entry.stored if not isinstance(part, bool))]
    # The dict takes 104 bytes at most of each of its entries.
    assert sum(sys.getsizeof(part) for part in {id(part): part for part in parts}.values()) + 104 <= 600
    assert not hasattr(entry, "__dict__")


@pytest.mark.parametrize("entry", [InactiveRoute(View(), KEY, URL, 5, b""), Behind(None, "", 1), DELETED])
def test_what_is_no_result_is_never_fresh(entry: InactiveRoute | Behind) -> None:
    assert entry.view.fresh_until == float("-inf")


def test_its_age_and_epoch_are_those_of_the_view_until_it_is_superseded() -> None:
    view = View()
    view.epoch, view.revision, view.live = "e", 7, True
    entry = CachedResolution(view, KEY, URL, 5, b"")
    assert (entry.live, entry.as_of_revision, entry.epoch) == (True, 7, "e")
    entry.supersede((1.0, 7, "e"))
    view.epoch, view.revision = "f", 9
    assert (entry.live, entry.as_of_revision, entry.epoch) == (False, 7, "e")
