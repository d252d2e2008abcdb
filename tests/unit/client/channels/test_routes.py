"""What a channel reads from a near-cache: its table, its changes, and the server behind it."""

from collections.abc import Iterator

import pytest

from pointsman import AsyncClient, Client
from pointsman.channels.routes import AsyncNearCacheRoutes, NearCacheRoutes
from pointsman.errors import AmbiguousVersion, DeadlineExceeded, InvalidArgument, NoActiveVersion, RouteInactive
from pointsman.keys import FamilyKey, RouteKey
from pointsman.near_cache.base import BaseNearCache
from pointsman.near_cache.near_cache import NearCache
from pointsman.near_cache.table.entries import entry_of
from pointsman.near_cache.watch.protocol import Apply, Position
from pointsman.v1.route_pb2 import RouteChange
from tests.support.fake_route_service import FakeServer
from tests.support.watch_events import EPOCH, Division, change, route, traffic, traffic_change

FAMILY = "team-a/payments/prod"
V1, V2 = f"{FAMILY}/v1", f"{FAMILY}/v2"
ONE, TWO = "http://one.internal", "http://two.internal"


@pytest.fixture
def cache() -> Iterator[NearCache]:
    with Client("127.0.0.1:1") as client, client.cached(tenants=["team-a"]) as cache:
        yield cache


def load(cache: BaseNearCache[object, object], *division: Division) -> None:
    [view] = cache._views
    routes = [entry_of(view, route(V1, 4, ONE)), entry_of(view, route(V2, 5, TWO, active=False))]
    cache._table.replace(view, Position(EPOCH, 5), routes, [traffic(FAMILY, 5, each) for each in division])
    cache._table.confirm(view, Position(EPOCH, 5), 0.0)


def apply(cache: NearCache, *changes: RouteChange) -> None:
    [view] = cache._views
    step = Apply(Position(EPOCH, changes[-1].revision), list(changes))
    cache._table.apply(view, step.as_of, step.changes)
    cache._on_written(step)


def test_a_route(cache: NearCache) -> None:
    routes = NearCacheRoutes(cache, RouteKey.parse(V1))
    assert (routes.key, routes.urls(), routes.find("")) == (V1, None, None)
    load(cache)
    assert (routes.urls(), routes.find("user-1")) == ({ONE}, ONE)
    inactive = NearCacheRoutes(cache, V2)
    assert inactive.urls() == frozenset()
    with pytest.raises(RouteInactive):
        inactive.find("")
    assert set(cache._read_counts.take()) == {V1, V2}
    for _ in range(1_000):
        routes.urls()
    assert cache._read_counts.take() == {}, "it is no read"
    for _ in range(1_000):
        routes.find("")
    assert 500 < cache._read_counts.take()[V1] < 2_000


def test_a_family(cache: NearCache) -> None:
    routes = NearCacheRoutes(cache, FamilyKey.parse(FAMILY))
    assert (routes.urls(), routes.find("")) == (None, None)
    load(cache)
    assert (routes.urls(), routes.find("")) == ({ONE}, ONE)
    apply(cache, change(V2, 6, route(V2, 6, TWO)))
    assert routes.urls() == frozenset()
    with pytest.raises(AmbiguousVersion):
        routes.find("")
    apply(cache, traffic_change(FAMILY, 7, Division((("v1", 5_000), ("v2", 5_000)))))
    assert routes.urls() == {ONE, TWO}
    assert {routes.find(f"user-{number}") for number in range(50)} == {ONE, TWO}
    apply(cache, traffic_change(FAMILY, 8, Division((("v1", 0), ("v2", 10_000)), ("v1",))))
    assert routes.urls() == {TWO}
    apply(cache, change(V2, 9, route(V2, 9, TWO, active=False)))
    assert (routes.urls(), routes.find("")) == ({ONE}, ONE)
    apply(cache, change(V1, 10, None))
    assert routes.urls() == frozenset()
    with pytest.raises(NoActiveVersion):
        routes.find("")


def test_what_the_client_has_written_the_table_must_have_first(cache: NearCache) -> None:
    load(cache)
    cache.saw(V1, 9, EPOCH)
    for key in (V1, FAMILY):
        assert (NearCacheRoutes(cache, key).urls(), NearCacheRoutes(cache, key).find("")) == (None, None)


@pytest.mark.parametrize(("key", "told"), [(V1, [V1]), (FAMILY, [V1, V2, FAMILY])])
def test_it_follows_what_concerns_it(cache: NearCache, key: str, told: list[str]) -> None:
    changes: list[int] = []
    load(cache)
    end = NearCacheRoutes(cache, key).follow(lambda: changes.append(1))
    for number, changed in enumerate((V1, V2, FAMILY, f"{FAMILY}uction/v1")):
        changes.clear()
        made = traffic_change(changed, 6, None) if changed == FAMILY else change(changed, 6 + number, None)
        apply(cache, made)
        assert changes == ([1] if changed in told else []), changed
    end()
    apply(cache, change(V1, 20, None))
    assert changes == []


def test_the_server_is_asked_with_the_time_that_is_left(server: FakeServer, client: Client) -> None:
    server.add(V1, ONE)
    cache = client.cached()
    assert NearCacheRoutes(cache, V1).ask("", 5.0) == ONE
    assert NearCacheRoutes(cache, FAMILY).ask("user-1", None) == ONE


@pytest.mark.parametrize(
    ("client_timeout", "call_timeout", "expected"), [(5.0, None, 5.0), (5.0, 600.0, 5.0), (60.0, 10.0, 10.0)]
)
def test_the_server_is_asked_no_longer_than_call_and_client_take(
    client_timeout: float, call_timeout: float | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def ask(*_: object, timeout: float) -> None:
        asked.append(timeout)
        raise DeadlineExceeded("no answer")

    monkeypatch.setattr(Client, "resolve", ask)
    monkeypatch.setattr(Client, "select", ask)
    with Client("127.0.0.1:1", timeout=client_timeout) as client:
        cache = client.cached()
        for key in (V1, FAMILY):
            with pytest.raises(DeadlineExceeded):
                NearCacheRoutes(cache, key).ask("", call_timeout)
    assert asked == [expected, expected]


async def test_the_same_for_asyncio(server: FakeServer, async_client: AsyncClient) -> None:
    server.add(V1, ONE)
    async with async_client.cached() as cache:
        assert await AsyncNearCacheRoutes(cache, V1).ask("", 5.0) == ONE
        assert await AsyncNearCacheRoutes(cache, FAMILY).ask("user-1", None) == ONE


def test_a_near_cache_that_lacks_it_is_refused(cache: NearCache) -> None:
    with pytest.raises(ValueError, match="each call would ask the server"):
        NearCacheRoutes(cache, "team-b/payments/prod")


def test_it_starts_with_the_first_read() -> None:
    with Client("127.0.0.1:1") as client:
        cache = client.cached()
        routes = NearCacheRoutes(cache, V1)
        assert (routes.urls(), cache._service) == (None, None)
        routes.start()
        assert cache._service is not None


def test_keys_are_checked(cache: NearCache) -> None:
    for wrong in ("", "team-a/payments", f"{V1}/more", "team-a/pay ments/prod", RouteKey("team-a", "a b", "c", "d")):
        with pytest.raises(InvalidArgument):
            NearCacheRoutes(cache, wrong)
