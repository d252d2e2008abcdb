import pytest

from pointsman.near_cache.table.view import Filter, View
from pointsman.near_cache.watch.protocol import Position


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Filter(), True),
        (Filter("team-a"), True),
        (Filter("team-b"), False),
        (Filter("team-a", "payments", "prod"), True),
        (Filter("", "orders"), False),
        (Filter("", "", "test"), False),
    ],
)
def test_filters(wanted: Filter, matches: bool) -> None:
    assert wanted.matches("team-a", "payments", "prod") is matches


def test_a_view_is_usable_once_it_has_what_the_client_has_seen() -> None:
    view = View()
    assert (view.usable, view.position) == (False, None)
    view.loaded, view.epoch, view.revision = True, "e", 5
    assert (view.usable, view.position) == (True, Position("e", 5))
    view.needed = 6
    assert not view.usable
