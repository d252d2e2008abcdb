"""Fence: a value is only replaced by one with a higher revision."""

import pytest

from tests.support.route_cache import LARGE, Harness, Writing, absent, at, consume, fill, hit, settle

every_write = pytest.mark.parametrize("write", [fill, settle, consume])
# As numbers in Lua, each pair but the first two would be equal; as unpadded text, 9 would be above 10.
pairs = pytest.mark.parametrize(
    ("older", "newer"), [(1, 2), (9, 10), (LARGE, LARGE + 1), (LARGE + 1, LARGE + 2), (2**63 - 2, 2**63 - 1)]
)


@every_write
@pairs
async def test_an_older_value_never_replaces_a_newer_one(
    harness: Harness, write: Writing, older: int, newer: int
) -> None:
    await harness.hold(at(newer))
    await write(harness.cache, at(older))
    assert await harness.get() == hit(at(newer))


@every_write
@pairs
async def test_a_newer_value_replaces_an_older_one(harness: Harness, write: Writing, older: int, newer: int) -> None:
    await harness.hold(at(older))
    await write(harness.cache, at(newer))
    assert await harness.get() == hit(at(newer))


@every_write
async def test_a_value_as_old_as_the_cached_one_does_not_replace_it(harness: Harness, write: Writing) -> None:
    await harness.hold(at(5))
    await write(harness.cache, absent(5))
    assert await harness.get() == hit(at(5))
