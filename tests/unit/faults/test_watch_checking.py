"""The checker of watchers finds every violation that is planted, and none in a clean view."""

from collections.abc import Callable

import pytest

from tests.faults.history import Era, Row
from tests.faults.watch_checking import check_watchers
from tests.faults.watchers import Received, View

A, B, OTHER = "t/s/prod/a", "t/s/prod/b", "t/other/prod/a"
EPOCH = "now"
ROWS = [
    Row(1, A, "CREATED", "w1", "u1", True, EPOCH, change_set_end=1),
    Row(2, B, "CREATED", "w2", "u2", False, EPOCH, change_set_end=2),
    Row(3, OTHER, "CREATED", "w3", "u3", True, EPOCH, change_set_end=3),
    Row(4, B, "ACTIVATED", "w4", "u2", True, EPOCH, change_set_end=5),
    Row(5, A, "DEACTIVATED", "w4", "u1", False, EPOCH, change_set_end=5),
    Row(6, A, "DELETED", "w6", "", False, EPOCH, change_set_end=6),
]
ERA = Era(EPOCH, rows=ROWS)


def clean() -> View:
    """A snapshot as of 2, an activation of one and not the other, a removal."""
    snapshot = {A: (1, "active", "u1"), B: (2, "inactive", "u2")}
    view = View(0, ("s", ""), EPOCH, 2, snapshot, {B: (4, "active", "u2")}, revision=6)
    view.received = [Received(1.0, 5, [(4, B), (5, A)]), Received(2.0, 6, [(6, A)])]
    return view


def test_a_clean_view_has_none() -> None:
    assert check_watchers([[clean()]], [ERA]) == []


def lose(view: View) -> None:
    del view.received[1]


def repeat(view: View) -> None:
    view.received.append(view.received[1])


def swap(view: View) -> None:
    view.received.reverse()


def tear(view: View) -> None:
    view.received[:1] = [Received(1.0, 4, [(4, B)]), Received(1.1, 5, [(5, A)])]


def keep(view: View) -> None:
    view.table[A] = (1, "active", "u1")


def invent(view: View) -> None:
    view.snapshot[OTHER] = (3, "active", "u3")


def fall_behind(view: View) -> None:
    view.revision = 5
    view.table[A] = (5, "inactive", "u1")
    lose(view)


def misplace(view: View) -> None:
    view.problems.append("a checkpoint of 1 after 2")


def misname(view: View) -> None:
    view.epoch = "never"


@pytest.mark.parametrize(
    ("plant", "promise", "rule"),
    [
        (lose, 8, "a gap"),
        (repeat, 8, "a gap, a repetition"),
        (swap, 8, "out of order"),
        (tear, 15, "a change set is torn"),
        (keep, 8, "a replica differs"),
        (invent, 8, "a snapshot that was never true"),
        (fall_behind, 8, "a watcher is behind"),
        (misplace, 8, "an event out of order"),
        (misname, 8, "an epoch that never was"),
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[View], None], promise: int, rule: str) -> None:
    view = clean()
    plant(view)
    found = check_watchers([[view]], [ERA])
    assert any(each.promise == promise and rule in each.rule for each in found), found


def test_a_watcher_without_a_view_is_found() -> None:
    assert [each.rule for each in check_watchers([[]], [ERA])] == ["a watcher is behind at the end"]
