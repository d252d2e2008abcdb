"""A lookup serves reads with the same min_revision for a moment."""

import pytest

from pointsman_server.reads.local_lookup import MAX_AGE_SECONDS, LocalLookup


@pytest.mark.parametrize(
    ("min_revision", "age", "usable"),
    [(5, 0.0, True), (5, MAX_AGE_SECONDS, True), (5, MAX_AGE_SECONDS + 0.01, False), (6, 0.0, False), (0, 0.0, False)],
)
def test_a_lookup_is_for_its_min_revision_and_for_a_moment(min_revision: int, age: float, usable: bool) -> None:
    assert LocalLookup(5, 0.0, ()).is_for(min_revision, age) == usable
