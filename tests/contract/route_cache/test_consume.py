"""Consume: nothing older is answered afterwards, and no key is added."""

from tests.support.route_cache import K1, K2, LEASED, MISS, Harness, absent, at, hit


async def test_consume_never_brings_back_an_absent_key(harness: Harness) -> None:
    await harness.cache.consume([at(6), absent(6, K2)])
    assert await harness.cache.get([K1, K2], "reader") == [LEASED, LEASED]


async def test_consume_replaces_what_is_older_under_a_mark_too_and_the_mark_stays(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1], "writer")
    await harness.cache.consume([at(6)])
    assert await harness.get() == MISS
    await harness.cache.settle([at(4)], "writer")
    assert await harness.get() == hit(at(6))


async def test_consuming_twice_or_out_of_order_changes_nothing(harness: Harness) -> None:
    await harness.hold(at(5))
    for as_of in (6, 7, 6, 5, 7):
        await harness.cache.consume([at(as_of)])
    assert await harness.get() == hit(at(7))


async def test_ping_is_quiet_when_the_cache_answers(harness: Harness) -> None:
    await harness.cache.ping()
