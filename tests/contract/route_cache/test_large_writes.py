"""Large writes: what is cached or leased is marked, and dropped if it is older."""

from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.store import Clock
from tests.support.route_cache import K1, K2, K3, LEASED, MISS, READER, WRITER, Harness, absent, at, hit


async def drop(harness: Harness, *keyed: tuple[RouteKey, int], owner: str = WRITER) -> None:
    keys, revisions = zip(*keyed, strict=True)
    await harness.cache.drop_older(keys, revisions, Clock("no-epoch", max(revisions)), owner)


async def test_a_large_write_marks_only_what_is_held_or_leased(harness: Harness) -> None:
    await harness.hold(at(1))
    assert await harness.get(K2) == LEASED
    await harness.cache.mark_held([K1, K2, K3], WRITER)
    assert await harness.get(K1) == await harness.get(K2) == MISS
    await harness.cache.fill([at(1, K2)], READER)
    assert await harness.get(K2) == MISS
    assert await harness.get(K3) == LEASED


async def test_a_large_write_drops_what_is_older_and_keeps_what_is_not(harness: Harness) -> None:
    await harness.hold(at(4), at(5, K2), at(6, K3))
    await harness.cache.mark_held([K1, K2, K3], WRITER)
    await drop(harness, (K1, 5), (K2, 5), (K3, 5))
    assert await harness.get(K1) == LEASED
    assert await harness.get(K2) == hit(at(5, K2))
    assert await harness.get(K3) == hit(at(6, K3))


async def test_what_was_filled_between_mark_and_commit_is_dropped(harness: Harness) -> None:
    await harness.cache.mark_held([K1], WRITER)
    await harness.hold(absent(4))
    await drop(harness, (K1, 5))
    assert await harness.get() == LEASED


async def test_a_load_from_before_a_large_write_cannot_be_filled_in_after_it(harness: Harness) -> None:
    await harness.cache.mark_held([K1], WRITER)
    assert await harness.get() == LEASED
    await drop(harness, (K1, 5))
    await harness.cache.fill([absent(4)], READER)
    assert await harness.get(owner="another") == LEASED


async def test_a_write_that_committed_before_a_large_one_and_settles_after_it_brings_nothing_back(
    harness: Harness,
) -> None:
    await harness.cache.mark([K1], "slow")
    await harness.cache.mark_held([K1], WRITER)
    await drop(harness, (K1, 5))
    await harness.cache.settle([at(4)], "slow")
    assert await harness.get() == LEASED


async def test_a_large_write_takes_its_marks_back_from_what_is_new_enough(harness: Harness) -> None:
    await harness.hold(at(5))
    await harness.cache.mark_held([K1], WRITER)
    await harness.cache.mark([K1], "later")
    await drop(harness, (K1, 5))
    await harness.cache.settle([at(6)], "later")
    assert await harness.get() == hit(at(6))


async def test_thousands_of_keys_are_dropped_at_once(harness: Harness) -> None:
    keys = [K1._replace(service=f"s{number}") for number in range(1203)]
    await harness.hold(*(at(1, key) for key in keys[::100]))
    await harness.cache.mark_held(keys, WRITER)
    await drop(harness, *((key, 2 if number % 200 else 1) for number, key in enumerate(keys)))
    kept = [number for number in range(0, 1203, 100) if await harness.get(keys[number]) != LEASED]
    assert kept == list(range(0, 1203, 200))
