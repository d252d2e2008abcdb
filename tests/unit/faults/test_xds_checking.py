"""Planted violations of what xDS clients are promised, and what is none."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.checking import Violation
from tests.faults.history import Era, Row, Write
from tests.faults.traffic.records import SetWrite
from tests.faults.xds.checking import BEHIND_SECONDS, check_xds, family_of
from tests.faults.xds.records import NOTHING, Answer, Disturbance, Observed
from tests.unit.faults.histories import route, rows_of, traffic

FAMILY, KEY = "prod~s0~reach", "reach/s0/prod/"
WALL = 1_000_000.0
Steps = Iterable[tuple[str, str, Mapping[str, Any] | None]]


def made(*sets: tuple[float, Steps], epoch: str = "now") -> list[Row]:
    """Make rows of change sets, each at a monotonic time; its request_id is the time."""
    rows = rows_of(*((f"{at:g}", steps) for at, steps in sets), epoch=epoch)
    for row in rows:
        row.made = float(row.request_id) + WALL
    return rows


def version(name: str, url: str, *, active: bool = True) -> tuple[str, str, Mapping[str, Any]]:
    return f"{KEY}{name}", "UPDATED", route(url, active=active)


def answers(*heard: tuple[float, str]) -> list[Answer]:
    """Make answers: from when on calls reached which backend; empty is NOT_FOUND."""
    found, last = [], -math.inf
    for at, backend in heard:
        found.append(Answer(at - 0.1, at, "OK" if backend else "NOT_FOUND", backend, last=last))
        last = at
    return [replace(each, last=heard[place][0] - 0.1 if place else -math.inf) for place, each in enumerate(found)]


def check(
    rows: Sequence[Row],
    heard: Sequence[Answer],
    *disturbances: Disturbance,
    name: str = FAMILY,
    ended: float = 100.0,
    acknowledged: Mapping[str, float] | None = None,
    eras: Sequence[Era] = (),
) -> list[Violation]:
    sets = [SetWrite(Write(0, ret, KEY, "commit", request, "ok")) for request, ret in (acknowledged or {}).items()]
    observed = Observed({each: each for each in "abc"}, {("Python", name): heard}, list(disturbances), sets)
    observed.ended = ended
    return check_xds(observed, eras or [Era("now", rows=list(rows))], WALL)


TWO = made(
    (1, [version("v1", "a"), version("v2", "b", active=False)]),
    (50, [version("v1", "a", active=False), version("v2", "b")]),
)


def rules(violations: Sequence[Violation]) -> list[str]:
    return [each.rule for each in violations]


def test_a_cut_over_is_followed() -> None:
    assert check(TWO, answers((1.5, "a"), (50.5, "b"))) == []


def test_a_family_is_read_from_a_name_of_either_kind() -> None:
    assert family_of(FAMILY) == family_of(f"v1~{FAMILY}") == "reach/s0/prod"


@pytest.mark.parametrize("code", ["UNAVAILABLE", "UNIMPLEMENTED", "DEADLINE_EXCEEDED", "INTERNAL"])
def test_a_call_that_fails_is_one_too_many_even_while_a_fault_lasts(code: str) -> None:
    failed = Answer(20, 20.1, code, text="no route", last=19.9)
    heard = [*answers((1.5, "a")), failed, *answers((21, "a"), (50.5, "b"))]
    assert rules(check(TWO, heard, Disturbance("a fault", 10, end=30))) == ["a call by xDS failed"]


def test_nothing_is_withdrawn_because_a_fault_lasts() -> None:
    heard = answers((1.5, "a"), (20, NOTHING), (20.5, "a"), (50.5, "b"))
    (found,) = {each.rule for each in check(TWO, heard, Disturbance("a fault", 10, end=30))}
    assert found == "an xDS client was told that nothing is live"


def test_a_backend_that_no_route_names_is_not_reached() -> None:
    heard = answers((1.5, "a"), (20, "b"), (20.5, "a"), (50.5, "b"))
    assert set(rules(check(TWO, heard))) == {"an xDS client reached a backend that was not to be reached"}


def test_what_was_before_is_answered_for_a_moment_only() -> None:
    assert check(TWO, answers((1.5, "a"), (50 + BEHIND_SECONDS, "b"))) == []
    assert check(TWO, answers((1.5, "a"), (50.5 + BEHIND_SECONDS, "b"))) != []


def test_a_client_that_never_follows_is_found() -> None:
    assert check(TWO, answers((1.5, "a"))) != []
    assert check(TWO, answers((1.5, "a")), ended=51.0) == []


def test_a_client_that_misses_what_was_in_between_is_found() -> None:
    rows = made((1, [version("v1", "a")]), (20, [version("v1", "b")]), (40, [version("v1", "a")]))
    assert check(rows, answers((1.5, "a"))) != []
    assert check(rows, answers((1.5, "a")), Disturbance("a fault", 19, end=41)) == []
    assert (
        check(
            made((1, [version("v1", "a")]), (20, [version("v1", "b")]), (22, [version("v1", "a")])), answers((1.5, "a"))
        )
        == []
    )


def test_a_fault_lets_a_client_keep_what_it_had_when_it_began_and_no_longer_than_until_it_followed() -> None:
    heard = answers((1.5, "a"), (60, "b"))
    assert check(TWO, heard) != []
    assert check(TWO, heard, Disturbance("a fault", 49, end=61)) == []
    assert check(TWO, heard, Disturbance("a fault", 49, end=55)) != []
    older = made((1, [version("v1", "c")]), (20, [version("v1", "a")]), (50, [version("v1", "b")]))
    heard = answers((1.5, "c"), (20.5, "a"), (55, "c"), (60, "b"))
    assert check(older, heard, Disturbance("a fault", 49, end=61)) != []


def test_a_write_that_is_answered_late_may_be_followed_late() -> None:
    heard = answers((1.5, "a"), (51 + BEHIND_SECONDS, "b"))
    assert check(TWO, heard) != []
    assert check(TWO, heard, acknowledged={"50": 52.0}) == []


def test_a_route_is_live_while_it_is_active() -> None:
    name = f"v1~{FAMILY}"
    assert check(TWO, answers((1.5, "a"), (50.5, NOTHING)), name=name) == []
    assert check(TWO, answers((1.5, "a"), (20, NOTHING), (50.5, NOTHING)), name=name) != []
    assert check(TWO, answers((1.5, NOTHING)), name=f"v9~{FAMILY}") == []
    assert check(TWO, answers((1.5, "a")), name=f"v9~{FAMILY}") != []


def test_a_family_with_no_active_version_or_two_is_not_live() -> None:
    rows = made(
        (1, [version("v1", "a")]),
        (20, [version("v2", "b")]),
        (40, [version("v1", "a", active=False), version("v2", "b", active=False)]),
    )
    assert check(rows, answers((1.5, "a"), (20.5, NOTHING))) == []
    assert check(rows, answers((1.5, "a"), (20.5, "b"))) != []


def test_traffic_divides_between_active_versions_with_a_weight_and_falls_back() -> None:
    def state(*active: bool) -> list[Any]:
        return [version(f"v{number}", "abc"[number], active=each) for number, each in enumerate(active)]

    split = (f"{KEY}", "TRAFFIC_UPDATED", traffic(5000, 5000, fallbacks=("v2",)))
    rows = made((1, [*state(True, True, True), split]), (20, state(False, False, True)))
    heard = [(1.5, "a"), (2.0, "b"), (3.0, "a"), (19.0, "b"), (20.5, "c")]
    assert check(rows, answers(*heard)) == []
    assert check(rows, answers(*heard[:2], (5, "c"), *heard[2:])) != []


def test_half_a_change_set_is_told_as_such() -> None:
    heard = answers((1.5, "a"), (50.1, NOTHING), (50.3, "b"))
    assert set(rules(check(TWO, heard))) == {"an xDS client shows a part of a change set"}


def test_a_restore_takes_back_what_was_written_since() -> None:
    lost = made((1, [version("v1", "a")]), (50, [version("v1", "b")]), epoch="before")
    kept = made((1, [version("v1", "a")]), epoch="now")
    eras = [
        Era("before", rows=lost, sealed=59, switched=-math.inf),
        Era("now", base=1, backup=40, opened=60, switched=62, rows=kept),
    ]
    heard = answers((1.5, "a"), (50.5, "b"), (63, "a"))
    assert check([], heard, eras=eras) == []
    assert check([], answers((1.5, "a"), (50.5, "b"), (70, "a")), eras=eras) != []
    assert check([], answers((1.5, "a"), (50.5, "b")), eras=eras) != []


def test_a_client_that_does_not_follow_after_a_fault_is_named() -> None:
    missing = Disturbance("Redis flushed", 10, missing="Go of prod~s0~reach: UNAVAILABLE")
    (found,) = check(TWO, answers((1.5, "a"), (50.5, "b")), missing)
    assert "Redis flushed: Go of prod~s0~reach" in found.text


def test_a_client_that_dies_is_named() -> None:
    observed = Observed(deaths={"Node.js": "TypeError"})
    assert rules(check_xds(observed, [Era("now")], WALL)) == ["an xDS client died"]


def test_a_call_is_answered_by_what_became_true_while_it_waited() -> None:
    slow = Answer(49.8, 50.4, "OK", "b", last=49.7)
    assert check(TWO, [*answers((1.5, "a")), slow]) == []
