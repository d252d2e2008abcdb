"""board: what is known, and how it reads."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pointsman import Change, ChangeKind, Propagation, RouteKey, WatcherProgress
from pointsman.cli.top.board import METRICS, WATCHERS, Board, Missing, Table, count_text, rate_text, seconds_text
from pointsman.cli.top.exposition import parsed

BEFORE = """\
grpc_server_started_total{grpc_method="Resolve"} 0
grpc_server_handled_total{grpc_method="Resolve",grpc_code="OK"} 0
grpc_server_handled_total{grpc_method="Resolve",grpc_code="UNAVAILABLE"} 0
grpc_server_handling_seconds_bucket{grpc_method="Resolve",le="0.0005"} 0
grpc_server_handling_seconds_bucket{grpc_method="Resolve",le="+Inf"} 0
pointsman_write_requests_total{action="create",outcome="ok"} 0
pointsman_cache_lookups_total{layer="local",outcome="hit"} 0
pointsman_cache_lookups_total{layer="local",outcome="miss"} 0
pointsman_cache_lookups_total{layer="redis",outcome="hit"} 0
"""
AFTER = """\
grpc_server_started_total{grpc_method="Resolve"} 3000
grpc_server_handled_total{grpc_method="Resolve",grpc_code="OK"} 2990
grpc_server_handled_total{grpc_method="Resolve",grpc_code="UNAVAILABLE"} 10
grpc_server_handling_seconds_bucket{grpc_method="Resolve",le="0.0005"} 2900
grpc_server_handling_seconds_bucket{grpc_method="Resolve",le="+Inf"} 3000
pointsman_write_requests_total{action="create",outcome="ok"} 4
pointsman_cache_lookups_total{layer="local",outcome="hit"} 900
pointsman_cache_lookups_total{layer="local",outcome="miss"} 100
pointsman_cache_lookups_total{layer="redis",outcome="hit"} 0
pointsman_feed_lag_revisions 0
pointsman_relay_lag_revisions 1
pointsman_consumer_lag_messages{consumer="audit"} 12
pointsman_dependency_up{dependency="redis"} 0
pointsman_dependency_up{dependency="postgres"} 1
pointsman_watchers 7
"""
NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)


def change(revision: int, kind: ChangeKind = ChangeKind.UPDATED) -> Change:
    key = RouteKey.parse("a/b/c/v1")
    return Change(revision, "", kind, key, None, None, "ada", "", "", NOW, "epoch-1", "")


@pytest.fixture
def board() -> Board:
    board = Board()
    board.take(parsed(BEFORE, 10.0))
    board.take(parsed(AFTER, 12.0))
    return board


def test_nothing_is_known_in_the_beginning() -> None:
    board = Board()
    assert (board.calls(), board.caches(), board.lags(), board.watchers(), board.summary()) == ([], [], [], [], "")


def test_one_reading_has_no_rates() -> None:
    board = Board()
    board.take(parsed(AFTER, 1.0))
    assert board.calls() == []
    assert dict(board.lags())["audit consumer"] == "12 messages"


def test_calls_have_rates_and_times(board: Board) -> None:
    assert dict(board.calls()) == {
        "Resolve /s": "1,500",
        "BatchResolve /s": "-",
        "Select /s": "-",
        "BatchSelect /s": "-",
        "writes /s": "2.0",
        "failed /s": "5.0",
        "Resolve p50": "0.5 ms",
        "Resolve p99": "over all buckets",
    }
    assert list(board.rates) == [0.0, 1500.0]


def test_caches_have_their_share(board: Board) -> None:
    assert dict(board.caches()) == {"local hits": "90.0%", "redis hits": "-"}


def test_lags_and_what_is_down(board: Board) -> None:
    board.take(Table(3, 7, age=0.0))
    lags = dict(board.lags())
    assert lags.pop("this view").endswith(" ms")
    assert lags == {"feed": "0 revisions", "relay": "1 revision", "audit consumer": "12 messages", "down": "redis"}


def test_watchers_are_counted_and_those_behind_are_named(board: Board) -> None:
    behind = WatcherProgress("w" * 16, "", "ipv4:10.0.0.1:1", "cart", 6, NOW)
    board.take(Table(3, 7))
    board.take(Propagation(3, 1, (behind, replace(behind, name="cart@h1")), all_servers=False))
    assert board.watchers() == [
        ("streams here", "7"),
        ("watchers (this server)", "3"),
        ("at revision 7", "1"),
        (f"  {'w' * 16}", "at 6"),
        ("  cart@h1", "at 6"),
    ]


def test_changes_are_newest_first_and_each_once() -> None:
    board = Board()
    board.take((change(1), change(2)))
    board.take((change(2), change(3)))
    assert [each.revision for each in board.changes] == [3, 2, 1]
    assert board.revision == 3


def test_routes_are_counted() -> None:
    board = Board()
    board.take(Table(10, 5))
    board.take((change(6, ChangeKind.CREATED), change(7, ChangeKind.CREATED), change(8, ChangeKind.DELETED)))
    assert board.summary() == "11 routes, revision 8"


def test_changes_of_an_epoch_that_is_over_are_dropped() -> None:
    board = Board()
    board.take((change(8), change(9)))
    board.take(Table(2, 4))
    board.take((change(5),))
    assert [each.revision for each in board.changes] == [5]


def test_what_is_missing_is_said_until_it_is_back(board: Board) -> None:
    board.take(Missing(METRICS, "connection refused"))
    board.take(Missing(WATCHERS, "not permitted"))
    assert board.absences() == ["no metrics: connection refused", "no watchers: not permitted"]
    assert (board.calls(), board.caches(), board.lags()) == ([], [], [])
    board.take(parsed(AFTER, 20.0))
    assert board.absences() == ["no watchers: not permitted"]
    assert board.calls() == []
    board.take(Missing(WATCHERS, ""))
    assert board.absences() == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0005, "0.5 ms"),
        (0.25, "250 ms"),
        (2.34, "2.3 s"),
        (75, "0:01:15"),
        (math.inf, "over all buckets"),
    ],
)
def test_times_read_well(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_numbers_read_well() -> None:
    assert [rate_text(None), rate_text(0.25), rate_text(12345.6)] == ["-", "0.2", "12,346"]
    assert [count_text(None, "x"), count_text(1, "route"), count_text(1200, "route")] == [
        "-",
        "1 route",
        "1,200 routes",
    ]
