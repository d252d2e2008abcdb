"""Routes and changes keep every part on their way to JSON, to rows and back."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pointsman_server.adapters.postgres.rows import change_from_row, route_from_json, route_from_row, route_to_json
from pointsman_server.domain.routes import Change, ChangeKind, Route, RouteKey

KEY = RouteKey("team-a", "payments", "prod", "v1")
CREATED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
UPDATED = CREATED + timedelta(days=1)
ROUTE = Route(KEY, "https://x.internal", True, {"owner": "é"}, 7, CREATED, UPDATED)
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
    row = (7, "e-7", "UPDATED", *KEY, None, after, "ann", "why", "r-1", moment, "epoch", "00-t", 8, "vendor=1")
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
    )
