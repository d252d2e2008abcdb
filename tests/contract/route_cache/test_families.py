"""Families: held as routes are, and invalidated by the revision at which one of their parts changed."""

import pytest

from pointsman_server.domain.routes import Family, Snapshot
from pointsman_server.ports.cache import CacheUnavailable, RouteCache
from pointsman_server.ports.store import Clock
from tests.support.route_cache import K1, K2, LEASED, MISS, READER, WRITER, Harness, at, family_at, hit

FAMILY, OTHER = K1.family_key, K1._replace(service="mail").family_key


async def invalidate(harness: Harness, revision: int) -> None:
    await harness.cache.invalidate([FAMILY], [revision], "no-epoch")


async def test_a_family_is_held_beside_its_routes(harness: Harness) -> None:
    await harness.hold(family_at(7), at(7), Snapshot(OTHER, None, 7))
    assert await harness.get(FAMILY) == hit(family_at(7))
    assert await harness.get(K1) == hit(at(7))
    assert await harness.get(OTHER) == hit(Snapshot(OTHER, None, 7))


async def test_a_family_without_traffic_is_held(harness: Harness) -> None:
    route = at(7).route
    assert route
    await harness.hold(Snapshot(FAMILY, Family(FAMILY, None, (route,)), 7))


async def test_what_is_older_is_dropped_and_what_is_not_stays(harness: Harness) -> None:
    await harness.hold(family_at(5), family_at(5, OTHER))
    await harness.cache.invalidate([FAMILY, OTHER, K2], [6, 5, 6], "no-epoch")
    assert await harness.get(FAMILY) == LEASED
    assert await harness.get(OTHER) == hit(family_at(5, OTHER))
    assert await harness.get(K2) == LEASED


async def test_a_load_that_began_before_it_cannot_be_filled_in(harness: Harness) -> None:
    assert await harness.get(FAMILY) == LEASED
    await invalidate(harness, 6)
    await harness.cache.fill([family_at(5)], READER)
    assert await harness.get(FAMILY, "another") == LEASED


async def test_a_mark_stays_and_the_value_under_it_goes(harness: Harness) -> None:
    await harness.hold(family_at(5))
    await harness.cache.mark_held([FAMILY], WRITER)
    await invalidate(harness, 6)
    assert await harness.get(FAMILY) == MISS
    await harness.cache.drop_older([FAMILY], [7], Clock("no-epoch", 7), WRITER)
    assert await harness.get(FAMILY) == LEASED


async def test_older_changes_that_arrive_later_drop_nothing_newer(harness: Harness) -> None:
    await harness.hold(family_at(7))
    for revision in (6, 7, 5):
        await invalidate(harness, revision)
    assert await harness.get(FAMILY) == hit(family_at(7))


async def test_thousands_are_invalidated_at_once(harness: Harness) -> None:
    keys = [FAMILY._replace(service=f"s{number}") for number in range(1203)]
    held = keys[::100]
    await harness.hold(*(Snapshot(key, None, 5) for key in held))
    await harness.cache.invalidate(keys, [5 + number % 200 // 100 for number in range(1203)], "no-epoch")
    kept = [key for key in held if await harness.get(key) != LEASED]
    assert kept == held[::2]


async def test_a_cache_that_is_down_cannot_invalidate(unreachable: RouteCache) -> None:
    with pytest.raises(CacheUnavailable):
        await unreachable.invalidate([FAMILY], [6], "no-epoch")


# Written with the routes that they depend on


async def test_a_write_announces_a_family_that_is_held_with_its_routes_and_no_other(harness: Harness) -> None:
    await harness.hold(family_at(5), at(5, K2))
    await harness.cache.mark([K1], WRITER, [FAMILY, OTHER])
    assert await harness.get(FAMILY) == await harness.get(K1) == MISS
    assert await harness.get(K2) == hit(at(5, K2))
    assert await harness.get(OTHER) == LEASED


async def test_a_write_drops_the_family_when_it_settles_its_routes(harness: Harness) -> None:
    await harness.hold(family_at(5), family_at(7, OTHER))
    await harness.cache.mark([K1], WRITER, [FAMILY, OTHER])
    await harness.cache.settle([at(6)], WRITER, {FAMILY: 6, OTHER: 6})
    assert await harness.get(K1) == hit(at(6))
    assert await harness.get(FAMILY) == LEASED
    assert await harness.get(OTHER) == hit(family_at(7, OTHER))


async def test_a_family_that_was_filled_between_mark_and_commit_is_dropped(harness: Harness) -> None:
    await harness.cache.mark([K1], WRITER, [FAMILY])
    await harness.hold(family_at(5))
    await harness.cache.settle([at(6)], WRITER, {FAMILY: 6})
    assert await harness.get(FAMILY) == LEASED
    await harness.cache.fill([family_at(6)], READER)
    assert await harness.get(FAMILY) == hit(family_at(6))


async def test_many_families_go_with_few_routes(harness: Harness) -> None:
    families = [FAMILY._replace(service=f"s{number}") for number in range(603)]
    held = families[::100]
    await harness.hold(*(Snapshot(key, None, 5) for key in held))
    await harness.cache.mark([K1], WRITER, families)
    assert [await harness.get(key) for key in held] == [MISS] * len(held)
    await harness.cache.settle([at(6)], WRITER, dict.fromkeys(families, 6))
    assert [await harness.get(key) for key in held] == [LEASED] * len(held)
    assert await harness.get(K1) == hit(at(6))
