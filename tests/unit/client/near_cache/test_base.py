"""What a near-cache makes of a key: the table, a call, or an error. Nothing here waits for a server."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pointsman.errors import (
    AmbiguousVersion,
    InvalidArgument,
    NearCacheStale,
    NoActiveVersion,
    RouteInactive,
    RouteNotFound,
)
from pointsman.keys import FamilyKey, RouteKey
from pointsman.memory import Floor
from pointsman.near_cache.base import TableChange
from pointsman.near_cache.near_cache import NearCache
from pointsman.near_cache.options import OnStale, options
from pointsman.near_cache.table.entries import CachedResolution, entry_of
from pointsman.near_cache.table.selections import CachedSelection
from pointsman.near_cache.watch.protocol import Apply, Confirm, Position, Replace
from pointsman.selection import Choice, Rule
from tests.support.watch_events import EPOCH, Division, change, route, traffic, traffic_change

KEY, INACTIVE, ABSENT = "team-a/payments/prod/v1", "team-a/payments/prod/v2", "team-a/payments/prod/v3"
ONE, TWO = "https://one.internal", "https://two.internal"
FAMILY = "team-a/payments/prod"
TO_V1 = Division((("v1", 10_000),))


class Service:
    """Opens streams that bring nothing."""

    generation = 0
    closed = False

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def watch(self, request: Any, metadata: Any) -> Any:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def cancel(self) -> None:
        pass

    def report_usage(self, request: Any, metadata: Any) -> Any:
        raise InvalidArgument("this is a test")

    def close(self) -> None:
        self.closed = True


class Rig:
    def __init__(self, on_stale: OnStale = "call", path: Path | None = None) -> None:
        self.services: list[Any] = []
        self.calls: list[str] = []
        self.closed: list[Any] = []
        chosen = options(["team-a"], "", "", path, 30.0, on_stale, "test")
        self.cache = NearCache(chosen, self.connect, self.closed.append, self.call, self.call_select, 5.0)
        self.table, [self.view] = self.cache._table, self.cache._views

    def connect(self) -> Any:
        self.services.append(Service())
        return self.services[-1]

    def call(self, key: str) -> Any:
        self.calls.append(key)
        return "called"

    def call_select(self, family: str, sticky_key: str) -> Any:
        self.calls.append(f"{family} {sticky_key}")
        return "called"

    def load(self, age: float = 0.0, *division: Division, has_traffic: bool = True) -> None:
        routes = [entry_of(self.view, route(KEY, 4, ONE)), entry_of(self.view, route(INACTIVE, 5, ONE, active=False))]
        divided = [traffic(FAMILY, 5, each) for each in division]
        self.table.replace(self.view, Position(EPOCH, 5), routes, divided if has_traffic else None)
        self.table.confirm(self.view, Position(EPOCH, 5), age)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = Rig(getattr(request, "param", "call"))
    rig.cache.start()
    yield rig
    rig.cache.close()


def test_the_table_answers(rig: Rig) -> None:
    rig.load()
    found = rig.cache.resolve(KEY)
    assert isinstance(found, CachedResolution)
    assert rig.cache.resolve(RouteKey.parse(KEY)) is found
    with pytest.raises(RouteInactive):
        rig.cache.resolve(INACTIVE)
    with pytest.raises(RouteNotFound) as absent:
        rig.cache.resolve(ABSENT)
    assert absent.value.metadata == {"key": ABSENT, "revision": "5", "epoch": EPOCH}
    assert str(absent.value) == f"no route {ABSENT} (ROUTE_NOT_FOUND)"
    counted = rig.cache.statistics()
    assert (counted.reads, counted.absent, counted.calls, counted.routes) == (2, 2, 0, 2)
    assert rig.calls == []
    assert (rig.cache.healthy, rig.cache.revision, len(rig.cache)) == (True, 5, 2)
    assert set(rig.cache.keys()) == {KEY, INACTIVE}


def test_live_routes_are_listed_in_the_order_of_their_keys(rig: Rig) -> None:
    with pytest.raises(NearCacheStale):
        rig.cache.routes()
    rig.load()
    first = "team-a/cart/prod/v1"
    rig.table.apply(rig.view, Position(EPOCH, 6), [change(first, 6, route(first, 6, ONE))])
    listed = rig.cache.routes()
    assert [(str(each.key), each.url, each.revision) for each in listed] == [(first, ONE, 6), (KEY, ONE, 4)]


@pytest.mark.parametrize("rig", ["call", "serve", "raise"], indirect=True)
def test_before_it_is_loaded_the_server_answers(rig: Rig) -> None:
    assert rig.cache.resolve(KEY) == "called"
    assert (rig.cache.healthy, rig.cache.age, bool(rig.cache)) == (False, float("inf"), True)


@pytest.mark.parametrize("rig", ["call", "serve", "raise"], indirect=True)
def test_before_the_first_stream_has_brought_everything_the_server_answers(rig: Rig) -> None:
    """A snapshot may be some seconds old: what has happened since follows it."""
    [follower] = rig.cache._followers
    follower._protocol.has_traffic = True
    routes = [entry_of(rig.view, route(KEY, 4, ONE))]
    follower._write(Replace(Position(EPOCH, 5), routes, []))
    follower._write(Apply(Position(EPOCH, 6), [change(KEY, 6, route(KEY, 6, TWO))]))
    assert (rig.cache.resolve(KEY), rig.cache.select(FAMILY)) == ("called", "called")
    follower._write(Confirm(Position(EPOCH, 6), 0.0, report_progress=False))
    assert (rig.cache.resolve(KEY).url, rig.cache.select(FAMILY).url) == (TWO, TWO)


@pytest.mark.parametrize("rig", ["serve"], indirect=True)
def test_a_stream_that_ends_before_leaves_what_it_has_brought(rig: Rig) -> None:
    [follower] = rig.cache._followers
    follower._write(Replace(Position(EPOCH, 5), [entry_of(rig.view, route(KEY, 4, ONE))], []))
    follower._ended(None)
    assert rig.cache.resolve(KEY).url == ONE


@pytest.mark.parametrize("key", ["team-b/payments/prod/v1", RouteKey("team-b", "payments", "prod", "v1")])
def test_keys_of_other_tenants_are_asked_for(rig: Rig, key: RouteKey | str) -> None:
    rig.load()
    assert rig.cache.resolve(key) == "called"
    assert rig.calls == [str(key)]


@pytest.mark.parametrize("key", ["", "no key", RouteKey("a", "b", "c", "d e")])
def test_what_is_no_key_is_refused(rig: Rig, key: RouteKey | str) -> None:
    rig.load()
    with pytest.raises(InvalidArgument):
        rig.cache.resolve(key)


@pytest.mark.parametrize("rig", ["call"], indirect=True)
def test_stale_and_told_to_call(rig: Rig) -> None:
    rig.load(age=31.0)
    assert [rig.cache.resolve(key) for key in (KEY, ABSENT)] == ["called"] * 2  # type: ignore[comparison-overlap]
    assert (rig.cache.healthy, rig.cache.statistics().calls) == (False, 2)


@pytest.mark.parametrize("rig", ["serve"], indirect=True)
def test_stale_and_told_to_serve(rig: Rig) -> None:
    rig.load(age=31.0)
    found = rig.cache.resolve(KEY)
    assert found.url == ONE
    assert found.age.total_seconds() >= 31.0
    with pytest.raises(RouteNotFound):
        rig.cache.resolve(ABSENT)
    assert (rig.calls, rig.cache.statistics().stale) == ([], 2)
    # What the client has seen elsewhere is newer than that.
    rig.cache.saw(KEY, 9, EPOCH)
    assert rig.cache.resolve(KEY) == "called"


@pytest.mark.parametrize("rig", ["raise"], indirect=True)
def test_stale_and_told_to_raise(rig: Rig) -> None:
    rig.load(age=31.0)
    with pytest.raises(NearCacheStale, match="31 s ago"):
        rig.cache.resolve(KEY)
    assert rig.cache.statistics().refused == 1


def test_own_writes_are_asked_for_until_they_are_here(rig: Rig) -> None:
    rig.load()
    rig.cache.wrote([RouteKey.parse(KEY)], 6, siblings=False)
    assert rig.cache.resolve(KEY) == "called"
    with pytest.raises(RouteInactive):
        rig.cache.resolve(INACTIVE)
    rig.cache.wrote([RouteKey.parse(KEY)], 7, siblings=True)
    assert rig.cache.resolve(INACTIVE) == "called"
    assert rig.cache.floor(RouteKey.parse(KEY)) == Floor(7, EPOCH)
    rig.table.confirm(rig.view, Position(EPOCH, 7), 0.0)
    assert rig.cache.resolve(KEY).url == ONE


def test_callbacks_are_told_what_changed_and_may_fail(rig: Rig) -> None:
    told: list[TableChange] = []

    def fail(_: TableChange) -> None:
        raise RuntimeError("a bug of the caller")

    rig.cache.on_change(fail)
    end = rig.cache.on_change(told.append)
    rig.cache._on_written(Replace(Position(EPOCH, 5), []))
    rig.cache._on_written(Apply(Position(EPOCH, 6), [change(KEY, 6, None)]))
    rig.cache._on_written(Apply(Position(EPOCH, 7), []))
    rig.cache._on_written(Confirm(Position(EPOCH, 8), 0.0, False))
    assert told == [TableChange(None, 5, EPOCH), TableChange((KEY,), 6, EPOCH)]
    assert rig.cache.statistics().callback_failures == 2
    end()
    end()
    rig.cache._on_written(Replace(Position(EPOCH, 9), []))
    assert len(told) == 2


def test_it_starts_when_it_is_used_and_ends_once() -> None:
    rig = Rig()
    assert rig.services == []
    rig.cache.resolve(KEY)
    rig.cache.start()
    assert len(rig.services) == 1
    rig.cache.close()
    rig.cache.close()
    assert rig.services[0].closed
    assert rig.closed == [rig.cache]
    with pytest.raises(RuntimeError, match="closed"):
        rig.cache.resolve(KEY)


def test_one_that_was_never_used_can_be_closed() -> None:
    rig = Rig()
    rig.cache.close()
    assert rig.services == []


def test_waiting_has_an_end(rig: Rig) -> None:
    begun = time.monotonic()
    assert not rig.cache.wait_ready(0.01)
    assert time.monotonic() - begun < 5
    rig.load()
    assert rig.cache.wait_ready()


def test_around_a_fork_the_parent_goes_on_and_the_child_starts_anew(rig: Rig) -> None:
    rig.load()
    ids = [follower._watcher.id for follower in rig.cache._followers]
    rig.cache.before_fork()
    assert rig.services[0].closed
    rig.cache.after_fork_in_parent()
    assert len(rig.services) == 2
    assert rig.cache.resolve(KEY).url == ONE
    rig.cache.before_fork()
    rig.cache.after_fork_in_child()
    assert len(rig.services) == 2
    assert [follower._watcher.id for follower in rig.cache._followers] != ids
    assert rig.cache.resolve(KEY).url == ONE  # the table is there, and a stream is opened
    assert len(rig.services) == 3


def test_a_child_serves_no_longer_than_its_parent(rig: Rig) -> None:
    """A table from a server is not served anew for ``max_stale``, as one from a disk is at a start."""
    rig.load(age=31.0)
    rig.cache.before_fork()
    rig.cache.after_fork_in_child()
    assert rig.cache.resolve(KEY) == "called"


def test_one_that_was_never_used_does_not_start_by_a_fork() -> None:
    rig = Rig()
    rig.cache.before_fork()
    rig.cache.after_fork_in_parent()
    rig.cache.before_fork()
    rig.cache.after_fork_in_child()
    assert rig.services == []
    rig.cache.close()


# Selects


def test_the_table_chooses(rig: Rig) -> None:
    rig.load(0.0, TO_V1)
    found = rig.cache.select(FAMILY, "user-1")
    assert isinstance(found, CachedSelection)
    assert (found.url, found.choice, found.traffic_revision) == (ONE, Choice("v1", Rule.SPLIT), 5)
    assert rig.cache.select(FamilyKey.parse(FAMILY), "user-2") is found
    assert rig.cache.select(FAMILY, "x" * 256) is found
    assert (rig.cache.statistics().reads, rig.calls) == (3, [])
    assert rig.cache._read_counts.take()[KEY] > 1


def test_without_traffic_the_only_active_version_is_chosen(rig: Rig) -> None:
    rig.load()
    found = rig.cache.select(FAMILY)
    assert isinstance(found, CachedSelection)
    assert (found.choice, found.traffic_revision) == (Choice("v1", Rule.ONLY_ACTIVE), 0)


def test_reads_are_counted_for_the_version_that_was_chosen(rig: Rig) -> None:
    rig.load(0.0, TO_V1)
    for _ in range(1_000):
        rig.cache.select(FAMILY, "user-1")
    counts = rig.cache._read_counts.take()
    assert set(counts) == {KEY}
    assert 500 < counts[KEY] < 2_000


def test_where_nothing_can_be_chosen_the_error_is_that_of_the_server(rig: Rig) -> None:
    rig.load(0.0, Division((("v2", 10_000),)))
    with pytest.raises(NoActiveVersion) as inactive:
        rig.cache.select(FAMILY, "user-1")
    assert inactive.value.metadata == {"key": FAMILY, "versions": "v2", "revision": "5", "epoch": EPOCH}
    assert inactive.value.versions == ("v2",)
    with pytest.raises(NoActiveVersion, match="no version of team-a/nothing/prod is active: activate one"):
        rig.cache.select("team-a/nothing/prod")
    rig.table.apply(
        rig.view,
        Position(EPOCH, 7),
        [traffic_change(FAMILY, 6, None, 7), change(INACTIVE, 7, route(INACTIVE, 7, ONE), 7)],
    )
    with pytest.raises(AmbiguousVersion) as ambiguous:
        rig.cache.select(FAMILY, "user-1")
    assert (ambiguous.value.versions, ambiguous.value.metadata["revision"]) == (("v1", "v2"), "7")
    assert (rig.cache.statistics().absent, rig.calls) == (3, [])


@pytest.mark.parametrize(
    ("key", "sticky_key"), [("team-a", ""), (KEY, ""), ("team-a/pay ments/prod", ""), (FAMILY, "x" * 257)]
)
def test_what_is_no_select_is_refused(rig: Rig, key: str, sticky_key: str) -> None:
    rig.load(0.0, TO_V1)
    with pytest.raises(InvalidArgument):
        rig.cache.select(key, sticky_key)
    assert rig.calls == []


def test_a_sticky_key_is_bounded_in_bytes(rig: Rig) -> None:
    rig.load(0.0, TO_V1)
    assert rig.cache.select(FAMILY, "é" * 128)
    with pytest.raises(InvalidArgument):
        rig.cache.select(FAMILY, "é" * 129)


def test_where_the_table_cannot_choose_the_server_is_asked(rig: Rig) -> None:
    assert rig.cache.select(FAMILY, "user-1") == "called"  # not loaded
    rig.load(has_traffic=False)
    assert rig.cache.select(FAMILY, "user-2") == "called"  # of a server that sends no traffic
    assert rig.cache.resolve(KEY).url == ONE
    rig.load(0.0, TO_V1)
    assert rig.cache.select("team-b/payments/prod", "user-3") == "called"  # not covered
    rig.cache.wrote([FamilyKey.parse(FAMILY).version("")], 6, siblings=False)
    assert rig.cache.select(FAMILY, "user-4") == "called"  # the client has written
    assert rig.cache.floor(FamilyKey.parse(FAMILY)) == Floor(6, EPOCH)
    rig.table.confirm(rig.view, Position(EPOCH, 6), 0.0)
    rig.cache.saw(FAMILY, 7, EPOCH)
    assert rig.cache.select(FAMILY, "user-5") == "called"  # the client has seen more
    rig.table.confirm(rig.view, Position(EPOCH, 7), 0.0)
    assert rig.cache.select(FAMILY, "user-6").url == ONE
    assert [each.split()[1] for each in rig.calls] == [f"user-{number}" for number in range(1, 6)]
    assert rig.cache.statistics().calls == 5


@pytest.mark.parametrize("rig", ["call", "serve", "raise"], indirect=True)
def test_a_stale_select_is_as_a_stale_resolve(rig: Rig) -> None:
    rig.load(age=31.0)
    policy = rig.cache._options.on_stale
    if policy == "raise":
        with pytest.raises(NearCacheStale):
            rig.cache.select(FAMILY)
    elif policy == "call":
        assert rig.cache.select(FAMILY) == "called"
    else:
        assert rig.cache.select(FAMILY).url == ONE


def test_callbacks_are_told_of_traffic_by_its_family(rig: Rig) -> None:
    told: list[TableChange] = []
    rig.cache.on_change(told.append)
    rig.cache._on_written(Apply(Position(EPOCH, 6), [traffic_change(FAMILY, 6, TO_V1)]))
    assert told == [TableChange((FAMILY,), 6, EPOCH)]


def test_around_a_fork_traffic_is_still_there(rig: Rig) -> None:
    rig.load(0.0, TO_V1)
    rig.cache.select(FAMILY, "user-1")
    rig.cache.before_fork()
    rig.cache.after_fork_in_child()
    assert rig.cache.select(FAMILY, "user-1").url == ONE
    assert rig.calls == []
