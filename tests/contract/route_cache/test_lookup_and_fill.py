"""A lookup answers what was filled, or leases the key."""

from dataclasses import replace

from pointsman_server.domain.routes import RouteKey, Snapshot
from tests.support.route_cache import K1, K2, K3, LEASED, Harness, absent, at, hit


async def test_an_empty_cache_leases_the_key(harness: Harness) -> None:
    assert await harness.get() == LEASED


async def test_a_filled_value_is_answered_as_it_was(harness: Harness) -> None:
    snapshot = at(7, labels={"ünï": "🚂", "": "empty"})
    await harness.hold(replace(snapshot, as_of=9))
    assert await harness.get() == hit(replace(snapshot, as_of=9))


async def test_an_inactive_route_is_answered_as_one(harness: Harness) -> None:
    snapshot = at(7)
    assert snapshot.route
    await harness.hold(Snapshot(K1, replace(snapshot.route, active=False), 7))


async def test_absence_is_cached_like_a_value(harness: Harness) -> None:
    await harness.hold(absent(7))
    assert await harness.get() == hit(absent(7))


async def test_absence_obeys_the_fence_in_both_directions(harness: Harness) -> None:
    await harness.hold(absent(7))
    await harness.cache.fill([at(6)], "late")
    assert await harness.get() == hit(absent(7))
    await harness.cache.fill([at(8)], "newer")
    assert await harness.get() == hit(at(8))
    await harness.cache.fill([absent(7)], "late")
    assert await harness.get() == hit(at(8))
    await harness.cache.consume([absent(9)])
    assert await harness.get() == hit(absent(9))


async def test_many_keys_in_one_call_are_answered_in_their_order(harness: Harness) -> None:
    await harness.hold(at(5, K2))
    assert await harness.cache.get([K3, K2, K1], "reader") == [LEASED, hit(at(5, K2)), LEASED]
    await harness.cache.fill([at(6, K1), absent(6, K3)], "reader")
    assert await harness.cache.get([K1, K2, K3], "other") == [hit(at(6, K1)), hit(at(5, K2)), hit(absent(6, K3))]


async def test_a_thousand_keys_in_one_call(harness: Harness) -> None:
    keys = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(1000)]
    assert await harness.cache.get(keys, "reader") == [LEASED] * 1000
    await harness.cache.fill([at(number + 1, key) for number, key in enumerate(keys)], "reader")
    found = await harness.cache.get(keys, "reader")
    assert [lookup.snapshot.as_of for lookup in found if lookup.snapshot] == list(range(1, 1001))


async def test_nothing_in_nothing_out(harness: Harness) -> None:
    assert await harness.cache.get([], "reader") == []
    await harness.cache.fill([], "reader")
    await harness.cache.mark([], "writer")
    await harness.cache.settle([], "writer")
    await harness.cache.consume([])
