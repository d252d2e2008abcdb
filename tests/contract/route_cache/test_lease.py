"""Lease: only its owner fills an absent key, and any write, eviction or restart ends it."""

from tests.support.route_cache import K1, K2, LEASED, LIFETIMES, MISS, Harness, at, hit, settle


async def test_the_second_to_ask_is_not_leased(harness: Harness) -> None:
    assert await harness.get(owner="first") == LEASED
    assert await harness.get(owner="second") == MISS
    assert await harness.get(owner="first") == MISS


async def test_only_the_holder_of_the_lease_fills(harness: Harness) -> None:
    await harness.get(owner="first")
    await harness.get(owner="second")
    await harness.cache.fill([at(5)], "second")
    await harness.cache.fill([at(5)], "")
    assert await harness.get(owner="second") == MISS
    await harness.cache.fill([at(4)], "first")
    assert await harness.get() == hit(at(4))


async def test_without_a_lease_nothing_is_filled(harness: Harness) -> None:
    await harness.cache.fill([at(5)], "nobody")
    await harness.cache.fill([at(5)], "")
    assert await harness.get() == LEASED


async def test_the_lease_of_one_key_fills_no_other(harness: Harness) -> None:
    await harness.get(K1, "first")
    await harness.cache.fill([at(5, K2)], "first")
    assert await harness.get(K2) == LEASED


async def test_a_lease_fills_once(harness: Harness) -> None:
    await harness.get(owner="first")
    await harness.cache.fill([at(5)], "first")
    await harness.evict(K1)
    await harness.cache.fill([at(5)], "first")
    assert await harness.get() == LEASED


async def test_a_lease_ends_by_itself_when_its_holder_dies(harness: Harness) -> None:
    await harness.get(owner="dead")
    assert 0 < await harness.lapse(K1) <= LIFETIMES.lease
    assert await harness.get(owner="next") == LEASED
    await harness.cache.fill([at(5)], "dead")
    assert await harness.get() == MISS


async def test_the_announcement_of_a_write_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await harness.cache.mark([K1], "writer")
    await harness.cache.fill([at(5)], "reader")
    await harness.lapse(K1)
    assert await harness.get() == LEASED


async def test_a_finished_write_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await settle(harness.cache, at(6))
    await harness.cache.fill([at(5)], "reader")
    assert await harness.get() == hit(at(6))


async def test_a_write_that_could_not_be_announced_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await harness.cache.settle([at(6)], "writer")
    await harness.cache.fill([at(5)], "reader")
    assert await harness.get() == LEASED


async def test_a_consumed_write_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await harness.cache.consume([at(6)])
    await harness.cache.fill([at(5)], "reader")
    assert await harness.get() == LEASED


async def test_eviction_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await harness.evict(K1)
    await harness.cache.fill([at(5)], "reader")
    assert await harness.get() == LEASED


async def test_a_flush_or_restart_ends_the_lease(harness: Harness) -> None:
    await harness.get(owner="reader")
    await harness.flush()
    assert await harness.get(owner="next") == LEASED
    await harness.cache.fill([at(5)], "reader")
    assert await harness.get(owner="another") == MISS
    await harness.cache.fill([at(6)], "next")
    assert await harness.get() == hit(at(6))
