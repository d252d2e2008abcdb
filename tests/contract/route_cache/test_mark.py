"""Mark: from before the commit of a write until after it, a key is neither answered nor filled."""

import pytest

from tests.support.route_cache import K1, K2, LEASED, MISS, Harness, Writing, absent, at, consume, fill, hit, settle


async def test_from_before_the_commit_a_key_is_neither_answered_nor_leased(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1, K2], "writer")
    assert await harness.cache.get([K1, K2], "reader") == [MISS, MISS]


async def test_from_before_the_commit_a_key_is_not_filled_not_even_with_something_newer(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1, K2], "writer")
    await harness.cache.fill([at(7), at(7, K2)], "writer")
    await harness.cache.fill([at(7), at(7, K2)], "")
    assert await harness.cache.get([K1, K2], "reader") == [MISS, MISS]
    await harness.cache.settle([at(6), at(6, K2)], "writer")
    assert await harness.cache.get([K1, K2], "reader") == [hit(at(6)), hit(at(6, K2))]


async def test_settle_brings_a_written_key_in_also_where_nothing_was(harness: Harness) -> None:
    await settle(harness.cache, at(6))
    assert await harness.get() == hit(at(6))


async def test_settle_brings_a_deletion_in(harness: Harness) -> None:
    await harness.hold(at(5))
    await settle(harness.cache, absent(6))
    assert await harness.get() == hit(absent(6))


async def test_a_mark_expires_by_itself_when_its_writer_dies(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1], "dead")
    assert 0 < await harness.lapse(K1) <= 10.0
    assert await harness.get() == LEASED  # and what was there before the mark is gone: it may be old


@pytest.mark.parametrize("write", [fill, consume])
async def test_the_mark_of_a_dead_writer_is_not_prolonged_by_readers_and_consumers(
    harness: Harness, write: Writing
) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1], "dead")
    await write(harness.cache, at(6))
    assert 0 < await harness.lapse(K1) <= 10.0
    assert await harness.get() == LEASED


async def test_the_mark_of_a_dead_writer_is_not_prolonged_by_the_settling_of_another(harness: Harness) -> None:
    await harness.cache.mark([K1], "one")
    await harness.cache.mark([K1], "dead")
    await harness.cache.settle([at(6)], "one")
    assert await harness.get() == MISS
    assert 0 < await harness.lapse(K1) <= 10.0
    assert await harness.get() == LEASED


async def test_while_one_of_two_writers_is_not_done_the_key_is_not_answered(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark([K1], "one")
    await harness.cache.mark([K1], "other")
    await harness.cache.settle([at(6)], "one")
    assert await harness.get() == MISS
    await harness.cache.settle([at(7)], "other")
    assert await harness.get() == hit(at(7))


async def test_two_writers_who_settle_in_the_wrong_order_leave_the_newer_value(harness: Harness) -> None:
    await harness.cache.mark([K1], "one")
    await harness.cache.mark([K1], "other")
    await harness.cache.settle([at(7)], "other")
    await harness.cache.settle([at(6)], "one")
    assert await harness.get() == hit(at(7))


async def test_settle_with_a_lost_mark_drops_the_key(harness: Harness) -> None:
    """A key that lost its mark may have been filled with a value from before the commit."""
    await harness.cache.mark([K1], "writer")
    await harness.flush()
    await harness.get(owner="reader")
    await harness.cache.fill([at(5)], "reader")
    await harness.cache.settle([at(6)], "writer")
    assert await harness.get() == LEASED


async def test_settle_with_a_lost_mark_keeps_what_is_newer(harness: Harness) -> None:
    await harness.cache.mark([K1], "writer")
    await harness.flush()
    await harness.hold(at(7))
    await harness.cache.settle([at(6)], "writer")
    assert await harness.get() == hit(at(7))


async def test_settle_takes_back_only_its_own_mark(harness: Harness) -> None:
    await harness.cache.mark([K1], "one")
    await harness.cache.settle([at(6)], "other")
    assert await harness.get() == MISS
