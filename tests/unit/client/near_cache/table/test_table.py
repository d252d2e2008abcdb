from typing import Any

import pytest

from pointsman.keys import FamilyKey, RouteKey
from pointsman.memory import Floor
from pointsman.near_cache.table import table as module
from pointsman.near_cache.table.entries import Behind, CachedResolution, InactiveRoute, entry_of
from pointsman.near_cache.table.selections import Entry, FamilyEntry
from pointsman.near_cache.table.table import Table
from pointsman.near_cache.table.view import Filter, View
from pointsman.near_cache.watch.protocol import Position
from tests.support.watch_events import EPOCH, Division, change, route, traffic, traffic_change

KEY, OTHER, ELSEWHERE = "team-a/payments/prod/v1", "team-a/payments/prod/v2", "team-b/payments/prod/v1"
ONE, TWO = "https://one.internal", "https://two.internal"
MAX_STALE = 30.0
FAMILY, FAMILY_ELSEWHERE = "team-a/payments/prod", "team-b/payments/prod"
TO_V1, TO_V2 = Division((("v1", 10_000), ("v2", 0))), Division((("v1", 0), ("v2", 10_000)))


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


def test_of_unknown_keys_every_view_waits(rig: Rig) -> None:
    rig.table.saw_any(5)
    assert rig.views[0].fresh_until > float("-inf")
    rig.table.saw_any(6)
    assert rig.views[0].fresh_until == float("-inf")
    rig.confirm(5)
    assert not rig.views[0].usable
    rig.confirm(6)
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
    counted, [(view, position, at)], [entry], traffic = rig.table.entries()
    assert not traffic
    assert (counted, view, position, at) == (version, rig.views[0], Position(EPOCH, 5), rig.now)
    assert entry.stored[:3] == (KEY, ONE, 4)
    rig.confirm(6)
    assert rig.table.positions()[0] == version
    rig.apply(7, key=KEY)
    assert rig.table.positions()[0] == version + 1


# Families


@pytest.fixture
def divided(rig: Rig) -> Rig:
    """Two active versions, all calls to the first one, which has been selected."""
    routes = [entry_of(rig.views[0], route(key, 4, url)) for key, url in ((KEY, ONE), (OTHER, TWO))]
    rig.table.replace(rig.views[0], Position(EPOCH, 5), routes, [traffic(FAMILY, 5, TO_V1)])
    rig.confirm(5)
    assert rig.table.family(rig.views[0], FAMILY) is rig.read[FAMILY]
    return rig


def url_of(rig: Rig) -> str | None:
    entry = rig.read.get(FAMILY)
    assert entry is None or isinstance(entry, FamilyEntry)
    return entry.choose(b"user-1").url if entry else None  # type: ignore[union-attr]


def test_a_family_is_made_ready_when_it_is_selected(rig: Rig) -> None:
    rig.table.replace(rig.views[0], Position(EPOCH, 5), [entry_of(rig.views[0], route(KEY, 4, ONE))], [])
    assert set(rig.read) == {KEY}
    entry = rig.table.family(rig.views[0], FAMILY)
    assert set(rig.read) == {KEY, FAMILY}
    assert rig.table.family(rig.views[0], FAMILY) is entry
    assert set(rig.table.keys()) == {KEY}
    assert rig.views[0].size == 1


def test_one_in_which_nothing_can_be_chosen_is_not_kept(rig: Rig) -> None:
    routes = [entry_of(rig.views[0], route(key, 4, ONE)) for key in (KEY, OTHER)]
    rig.table.replace(rig.views[0], Position(EPOCH, 5), routes, [])
    for family, named in ((FAMILY, ["v1", "v2"]), ("team-a/nothing/prod", [])):
        entry = rig.table.family(rig.views[0], family)
        assert entry is not None
        assert (entry.choose(b"user-1"), entry.named) == (None, named)
    assert set(rig.read) == {KEY, OTHER}


@pytest.mark.parametrize("news", [route(OTHER, 7, "https://three.internal"), None])
def test_routes_and_traffic_change_by_one_operation(divided: Rig, news: Any) -> None:
    seen = []

    class Watched(dict[str, Entry]):
        def update(self, news: Any) -> None:  # type: ignore[override]
            seen.append(dict(news))
            super().update(news)

    divided.table._routes = Watched(divided.read)
    changes = [traffic_change(FAMILY, 6, TO_V2, 7), change(OTHER, 7, news, 7)]
    divided.table.apply(divided.views[0], Position(EPOCH, 7), changes)
    assert set(seen[0]) == {FAMILY, OTHER}
    entry = seen[0][FAMILY]
    if news is None:
        # Nothing can be chosen: it leaves the dict, so that readers ask what that means.
        assert FAMILY not in divided.table._routes
    else:
        assert isinstance(entry, FamilyEntry)
        assert entry.choose(b"user-1").url == "https://three.internal"  # type: ignore[union-attr]
    assert set(seen[1:]) == set()


def test_each_change_of_a_part_makes_it_anew(divided: Rig) -> None:
    divided.apply(6, key=KEY, route=route(KEY, 6, TWO))
    assert url_of(divided) == TWO
    divided.table.apply(divided.views[0], Position(EPOCH, 7), [traffic_change(FAMILY, 7, None)])
    assert url_of(divided) is None  # two are active
    divided.apply(8, key=OTHER, route=route(OTHER, 8, TWO, active=False))
    assert divided.table.family(divided.views[0], FAMILY)
    assert url_of(divided) == TWO
    before = divided.read[FAMILY]
    divided.apply(9, key="team-a/payments/test/v1", route=route("team-a/payments/test/v1", 9, ONE))
    assert divided.read[FAMILY] is before


