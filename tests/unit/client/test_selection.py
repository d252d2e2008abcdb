"""selection: the published rule, against its vectors and over many callers."""

import json
from array import array
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from pointsman.selection import POINTS, Choice, Rule, Split, only_active, words
from pointsman_server.domain.traffic import Slice, Target, allot
from tests.support import selection_vectors

FAMILY = "team-a/payments/prod"
VECTORS = json.loads(selection_vectors.FILE.read_text("utf-8"))
CALLERS = 1_000_000


def split(slices: Sequence[tuple[str, int]], active: str, fallbacks: str = "") -> Split:
    targets = list(dict.fromkeys(version for version, _ in slices))
    return Split(FAMILY, slices, targets, fallbacks.split(), active.split())


# The vectors


def test_the_file_is_what_its_program_writes() -> None:
    assert selection_vectors.FILE.read_text("utf-8") == selection_vectors.text()


def test_there_are_vectors_of_everything_that_decides() -> None:
    selections = [each for case in VECTORS["cases"] for each in case["selections"]]
    assert len(selections) >= 60
    assert {each.get("rule", each.get("error")) for each in selections} == {
        *(rule.name for rule in Rule if rule is not Rule.UNKNOWN),
        "NO_ACTIVE_VERSION",
        "AMBIGUOUS_VERSION",
    }
    assert {len(each["sticky_key"].encode()) for each in selections} >= {1, 256}
    assert any(len(each.get("inactive_versions", ())) > 1 for each in selections)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vector(case: dict[str, Any]) -> None:
    traffic = case["traffic"]
    for each in case["selections"]:
        if traffic is None:
            choice = only_active(case["active"])
        else:
            choice = Split(
                case["family"],
                [(piece["version"], piece["size"]) for piece in traffic["slices"]],
                [target["version"] for target in traffic["targets"]],
                traffic["fallbacks"],
                case["active"],
            ).choose(each["sticky_key"])
        if "error" in each:
            assert choice is None
        else:
            assert choice == Choice(each["version"], Rule[each["rule"]], tuple(each["inactive_versions"]))


@pytest.mark.parametrize("each", VECTORS["words"], ids=lambda each: each["sticky_key"][:8])
def test_words(each: dict[str, Any]) -> None:
    row = words(f"{each['family']}\n".encode(), each["sticky_key"].encode())
    assert [str(next(row)) for _ in each["words"]] == each["words"]


# Many callers


@cache
def callers() -> Sequence[bytes]:
    return [b"user-%d" % number for number in range(CALLERS)]


def chosen(slices: Sequence[tuple[str, int]], active: str = "v1 v2 v3") -> bytes:
    """Return the last character of the version of each caller."""
    made = split(slices, active)
    choose = made.choose_encoded
    return bytes(array("B", [ord(choose(key)[0][-1]) for key in callers()]))  # type: ignore[index]


def moves(before: bytes, after: bytes) -> Counter[tuple[str, str]]:
    pairs = Counter(zip(before, after, strict=True))
    return Counter({(chr(a), chr(b)): count for (a, b), count in pairs.items() if a != b})


def tolerance(share: float) -> float:
    """Five standard deviations of a share of all callers."""
    return float(5 * (share * (1 - share) / CALLERS) ** 0.5)


def test_moving_a_tenth_moves_a_tenth_and_nobody_else() -> None:
    before = allot([Target("v1", POINTS)])
    after = allot([Target("v1", 9000), Target("v2", 1000)], before)
    moved = moves(chosen(before), chosen(after))
    assert set(moved) == {("1", "2")}
    assert abs(moved["1", "2"] / CALLERS - 0.1) < tolerance(0.1)


def test_with_three_targets_only_the_share_that_is_moved_moves() -> None:
    before = allot([Target("v1", 5000), Target("v2", 3000), Target("v3", 2000)])
    after = allot([Target("v1", 4000), Target("v2", 3000), Target("v3", 3000)], before)
    moved = moves(chosen(before), chosen(after))
    assert set(moved) == {("1", "3")}
    assert abs(moved["1", "3"] / CALLERS - 0.1) < tolerance(0.1)


def test_an_inactive_target_moves_its_own_callers_alone_and_in_proportion() -> None:
    """So they come back when it is active again: nobody else was moved, and a choice is the same each time."""
    slices = allot([Target("v1", 2000), Target("v2", 6000), Target("v3", 2000)])
    before, without = chosen(slices), chosen(slices, "v2 v3")
    moved = moves(before, without)
    assert set(moved) == {("1", "2"), ("1", "3")}
    assert sum(moved.values()) == before.count(b"1")
    assert abs(moved["1", "2"] / CALLERS - 0.15) < tolerance(0.15)


@pytest.mark.parametrize("active_points", [1, 20, 100])
def test_the_callers_of_a_version_that_had_nearly_everything_are_divided_in_proportion(active_points: int) -> None:
    """Few of their 64 points are in what is left: word 64 must not favour the first version."""
    slices = [Slice("v1", POINTS - 4 * active_points), Slice("v2", active_points), Slice("v3", 3 * active_points)]
    choose = split(slices, "v2 v3").choose_encoded
    count = 4000
    to_v3 = sum(choose(key)[0] == "v3" for key in callers()[:count])  # type: ignore[index]
    assert abs(to_v3 / count - 0.75) < 5 * (0.75 * 0.25 / count) ** 0.5


# Edges


def test_an_empty_sticky_key_gets_a_version_at_random_by_the_weights() -> None:
    made = split([("v1", 7000), ("v2", 3000)], "v1 v2")
    found = Counter(choice.version for _ in range(4000) if (choice := made.choose("")))
    assert abs(found["v1"] / 4000 - 0.7) < 5 * (0.7 * 0.3 / 4000) ** 0.5


def test_the_choice_of_a_sticky_key_is_the_same_each_time() -> None:
    made = split([("v1", 5000), ("v2", 5000)], "v1 v2")
    assert len({made.choose("user-1") for _ in range(50)}) == 1


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        split([("v1", 5000), ("v2", 5000)], "v1 v2").choose("\ud800")


@pytest.mark.parametrize(
    ("active", "fallbacks", "versions"),
    [
        ("v1 v2 v0", "v0", ["v1", "v2"]),
        ("v2 v0", "v0", ["v2"]),
        ("v0", "v0", ["v0"]),
        ("", "v0", []),
        ("v9", "", []),
    ],
)
def test_what_may_be_chosen_is_said_once_for_each_version(active: str, fallbacks: str, versions: list[str]) -> None:
    made = split([("v1", 4_000), ("v2", 4_000), ("v1", 2_000)], active, fallbacks)
    assert [each.version for each in made.possible()] == versions
    chosen = {found.version for number in range(200) if (found := made.choose(f"user-{number}"))}
    assert chosen == set(versions)
