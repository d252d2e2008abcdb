"""The checker finds every violation that is planted, one for each rule, and none in a clean history."""

from dataclasses import replace

import pytest

from tests.faults.checking import Bounds, Missed, Model, check
from tests.faults.comparing import judge_entry
from tests.faults.history import UNANSWERED, History, Read, Row, Write

A, B = "t/s/e/a", "t/s/e/b"
BOUNDS = Bounds(local=1.0, shared=20.0, allowance=1.0)


def row(revision: int, key: str = A, kind: str = "UPDATED", url: str = "", active: bool = True) -> Row:
    return Row(revision, key, kind, f"w{revision}", url or f"u{revision}", active)


def write(revision: int, call: float, key: str = A, kind: str = "update", server: str = "0.1") -> Write:
    return Write(call, call + 0.1, key, kind, f"w{revision}", "ok", revision, server=server)


def read(call: float, revision: int, as_of: int, key: str = A, **more) -> Read:
    return Read(call, call + 0.01, key, "active", revision, as_of, **{"url": f"u{revision}", "server": "1.1"} | more)


def absent(call: float, as_of: int, key: str = A, state: str = "absent", **more) -> Read:
    return Read(call, call + 0.01, key, state, 0, as_of, **{"server": "1.1"} | more)


def clean() -> tuple[History, list[Row]]:
    """Two keys: created, changed, switched off, deleted; reads before, between and after, some stale within T_local."""
    rows = [
        row(1, kind="CREATED"),
        row(2, B, "CREATED"),
        row(3),
        row(4, B, "DEACTIVATED", active=False),
        row(5, kind="DELETED", url="", active=False),
    ]
    writes = [
        write(1, 1.0, kind="create"),
        write(2, 2.0, B, "create"),
        write(3, 3.0),
        write(4, 4.0, B, "deactivate"),
        write(5, 5.0, kind="delete"),
        Write(6.0, 6.1, B, "deactivate", "w-noop", "ok", 4, server="0.1"),
        Write(6.2, 6.3, A, "update", "w-refused", "refused"),
        Write(6.4, UNANSWERED, A, "update", "w-unknown", "unknown", attempts=12),
    ]
    reads = [
        absent(0.5, 0),
        read(1.5, 1, 1),
        read(3.05, 3, 3, session=1),
        read(3.9, 1, 2, session=2),  # 0.8 s after the answer
        read(4.05, 3, 3, session=1, token=True, floor=3),
        absent(4.5, 4, B, state="inactive"),
        absent(5.5, 5),
        absent(6.9, 5),
    ]
    return History(reads=reads, writes=writes), rows


def found(history: History, rows: list[Row], degraded=()) -> list[tuple[int, str]]:
    verdict = check(Model(history, rows, BOUNDS, degraded))
    return [(violation.promise, violation.rule) for violation in verdict.violations]


def test_a_clean_history_has_no_violation():
    assert found(*clean()) == []


def test_staleness_is_measured_apart():
    verdict = check(Model(*clean(), BOUNDS))
    assert [round(behind, 3) for _, behind in verdict.staleness] == [0.8]


def test_a_lost_write_is_found():
    history, rows = clean()
    history.writes.append(Write(7.0, 7.1, A, "update", "w-lost", "ok", 9))
    assert found(history, rows) == [(1, "an acknowledged write is lost")]


def test_a_request_applied_twice_is_found():
    history, rows = clean()
    history.writes.append(write(6, 7.0))
    rows += [row(6), replace(row(7), request_id="w6")]
    assert found(history, rows) == [(2, "a request was applied twice")]


def test_an_answer_with_another_revision_is_found_and_so_is_the_duplicate_that_it_makes():
    history, rows = clean()
    history.writes.append(replace(write(6, 7.0), revision=5))
    rows.append(row(6))
    assert found(history, rows) == [(2, "the answer is not that of the change"), (3, "two writes have one revision")]


@pytest.mark.parametrize(("attempts", "violations"), [(1, [(2, "a refused write was applied")]), (2, [])])
def test_a_refusal_did_nothing_unless_an_earlier_attempt_is_unknown(attempts, violations):
    history, rows = clean()
    history.writes.append(replace(write(6, 7.0), answer="refused", revision=0, attempts=attempts))
    rows.append(row(6))
    assert found(history, rows) == violations


def test_an_unrequested_change_is_found():
    history, rows = clean()
    rows.append(row(6))
    assert found(history, rows) == [(2, "a change that nobody asked for")]


def test_an_unanswered_write_counts_from_its_call_and_never_as_missed():
    history, rows = clean()
    history.writes.append(replace(write(6, 7.0), ret=UNANSWERED, answer="unknown", revision=0))
    rows.append(row(6))
    history.reads += [read(7.05, 6, 6), absent(12.0, 5, session=5)]
    assert found(history, rows) == []


def test_a_gap_in_the_revisions_is_found():
    history, rows = clean()
    history.writes.append(write(7, 7.0))
    rows.append(row(7))
    assert found(history, rows) == [(3, "the revisions of the store are not 1, 2, 3, …")]


def test_a_later_write_with_a_lower_revision_is_found():
    history, rows = clean()
    history.writes += [write(7, 7.0), write(6, 8.0, B)]
    rows += [row(6, B), row(7)]
    assert found(history, rows) == [(3, "a later write has a lower revision")]


def test_a_write_that_changed_nothing_though_something_was_answered_before_is_found():
    history, rows = clean()
    history.writes.append(Write(7.0, 7.1, B, "activate", "w-behind", "ok", 2))
    assert found(history, rows) == [(3, "a write that changed nothing is behind")]


