"""The checker of near-caches finds every violation that is planted, and none in what a good one shows."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.history import Era, Row
from tests.faults.near_caches import Look, Observed, Shown, check_near_caches

A, B = "t/s/prod/a", "t/s/prod/b"
OLD = Era("old", rows=[Row(1, A, "CREATED", "w1", "u1", True, "old", change_set_end=1), Row(2, A, "DELETED", "w2", "")])
ROWS = [
    Row(1, A, "CREATED", "w1", "u1", True, "now", change_set_end=1),
    Row(2, B, "CREATED", "w3", "u2", False, "now", change_set_end=2),
    Row(3, B, "ACTIVATED", "w4", "u2", True, "now", change_set_end=4),
    Row(4, A, "DEACTIVATED", "w4", "u1", False, "now", change_set_end=4),
]
ERAS = [OLD, Era("now", base=1, rows=ROWS)]


def good() -> Observed:
    """Shows both epochs, an absence, an activation of one and not the other, and the end."""
    seen = Observed(0, healthy=True)
    seen.shown = [
        Shown(0.5, A, 0, "", 2, "old"),
        Shown(1.0, A, 1, "u1", 2, "now"),
        Shown(1.1, B, 0, "", 2, "now"),
        Shown(2.0, B, 3, "u2", 4, "now"),
        Shown(2.1, A, 0, "", 4, "now"),
    ]
    before, after = {A: (1, "active", "u1")}, {B: (3, "active", "u2")}
    seen.looks = [Look(1.0, 2, 2, "now", before), Look(1.5, 2, 4, "now", before), Look(2.0, 4, 4, "now", after)]
    return seen


def test_a_good_one_has_none() -> None:
    assert check_near_caches([good()], ERAS) == []


def invent(seen: Observed) -> None:
    seen.shown[3] = replace(seen.shown[3], url="u9")


def show_early(seen: Observed) -> None:
    seen.shown[3] = replace(seen.shown[3], as_of=2)


def go_back(seen: Observed) -> None:
    seen.shown.append(Shown(3.0, B, 0, "", 2, "now"))


def return_to_the_old_epoch(seen: Observed) -> None:
    seen.shown.append(seen.shown[0])


def tear(seen: Observed) -> None:
    both = {A: (1, "active", "u1"), B: (3, "active", "u2")}
    seen.looks[1] = Look(1.5, 2, 4, "now", both)


def empty(seen: Observed) -> None:
    seen.looks[0] = Look(1.0, 2, 2, "now", {})


def stay_behind(seen: Observed) -> None:
    del seen.looks[2]
    seen.looks[1] = replace(seen.looks[1], last=2)


def stay_ill(seen: Observed) -> None:
    seen.healthy = False


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (invent, "what never was"),
        (show_early, "what never was"),
        (go_back, "went back"),
        (return_to_the_old_epoch, "went back"),
        (tear, "a table that never was"),
        (empty, "a table that never was"),
        (stay_behind, "not current at the end"),
        (stay_ill, "not current at the end"),
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[Observed], None], rule: str) -> None:
    seen = good()
    plant(seen)
    found = check_near_caches([seen], ERAS)
    assert any(each.promise == 14 and rule in each.rule for each in found), found
