"""results: plain values."""

import copy
import dataclasses
import pickle
from datetime import UTC, datetime, timedelta

import pytest

from pointsman import (
    BatchResult,
    Choice,
    FamilyKey,
    PointsmanError,
    Resolution,
    Route,
    RouteKey,
    Rule,
    Selection,
    SelectionResult,
    Source,
)

TIME = datetime(2026, 1, 1, tzinfo=UTC)
ROUTE = Route(RouteKey("a", "b", "c", "d"), "https://x.internal", True, {"tier": "gold"}, 7, TIME, TIME)
RESOLUTION = Resolution(ROUTE, Source.REDIS, timedelta(0), 9)


def test_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ROUTE.url = "other"  # type: ignore[misc]


def test_can_be_compared_hashed_copied_and_pickled() -> None:
    assert {RESOLUTION} == {copy.deepcopy(RESOLUTION)}
    assert pickle.loads(pickle.dumps(RESOLUTION)) == RESOLUTION  # noqa: S301 - our own bytes
    assert dataclasses.asdict(ROUTE)["labels"] == {"tier": "gold"}


def test_a_resolution_has_its_url_at_hand() -> None:
    assert RESOLUTION.url == "https://x.internal"


def test_a_selection_is_a_resolution_with_a_choice() -> None:
    choice = Choice("d", Rule.SPLIT)
    selection = Selection(ROUTE, Source.LOCAL, timedelta(seconds=1), 9, "e1", choice=choice, traffic_revision=4)
    assert (selection.url, selection.revision, selection.version, selection.live) == (ROUTE.url, 7, "d", True)
    assert {selection} == {pickle.loads(pickle.dumps(copy.deepcopy(selection)))}  # noqa: S301 - our own bytes
    assert selection != Resolution(ROUTE, Source.LOCAL, timedelta(seconds=1), 9, "e1")


def test_a_batch_result_without_any_answer_still_raises() -> None:
    with pytest.raises(PointsmanError, match="no answer"):
        BatchResult(ROUTE.key).unwrap()
    with pytest.raises(PointsmanError, match="no answer for a/b/c"):
        SelectionResult(FamilyKey("a", "b", "c"), "u-1").unwrap()