@pytest.mark.parametrize(
    "lie",
    [
        read(1.5, 1, 1, url="other"),
        read(3.5, 1, 3),
        absent(1.5, 1),
        absent(4.5, 4, B),
        absent(5.5, 5, state="inactive"),
    ],
    ids=["url", "revision", "absent", "absent instead of inactive", "inactive instead of absent"],
)
def test_an_answer_that_was_never_true_is_found(lie):
    history, rows = clean()
    history.reads.append(lie)
    assert (6, "an answer that was never true") in found(history, rows)


def test_a_reply_from_the_future_is_found():
    history, rows = clean()
    history.reads.append(read(2.9, 3, 3))
    assert found(history, rows) == [(6, "a reply from the future")]


def test_a_reply_beyond_the_clock_is_found():
    history, rows = clean()
    history.reads.append(absent(9.0, 17))
    assert found(history, rows) == [(6, "a reply from the future")]


@pytest.mark.parametrize("degraded", [(), [(0.0, 99.0)]], ids=["always", "Redis lost"])
def test_a_reply_from_before_min_revision_is_found_whatever_fails(degraded):
    history, rows = clean()
    history.reads.append(read(3.5, 1, 2, floor=3))
    assert found(history, rows, degraded) == [(4, "a reply from before min_revision")]


def test_a_read_stale_for_longer_than_t_local_is_found():
    history, rows = clean()
    history.reads.append(read(4.2, 1, 2))
    assert found(history, rows) == [(5, "stale by 1.100 s")]


def test_a_stale_absence_is_found():
    history, rows = clean()
    history.reads.append(absent(2.5, 0, session=5))
    assert found(history, rows) == [(5, "stale by 1.400 s")]


def test_with_redis_lost_the_bound_is_that_of_the_shared_cache():
    history, rows = clean()
    history.reads.append(read(4.2, 1, 2, key=A))
    assert found(history, rows, [(3.05, 3.5)]) == []
    assert found(history, rows, [(4.3, 4.5)]) == [(5, "stale by 1.100 s")], "lost only after the read"
    assert found(history, rows, [(1.0, 2.9)]) == [(5, "stale by 1.100 s")], "back before the write"
    history.reads.append(read(25.2, 1, 2, key=A))
    assert found(history, rows, [(3.05, 3.5)]) == [(5, "stale by 22.100 s")]


def test_what_is_missed_longest_counts_not_the_newest():
    history, rows = clean()
    history.writes += [write(6, 7.0, B), write(7, 8.0, B)]
    rows += [row(6, B), row(7, B)]
    history.reads.append(absent(8.5, 5, B, state="inactive"))
    assert found(history, rows) == [(5, "stale by 1.400 s")]


@pytest.mark.parametrize(("degraded", "count"), [((), 1), ([(3.0, 3.2)], 0)], ids=["reachable", "Redis lost"])
def test_the_writers_server_that_does_not_show_a_write_at_once_is_found(degraded, count):
    history, rows = clean()
    history.reads.append(read(3.15, 1, 2, server="0.1"))
    assert found(history, rows, degraded) == [(5, "the writer's server is stale by 0.050 s")] * count


def test_another_life_of_the_writers_server_is_another_server():
    history, rows = clean()
    history.reads.append(read(3.15, 1, 2, server="0.2"))
    assert found(history, rows) == []


@pytest.mark.parametrize("degraded", [(), [(0.0, 99.0)]], ids=["always", "Redis lost"])
def test_a_client_with_a_token_that_sees_a_key_go_back_is_found_whatever_fails(degraded):
    history, rows = clean()
    history.reads += [
        read(3.2, 3, 3, session=9, token=True, server="2.1"),
        read(3.4, 1, 2, session=9, token=True, server="1.1"),
    ]
    assert found(history, rows, degraded) == [(7, "a client saw a key go back")]


def test_a_client_of_one_server_that_sees_a_key_go_back_is_found_unless_redis_was_lost():
    history, rows = clean()
    history.reads += [read(3.2, 3, 3, session=9), read(3.4, 1, 2, session=9)]
    assert found(history, rows) == [(7, "a client saw a key go back")]
    assert found(history, rows, [(2.0, 3.3)]) == []


def test_a_client_without_a_token_that_goes_round_may_see_a_key_go_back_within_t_local():
    history, rows = clean()
    history.reads += [read(3.2, 3, 3, session=9, server="2.1"), read(3.4, 1, 2, session=9, server="1.1")]
    assert found(history, rows) == []


def test_overlapping_reads_of_one_client_have_no_order():
    history, rows = clean()
    history.reads += [
        replace(read(3.2, 3, 3, session=9, token=True), ret=3.5),
        read(3.4, 1, 2, session=9, token=True),
    ]
    assert found(history, rows) == []


def test_missed_gives_nothing_where_everything_is_shown_or_unanswered():
    assert Missed([]).by(0, 10.0) is None


def test_a_cached_absence_is_held_to_the_store():
    model = Model(*clean(), BOUNDS)
    assert list(judge_entry(model, A, 5, b"")) == []
    assert [each.rule for each in judge_entry(model, A, 3, b"")] == ["Redis is not the store"]
    assert [each.rule for each in judge_entry(model, A, 9, b"")] == ["Redis is not the store"]
    assert [each.rule for each in judge_entry(model, A, 0, b"")] == [
        "Redis is still behind after everything has settled"
    ]
