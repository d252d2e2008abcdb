from typing import Any

import pytest

from pointsman.keys import RouteKey
from pointsman.memory import Floor
from pointsman.near_cache.table import table as module
from pointsman.near_cache.table.entries import Behind, CachedResolution, Entry, InactiveRoute, entry_of
from pointsman.near_cache.table.table import Table
from pointsman.near_cache.table.view import Filter, View
from pointsman.near_cache.watch.protocol import Position
from tests.support.watch_events import EPOCH, change, route

KEY, OTHER, ELSEWHERE = "team-a/payments/prod/v1", "team-a/payments/prod/v2", "team-b/payments/prod/v1"
ONE, TWO = "https://one.internal", "https://two.internal"
MAX_STALE = 30.0


class Rig:
    """Two views, a table, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.views = [View(Filter("team-a")), View(Filter("team-b"))]
        self.used: list[dict[str, Entry]] = []
        self.table = Table(self.views, MAX_STALE, self.used.append, clock=lambda: self.now)

    def replace(self, *urls: tuple[str, str, int], view: int = 0, at: int = 5, epoch: str = EPOCH) -> None:
        routes = [entry_of(self.views[view], route(key, revision, url)) for key, url, revision in urls]
        self.table.replace(self.views[view], Position(epoch, at), routes)

    def apply(self, revision: int, **after: Any) -> None:
        changes = [change(after["key"], revision, after.get("route"))]
        self.table.apply(self.views[0], Position(EPOCH, revision), changes)

    def confirm(self, revision: int, age: float = 0.0, view: int = 0) -> None:
        self.table.confirm(self.views[view], Position(self.views[view].epoch or EPOCH, revision), age)

    @property
    def read(self) -> dict[str, Entry]:
        return self.used[-1]


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.replace((KEY, ONE, 4))
    rig.confirm(5)
    return rig


def test_a_snapshot_replaces_the_routes_of_its_view_alone(rig: Rig) -> None:
    rig.replace((ELSEWHERE, ONE, 3), view=1)
    before = rig.read
    rig.replace((OTHER, TWO, 6), at=6)
    assert set(rig.read) == {OTHER, ELSEWHERE}
    assert set(before) == {KEY, ELSEWHERE}  # who reads it still sees all of it
    assert [view.size for view in rig.views] == [1, 1]


def test_an_empty_snapshot_empties_the_view(rig: Rig) -> None:
    rig.replace(at=6)
    assert rig.read == {}
    assert rig.views[0].size == 0


def test_a_change_set_is_one_operation(rig: Rig) -> None:
    seen = []

    class Watched(dict[str, Entry]):
        def update(self, news: Any) -> None:  # type: ignore[override]
            seen.append(dict(news))
            super().update(news)

    rig.table._routes = Watched(rig.read)
    changes = [change(OTHER, 6, route(OTHER, 6, TWO), 7), change(KEY, 7, None, 7)]
    rig.table.apply(rig.views[0], Position(EPOCH, 7), changes)
    assert set(seen[0]) == {KEY, OTHER}
    assert set(rig.table._routes) == {OTHER}
    assert (rig.views[0].size, rig.views[0].revision) == (1, 7)


def test_a_route_that_becomes_inactive_is_no_result(rig: Rig) -> None:
    rig.apply(6, key=KEY, route=route(KEY, 6, ONE, active=False))
    found = rig.read[KEY]
    assert isinstance(found, InactiveRoute)
    assert found.view.fresh_until == float("-inf")


def test_a_result_that_is_held_says_since_when_it_is_old(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: rig.now)
    held = rig.read[KEY]
    assert isinstance(held, CachedResolution)
    rig.now += 4
    assert (held.live, held.age.total_seconds(), held.as_of_revision) == (True, 4.0, 5)
    rig.apply(6, key=KEY, route=route(KEY, 6, TWO))
    rig.now += 60
    rig.confirm(9)
    assert (held.live, held.age.total_seconds(), held.as_of_revision, held.url) == (False, 64.0, 5, ONE)
    current = rig.read[KEY]
    assert isinstance(current, CachedResolution)
    assert (current.live, current.age.total_seconds(), current.as_of_revision) == (True, 0.0, 9)


def test_a_table_is_fresh_for_max_stale_from_when_it_was_current(rig: Rig) -> None:
    rig.confirm(5, age=10.0)
    assert rig.views[0].confirmed_at == rig.now  # an older confirmation takes nothing back
    rig.now += 20
    rig.confirm(5, age=5.0)
    assert rig.views[0].fresh_until == rig.now - 5 + MAX_STALE
    rig.table.suspend()
    assert rig.views[0].fresh_until == float("-inf")
    rig.table.refresh(rig.views[0], at_least_until=rig.now + 100)
    assert rig.views[0].fresh_until == rig.now + 100


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_what_the_client_has_seen_is_asked_for_until_the_table_has_it(rig: Rig, key: str) -> None:
    rig.table.saw(RouteKey.parse(key), 7, EPOCH)
    assert isinstance(rig.read[key], Behind)
    rig.apply(6, key=KEY, route=route(KEY, 6, TWO))
    assert isinstance(rig.read[key], Behind)
    rig.confirm(7)
    assert [*rig.read] == [KEY]
    assert isinstance(rig.read[KEY], CachedResolution)
    assert rig.table._behind == {}
    assert rig.views[0].size == 1


def test_the_change_itself_ends_that(rig: Rig) -> None:
    rig.table.saw(RouteKey.parse(KEY), 7, "")
    rig.apply(7, key=KEY, route=route(KEY, 7, TWO))
    assert isinstance(rig.read[KEY], CachedResolution)
    rig.table.saw(RouteKey.parse(KEY), 9, "")
    rig.apply(9, key=KEY)
    assert KEY not in rig.read
    assert rig.views[0].size == 0


@pytest.mark.parametrize("revision", [3, 4, 5])
def test_what_the_table_has_is_served(rig: Rig, revision: int) -> None:
    rig.table.saw(RouteKey.parse(KEY), revision, EPOCH)
    assert isinstance(rig.read[KEY], CachedResolution)


def test_keys_of_no_view_are_not_held(rig: Rig) -> None:
    rig.table.saw(RouteKey("team-c", "payments", "prod", "v1"), 7, EPOCH)
    assert set(rig.read) == {KEY}


def test_a_write_while_the_table_loads_is_waited_for() -> None:
    rig = Rig()
    rig.table.saw(RouteKey.parse(KEY), 7, "")
    rig.replace((KEY, ONE, 4))
    assert isinstance(rig.read[KEY], Behind)
    rig.replace((KEY, TWO, 7), at=8)
    assert isinstance(rig.read[KEY], CachedResolution)


def test_another_epoch_that_the_client_has_seen_comes_first(rig: Rig) -> None:
    rig.table.saw(RouteKey.parse(KEY), 2, "epoch-2")
    rig.confirm(9)
    assert isinstance(rig.read[KEY], Behind)
    rig.apply(10, key=KEY, route=route(KEY, 10, TWO))
    assert isinstance(rig.read[KEY], Behind)
    rig.replace((KEY, TWO, 2), at=2, epoch="epoch-2")
    assert isinstance(rig.read[KEY], CachedResolution)
    rig.table.saw(RouteKey.parse(KEY), 100, EPOCH)  # an answer of a server that is behind
    assert isinstance(rig.read[KEY], CachedResolution)


def test_of_too_many_keys_the_whole_view_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BEHIND", 1)
    rig.table.saw(RouteKey.parse(OTHER), 7, EPOCH)
    rig.table.saw(RouteKey("team-a", "payments", "prod", "v3"), 8, EPOCH)
    assert rig.views[0].fresh_until == float("-inf")
    rig.confirm(7)
    assert rig.views[0].fresh_until == float("-inf")
    assert not rig.views[0].usable
    rig.confirm(8)
    assert rig.views[0].fresh_until == rig.now + MAX_STALE


def test_the_floor_of_a_key_is_what_readers_may_have_seen(rig: Rig) -> None:
    assert rig.table.floor(RouteKey.parse(KEY)) == Floor(4, EPOCH)
    assert rig.table.floor(RouteKey.parse(OTHER)) == Floor(5, EPOCH)
    assert rig.table.floor(RouteKey.parse(ELSEWHERE)) == Floor()
    rig.table.saw(RouteKey.parse(KEY), 7, EPOCH)
    assert rig.table.floor(RouteKey.parse(KEY)) == Floor(7, EPOCH)


def test_views_have_their_keys(rig: Rig) -> None:
    assert rig.table.view_of(RouteKey.parse(ELSEWHERE)) is rig.views[1]
    assert rig.table.view_of(RouteKey("team-c", "payments", "prod", "v1")) is None
    narrow = Table([View(Filter("", "payments", "prod"))], MAX_STALE, lambda _: None)
    assert narrow.view_of(RouteKey.parse(KEY)) is not None
    assert narrow.view_of(RouteKey("team-a", "payments", "test", "v1")) is None


def test_siblings_and_keys(rig: Rig) -> None:
    rig.replace((KEY, ONE, 4), (OTHER, TWO, 5), ("team-a/payments/test/v1", ONE, 5))
    assert {str(key) for key in rig.table.siblings(RouteKey.parse(KEY))} == {KEY, OTHER}
    assert len(rig.table.keys()) == 3


def test_a_disk_gets_what_the_position_says(rig: Rig) -> None:
    version = rig.table.version
    rig.table.saw(RouteKey.parse(KEY), 7, EPOCH)
    counted, [(view, position, at)], [entry] = rig.table.entries()
    assert (counted, view, position, at) == (version, rig.views[0], Position(EPOCH, 5), rig.now)
    assert entry.stored[:3] == (KEY, ONE, 4)
    rig.confirm(6)
    assert rig.table.positions()[0] == version
    rig.apply(7, key=KEY)
    assert rig.table.positions()[0] == version + 1
