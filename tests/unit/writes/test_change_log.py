"""Each change is one line, with who made it, why, by which call, and its revision."""

from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from pointsman_server.domain.routes import Change, ChangeKind, Route, RouteKey
from pointsman_server.ports.store import Intent
from pointsman_server.writes import change_log
from pointsman_server.writes.change_log import log_changes, log_import

NOW = datetime(2026, 11, 27, tzinfo=UTC)
V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
INTENT = Intent("alice", "launch", "id-1", b"", f"00-{TRACE}-00f067aa0ba902b7-01", "", "call-1")
FACTS = {
    "event": "route changed",
    "logger_name": "pointsman_server.writes.change_log",
    "log_level": "info",
    "actor": "alice",
    "reason": "launch",
    "request_id": "call-1",
    "mutation_request_id": "id-1",
    "trace_id": TRACE,
}


def created(key: RouteKey, revision: int) -> Change:
    route = Route(key, "https://canary.internal", True, {"canary": "x"}, revision, NOW, NOW)
    return Change(revision, "event", ChangeKind.CREATED, key, None, route, "alice", "launch", "id-1", NOW, "epoch")


def test_a_line_has_the_revision_the_key_and_what_the_intent_says_and_nothing_of_the_route() -> None:
    with capture_logs() as lines:
        log_changes([(created(V1, 7), INTENT), (created(V2, 8), Intent("bob"))])

    first, second = lines
    assert first == {**FACTS, "revision": 7, "kind": "CREATED", "key": "team-a/payments/prod/v1"}
    assert (second["revision"], second["actor"], second["reason"]) == (8, "bob", "")
    assert not {"request_id", "mutation_request_id", "trace_id"} & set(second)


def test_an_import_has_a_line_for_each_route_that_it_changed_in_the_order_of_revisions() -> None:
    with capture_logs() as lines:
        log_import([V1, V2, V3], [12, 3, 11], 11, INTENT)

    assert lines == [
        {**FACTS, "revision": 11, "kind": "IMPORTED", "key": str(V3)},
        {**FACTS, "revision": 12, "kind": "IMPORTED", "key": str(V1)},
    ]


def test_above_info_nothing_is_made_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    class Quiet:
        def is_enabled_for(self, _level: int) -> bool:
            return False

    monkeypatch.setattr(change_log, "log", Quiet())
    log_changes([(created(V1, 7), INTENT)])
    log_import([V1], [7], 7, INTENT)
