"""The rules of selections find every violation that is planted, and none in what good servers answer."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from tests.faults.checking import Bounds, Model
from tests.faults.history import Era, History, Write
from tests.faults.traffic.checking import check_traffic
from tests.faults.traffic.families import Families
from tests.faults.traffic.records import Observed, Selected
from tests.unit.faults.histories import EPOCH, F, route, rows_of, traffic

V0, V1 = f"{F}/v0", f"{F}/v1"
ROWS = rows_of(
    ("s1", [(V0, "CREATED", route("u0")), (V1, "CREATED", route("u0")), (f"{F}/", "TRAFFIC_SET", traffic(3000, 7000))]),
    ("s2", [(V0, "UPDATED", route("u1")), (V1, "UPDATED", route("u1"))]),
    ("s3", [(f"{F}/", "TRAFFIC_SET", traffic(7000, 3000))]),
)
TIMES = {"s1": (1.0, 1), "s2": (2.0, 4), "s3": (5.0, 6)}
OLD = Era("old", rows=rows_of(("s1", [(V0, "CREATED", route("u0"))]), epoch="old"))


def select(call: float, as_of: int, sticky_key: str = "me", **more) -> Selected:
    """Select as a good server does."""
    answer = Families(ROWS).at(F, as_of).answers(sticky_key)[0]
    return Selected(
        call, call + 0.01, F, sticky_key, answer.state, as_of, EPOCH, answer.version, answer.revision, answer.url,
        answer.rule, answer.passed, answer.traffic_revision, **{"server": "1.1"} | more,
    )  # fmt: skip


@dataclass
class Case:
    """Selections before, between and after, one that is late within the bound, and a near-cache."""

    selected: list[Selected] = field(
        default_factory=lambda: [
            select(1.5, 3),
            select(2.6, 3),  # 0.5 s after the answer
            select(3.2, 5, token=True, floor=5, floor_epoch=EPOCH, session=1),
            select(3.3, 5, ""),
            select(5.2, 6, server="0.1"),
        ]
    )
    near: list[Selected] = field(default_factory=lambda: [select(2.9, 3), select(3.0, 5), select(6.0, 6)])

    def found(self) -> set[tuple[int, str]]:
        eras = [OLD, Era(EPOCH, rows=ROWS)]
        writes = [
            Write(c, c + 0.1, F, "commit", name, "ok", number, server="0.1") for name, (c, number) in TIMES.items()
        ]
        bounds = Bounds(1.0, 20.0, 1.0)
        models = [Model(History(), OLD.rows, bounds), Model(History(writes=writes), ROWS, bounds)]
        violations, self.staleness = check_traffic(Observed(self.selected), [self.near], models, eras)
        # The old era has no call that made it.
        return {(each.promise, each.rule.partition(" by ")[0]) for each in violations}


def test_good_answers_have_no_violation() -> None:
    case = Case()
    assert case.found() == set()
    assert [round(behind, 3) for _, behind in case.staleness] == [0.5]


def obey_other_weights(case: Case) -> None:
    """Somebody who belongs to v1 from the last change on, and not before."""
    families = Families(ROWS)
    early, late = families.at(F, 5), families.at(F, 6)
    moved = next(name for n in range(99) if early.answers(name := f"c{n}")[0].version != late.answers(name)[0].version)
    case.selected.append(replace(select(5.3, 5, moved), as_of=6, traffic_revision=6))


def take_another_route(case: Case) -> None:
    case.selected.append(replace(select(3.4, 5), url="u0"))


def name_another_rule(case: Case) -> None:
    case.selected.append(replace(select(3.4, 5), rule="FALLBACK"))


def show_a_part(case: Case) -> None:
    case.selected.append(select(2.05, 4))


def show_an_invented_epoch(case: Case) -> None:
    case.selected.append(replace(select(3.4, 5), epoch="never"))


def be_wrong_without_an_epoch(case: Case) -> None:
    case.selected.append(replace(select(3.4, 5), epoch="", url="u9"))


def ignore_the_floor(case: Case) -> None:
    case.selected.append(select(2.4, 3, floor=5, floor_epoch=EPOCH))


def be_stale(case: Case) -> None:
    case.selected.append(select(3.4, 3))


def forget_an_own_write(case: Case) -> None:
    case.selected.append(select(5.3, 5, server="0.1"))


def go_back(case: Case) -> None:
    case.selected += [select(5.3, 6, session=7), select(5.4, 5, session=7)]


def foresee(case: Case) -> None:
    case.selected.append(select(1.6, 5))


def near_cache_invents(case: Case) -> None:
    case.near.append(replace(select(6.1, 6), url="u0"))


def near_cache_tears(case: Case) -> None:
    case.near.insert(1, select(2.95, 4))


def near_cache_goes_back(case: Case) -> None:
    case.near.append(select(6.1, 5))


def near_cache_invents_an_epoch(case: Case) -> None:
    case.near.append(replace(select(6.1, 6), epoch="never"))


@pytest.mark.parametrize(
    ("plant", "promise", "rule"),
    [
        (obey_other_weights, 16, "a selection that the traffic does not make"),
        (take_another_route, 16, "a selection that the traffic does not make"),
        (name_another_rule, 16, "a selection that the traffic does not make"),
        (show_a_part, 15, "a selection shows a part of a change set"),
        (show_an_invented_epoch, 6, "selections: an answer from an epoch that never was"),
        (be_wrong_without_an_epoch, 16, "a selection without an epoch that was never true"),
        (ignore_the_floor, 4, "selections: a reply from before min_revision"),
        (be_stale, 5, "selections: stale"),
        (forget_an_own_write, 5, "selections: the writer's server is stale"),
        (go_back, 7, "selections: a client saw a key go back"),
        (foresee, 6, "selections: a reply from the future"),
        (near_cache_invents, 14, "a selection that the traffic does not make"),
        (near_cache_tears, 15, "a selection shows a part of a change set"),
        (near_cache_goes_back, 14, "a near-cache went back"),
        (near_cache_invents_an_epoch, 14, "a near-cache selected in an epoch that never was"),
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[Case], None], promise: int, rule: str) -> None:
    case = Case()
    plant(case)
    assert (promise, rule) in case.found()


def test_an_old_answer_without_an_epoch_is_true_in_its_own() -> None:
    case = Case()
    answer = replace(
        select(0.5, 1), epoch="", version="v0", revision=1, url="u0", rule="ONLY_ACTIVE", traffic_revision=0
    )
    case.selected.append(answer)
    assert case.found() == set()
