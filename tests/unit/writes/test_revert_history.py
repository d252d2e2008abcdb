"""writes.revert_history: what a revert reads, and how it names who has changed something since."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from pointsman_server.domain.errors import EpochChanged, HistoryCompacted, InvalidField, RevisionInFuture
from pointsman_server.domain.routes import Change, ChangeKind, RouteKey
from pointsman_server.writes import revert_history
from pointsman_server.writes.revert import Touched, Undone
from pointsman_server.writes.revert_history import RevertHistory
from tests.support.changes import BEGINNING, make_change, make_traffic_change
from tests.support.fakes import EPOCH, MemoryStore

PAY, FAMILY = RouteKey("acme", "pay", "prod", "v1"), RouteKey("acme", "pay", "prod", "")


class World:
    """A history of sets of changes, and what reads it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.history = RevertHistory(self.store)

    def add(self, *changes: Change, recorded: bool = True) -> Sequence[Change]:
        """Add a set."""
        first, size = changes[0].revision, len(changes)
        made = [replace(each, change_set_end=first + size - 1) for each in changes]
        if recorded:
            made = [replace(each, change_set_id=first, change_set_size=size) for each in made]
        self.store.changes += made
        self.store.revision = made[-1].revision
        return made


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Revisions 1, 2 to 5 and 6."""
    monkeypatch.setattr(revert_history, "PAGE", 3)
    world = World()
    world.add(make_change(1, "cart"))
    world.add(make_change(2), make_change(3, "cart"), make_change(4, kind=ChangeKind.DELETED), make_traffic_change(5))
    world.add(make_change(6, "cart"))
    return world


async def test_a_change_set_is_read_whole_and_each_key_once(world):
    found = await world.history.of_set(2)

    assert [(each.key, each.revision, each.left) for each in found.undone] == [
        (PAY, 4, False),
        (PAY._replace(service="cart"), 3, True),
        (FAMILY, 5, True),
    ]
    assert (found.epoch, found.revision) == (EPOCH, 6)


async def test_a_range_may_have_parts_of_sets(world):
    found = await world.history.of_range(3, 6)
    assert {each.key: each.revision for each in found.undone} == {
        PAY: 4,
        PAY._replace(service="cart"): 6,
        FAMILY: 5,
    }


async def test_the_epoch_is_that_of_the_store(world):
    assert (await world.history.of_set(1, EPOCH)).undone == (await world.history.of_range(1, 1)).undone
    for read in (world.history.of_set(1, "another"), world.history.of_range(1, 1, "another")):
        with pytest.raises(EpochChanged) as caught:
            await read
        assert "find what is to be undone" in caught.value.message


async def test_a_revision_that_does_not_exist_yet_is_refused(world):
    for read in (world.history.of_set(7), world.history.of_range(6, 7)):
        with pytest.raises(RevisionInFuture) as caught:
            await read
        assert caught.value.metadata == {"revision": "7", "last_revision": "6"}


async def test_a_change_that_is_not_kept_cannot_be_undone(world):
    del world.store.changes[:2]
    world.store.compacted_revision = 2
    for read in (world.history.of_set(2), world.history.of_range(2, 6)):
        with pytest.raises(HistoryCompacted) as caught:
            await read
        assert caught.value.metadata == {"revision": "2", "oldest_revision": "3"}
    assert len((await world.history.of_range(3, 6)).undone) == 3


async def test_a_history_that_is_cut_back_while_it_is_read_is_not_undone_in_part(world):
    world.store.changes.pop()
    with pytest.raises(RevisionInFuture):
        await world.history.of_range(1, 6)


@pytest.mark.parametrize("revision", [3, 5])
async def test_a_revision_inside_a_set_is_refused_with_the_set_that_it_belongs_to(world, revision):
    with pytest.raises(InvalidField) as caught:
        await world.history.of_set(revision)
    (violation,) = caught.value.violations
    assert violation.field == "change_set_id"
    assert "belongs to the change set 2, of the revisions to 5" in violation.description


async def test_sets_that_were_not_recorded_are_undone_as_ranges(world):
    world.add(make_change(7), make_change(8, "cart"), recorded=False)

    with pytest.raises(InvalidField, match="first_revision and last_revision"):
        await world.history.of_set(7)

    assert len((await world.history.of_range(7, 8)).undone) == 2


async def test_a_set_that_is_too_large_is_undone_in_parts(world):
    world.store.changes[-1] = replace(world.store.changes[-1], change_set_size=10_001)
    with pytest.raises(InvalidField, match="10,001 changes"):
        await world.history.of_set(6)


def undone(key: RouteKey, revision: int) -> Undone:
    return Undone(key, None, revision, True)


async def test_who_has_changed_it_since_is_told_with_time_revision_and_reason(world):
    error = await world.history.who_changed(Touched([(undone(PAY._replace(service="cart"), 3), 6)]))

    (violation,) = error.violations
    assert violation.field == "acme/cart/prod/v1"
    at = f"{BEGINNING + timedelta(seconds=6):%Y-%m-%dT%H:%M:%SZ}"
    assert violation.description == f"the route was changed by ann at {at}, revision 6: why"
    assert error.metadata == {"key": "acme/cart/prod/v1", "revision": "6", "count": "1"}


async def test_who_has_deleted_it_since_is_found_in_the_history(world):
    world.add(make_traffic_change(7, kind=ChangeKind.TRAFFIC_DELETED))
    world.add(make_change(8), make_change(9), make_change(10), make_change(11, kind=ChangeKind.DELETED))

    error = await world.history.who_changed(Touched([(undone(PAY, 2), 0), (undone(FAMILY, 5), 0)]))

    assert [each.description.split(" at ")[0] for each in error.violations] == [
        "the route was deleted by ann",
        "the traffic was deleted by ann",
    ]
    assert [each.description.split(", ")[1] for each in error.violations] == ["revision 11: why", "revision 7: why"]
    assert error.metadata["revision"] == "0"


async def test_what_the_history_does_not_tell_is_left_out(world):
    error = await world.history.who_changed(Touched([(undone(PAY, 4), 0), (undone(FAMILY, 5), 99)]))

    assert [each.description for each in error.violations] == [
        "the route was deleted since",
        "the traffic was changed since, at revision 99",
    ]


async def test_sixteen_are_named_and_all_are_counted(world):
    keys = [PAY._replace(version=f"v{number}") for number in range(40)]
    error = await world.history.who_changed(Touched([(undone(key, 1), 6) for key in keys]))

    assert len(error.violations) == 16
    assert "; and 24 more; " in error.message
    assert error.metadata["count"] == "40"


async def test_long_names_and_reasons_do_not_make_the_status_too_large(world):
    long = make_change(7)
    world.add(replace(long, actor="a" * 256, reason="because " * 128))
    keys = [PAY._replace(version=f"{'v' * 60}{number}") for number in range(16)]

    error = await world.history.who_changed(Touched([(undone(key, 1), 7) for key in keys]))

    assert 3 <= len(error.violations) < 16
    assert sum(len(each.field) + len(each.description) for each in error.violations) < 2_500
    assert error.metadata["count"] == "16"
