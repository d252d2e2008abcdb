"""Routes and changes keep every part on their way to JSON, to rows and back."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pointsman.selection import POINTS
from pointsman_server.adapters.postgres.rows import (
    change_from_row,
    outcome_from_json,
    outcome_to_json,
    route_from_json,
    route_from_row,
    route_to_json,
    traffic_from_json,
    traffic_from_row,
    traffic_to_json,
)
from pointsman_server.domain.routes import Change, ChangeKind, Route, RouteKey, Traffic
from pointsman_server.domain.traffic import Division, Slice, Target
from pointsman_server.ports.store import Outcome, Step

KEY = RouteKey("team-a", "payments", "prod", "v1")
CREATED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
UPDATED = CREATED + timedelta(days=1)
ROUTE = Route(KEY, "https://x.internal", True, {"owner": "é"}, 7, CREATED, UPDATED)
FAMILY = KEY.family_key
DIVISION = Division((Target("v1", 9000), Target("v2", 1000)), ("v3",))
SLICES = (Slice("v1", 5000), Slice("v2", 1000), Slice("v1", 4000))
TRAFFIC = Traffic(FAMILY, DIVISION, SLICES, 7, CREATED, UPDATED)
ELSEWHERE = timezone(timedelta(hours=9))


def test_a_route_is_read_from_its_columns_in_utc() -> None:
    row = (*KEY, ROUTE.url, True, ROUTE.labels, 7, CREATED.astimezone(ELSEWHERE), UPDATED.astimezone(ELSEWHERE))
    route = route_from_row(row)
    assert route == ROUTE
    assert (route.create_time.tzinfo, route.update_time.tzinfo) == (UTC, UTC)


@pytest.mark.parametrize("route", [ROUTE, replace(ROUTE, active=False, labels={}), None])
def test_a_route_is_the_same_after_json(route: Route | None) -> None:
    assert route_from_json(KEY, json.loads(json.dumps(route_to_json(route)))) == route


def test_the_json_that_sql_writes_is_read_in_utc() -> None:
    written = {**(route_to_json(ROUTE) or {}), "create_time": CREATED.astimezone(ELSEWHERE).isoformat()}
    route = route_from_json(KEY, written)
    assert route == ROUTE
    assert route.create_time.tzinfo is UTC


def test_a_change_is_read_from_its_columns() -> None:
    after = route_to_json(ROUTE)
    moment = UPDATED.astimezone(ELSEWHERE)
    row = (7, "e-7", "UPDATED", *KEY, None, after, "ann", "why", "r-1", moment, "epoch", "00-t", 8, "vendor=1", 6, 3)
    assert change_from_row(row) == Change(
        revision=7,
        event_id="e-7",
        kind=ChangeKind.UPDATED,
        key=KEY,
        before=None,
        after=ROUTE,
        actor="ann",
        reason="why",
        request_id="r-1",
        occur_time=UPDATED,
        epoch="epoch",
        traceparent="00-t",
        tracestate="vendor=1",
        change_set_end=8,
        change_set_id=6,
        change_set_size=3,
    )


@pytest.mark.parametrize("traffic", [TRAFFIC, replace(TRAFFIC, division=Division((Target("v1", POINTS),))), None])
def test_traffic_is_the_same_after_json(traffic: Traffic | None) -> None:
    assert traffic_from_json(FAMILY, json.loads(json.dumps(traffic_to_json(traffic)))) == traffic


def test_traffic_is_read_from_its_columns_in_utc() -> None:
    value = json.loads(json.dumps(traffic_to_json(TRAFFIC)))
    times = (CREATED.astimezone(ELSEWHERE), UPDATED.astimezone(ELSEWHERE))
    traffic = traffic_from_row((*FAMILY[:3], value["targets"], value["fallbacks"], value["slices"], 7, *times))
    assert traffic == TRAFFIC
    assert (traffic.create_time.tzinfo, traffic.update_time.tzinfo) == (UTC, UTC)


def test_a_change_of_traffic_is_read_from_its_columns() -> None:
    value = traffic_to_json(TRAFFIC)
    row = (7, "e-7", "TRAFFIC_SET", *FAMILY, None, value, "ann", "", "", UPDATED, "epoch", "", 7, "", 7, 1)
    change = change_from_row(row)
    assert (change.key, change.before, change.after) == (FAMILY, None, None)
    assert (change.traffic_before, change.traffic_after) == (None, TRAFFIC)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(ROUTE, 7),
        Outcome(None, 8),
        Outcome(None, 7, traffic=TRAFFIC),
        Outcome(None, 9, steps=(Step(7, 2), Step(0, 0), Step(9, 1)), change_set_id=7, change_count=3),
        Outcome(None, 6, steps=(Step(0, 0),)),
    ],
)
def test_an_outcome_is_the_same_after_json(outcome: Outcome) -> None:
    written = json.loads(json.dumps(outcome_to_json(outcome)))
    assert outcome_from_json(KEY, outcome.revision, written) == outcome