def test_a_route_that_is_made_or_removed_counts(divided: Rig) -> None:
    third = "team-a/payments/prod/v3"
    fallback = Division((("v4", 10_000),), ("v3",))
    divided.table.apply(divided.views[0], Position(EPOCH, 6), [traffic_change(FAMILY, 6, fallback)])
    assert url_of(divided) is None
    divided.apply(7, key=third, route=route(third, 7, "https://three.internal"))
    assert divided.table.family(divided.views[0], FAMILY)
    assert url_of(divided) == "https://three.internal"
    divided.apply(8, key=third)
    assert url_of(divided) is None
    divided.apply(9, key=KEY)
    divided.apply(10, key=OTHER)
    assert divided.table.family(divided.views[0], FAMILY).named == ["v4", "v3"]  # type: ignore[union-attr]


def test_a_result_that_is_held_says_since_when_it_is_not_chosen(divided: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: divided.now)
    entry = divided.read[FAMILY]
    assert isinstance(entry, FamilyEntry)
    held = entry.choose(b"user-1")
    assert held is not None
    divided.now += 4
    assert (held.live, held.age.total_seconds(), held.as_of_revision) == (True, 4.0, 5)
    divided.table.apply(divided.views[0], Position(EPOCH, 6), [traffic_change(FAMILY, 6, TO_V2)])
    divided.now += 60
    divided.confirm(9)
    assert (held.live, held.age.total_seconds(), held.as_of_revision, held.url) == (False, 64.0, 5, ONE)


@pytest.mark.parametrize("key", [KEY, "team-a/payments/prod/v9", FAMILY])
def test_a_family_of_which_the_client_has_seen_more_is_asked_for(divided: Rig, key: str) -> None:
    seen = FamilyKey.parse(key) if key == FAMILY else RouteKey.parse(key)
    divided.table.saw(seen, 7, EPOCH)
    assert isinstance(divided.read[FAMILY], Behind)
    assert divided.table.family(divided.views[0], FAMILY) is None
    assert isinstance(divided.read[KEY], Behind) is (key == KEY)
    divided.table.apply(divided.views[0], Position(EPOCH, 6), [traffic_change(FAMILY, 6, TO_V2)])
    assert divided.table.family(divided.views[0], FAMILY) is None
    divided.confirm(7)
    assert divided.table.family(divided.views[0], FAMILY)
    assert url_of(divided) == TWO
    assert not divided.table._behind


def test_what_was_seen_outlasts_a_snapshot_that_is_older(divided: Rig) -> None:
    divided.table.saw(FamilyKey.parse(FAMILY), 9, EPOCH)
    divided.table.replace(divided.views[0], Position(EPOCH, 8), [], [])
    assert divided.table.family(divided.views[0], FAMILY) is None
    divided.table.replace(divided.views[0], Position(EPOCH, 9), [], [])
    assert divided.table.family(divided.views[0], FAMILY)


def test_the_floor_of_a_family_is_all_that_the_view_has(divided: Rig) -> None:
    assert divided.table.floor(FamilyKey.parse(FAMILY)) == Floor(5, EPOCH)
    divided.table.saw(RouteKey.parse(KEY), 7, EPOCH)
    assert divided.table.floor(FamilyKey.parse(FAMILY)) == Floor(7, EPOCH)
    assert divided.table.floor(RouteKey("team-a", "payments", "prod", "")) == Floor(7, EPOCH)
    assert divided.table.floor(FamilyKey.parse("team-c/payments/prod")) == Floor()


def test_a_snapshot_replaces_the_families_of_its_view_alone(divided: Rig) -> None:
    elsewhere = [entry_of(divided.views[1], route(ELSEWHERE, 3, TWO))]
    divided.table.replace(divided.views[1], Position(EPOCH, 5), elsewhere, [])
    assert divided.table.family(divided.views[1], FAMILY_ELSEWHERE)
    there = divided.read[FAMILY_ELSEWHERE]
    held = divided.read[FAMILY]
    divided.table.replace(divided.views[0], Position(EPOCH, 6), [entry_of(divided.views[0], route(KEY, 4, ONE))], [])
    assert divided.read[FAMILY_ELSEWHERE] is there
    assert FAMILY not in divided.read
    assert held.superseded is not None  # type: ignore[union-attr]
    assert divided.table.family(divided.views[0], FAMILY).traffic_revision == 0  # type: ignore[union-attr]


def test_traffic_that_is_lost_leaves_at_once(divided: Rig) -> None:
    version = divided.table.version
    divided.table.drop_traffic(divided.views[0])
    assert set(divided.read) == {KEY, OTHER}
    assert divided.table.family(divided.views[0], FAMILY) is None
    assert (divided.table.version, divided.views[0].has_traffic) == (version + 1, False)
    divided.table.replace(divided.views[0], Position(EPOCH, 6), [entry_of(divided.views[0], route(KEY, 4, ONE))])
    assert divided.table.family(divided.views[0], FAMILY) is None


def test_traffic_that_makes_no_sense_is_asked_for(divided: Rig) -> None:
    for weights in ([("v1", 9_999)], [("v1", 10_001)], []):
        divided.table.apply(divided.views[0], Position(EPOCH, 6), [traffic_change(FAMILY, 6, Division(tuple(weights)))])
        assert FAMILY not in divided.read
        assert divided.table.family(divided.views[0], FAMILY) is None


def test_a_disk_gets_the_traffic(divided: Rig) -> None:
    version, _, _, [stored] = divided.table.entries()
    assert (stored.owner, stored.message) == (divided.views[0], traffic(FAMILY, 5, TO_V1).SerializeToString())
    divided.table.apply(divided.views[0], Position(EPOCH, 6), [traffic_change(FAMILY, 6, None)])
    assert divided.table.entries()[0] == version + 1
    assert not divided.table.entries()[3]
