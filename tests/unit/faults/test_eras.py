"""Each era of a history is judged by itself, and what must hold between them is found where it does not."""

from dataclasses import replace

import pytest

from tests.faults.checking import Bounds
from tests.faults.eras import SWITCH_SECONDS, check_eras
from tests.faults.history import UNANSWERED, Era, Failure, History, Read, Row, Write

A, B = "t/s/e/a", "t/s/e/b"
OLD, NEW = "old", "new"
BOUNDS = Bounds(local=1.0, shared=20.0, allowance=1.0)
# The backup is begun at 3.5; the old era ends at 6, the new one is open from 6.1 and has its epoch at 7.
SWITCHED = 7.0


def row(revision: int, key: str, request_id: str, epoch: str = OLD) -> Row:
    return Row(revision, key, "UPDATED", request_id, f"{request_id}.url", True, epoch)


def write(call: float, revision: int, key: str, request_id: str, **more) -> Write:
    return Write(call, call + 0.1, key, "update", request_id, "ok", revision, **more)


def read(call: float, revision: int, request_id: str, key: str = A, epoch: str = NEW, **more) -> Read:
    seen = {"as_of": revision, "url": f"{request_id}.url", "server": "1.1"} | more
    return Read(call, call + 0.01, key, "active", revision, epoch=epoch, **seen)


def clean() -> tuple[History, list[Era]]:
    """Two changes are in the backup, the next two are lost, and their revisions are given away again."""
    kept = [row(1, A, "a1"), row(2, B, "b1")]
    lost = [row(3, A, "a2"), row(4, B, "b2")]
    after = [row(3, A, "a3", NEW), row(4, B, "b2", NEW)]
    eras = [
        Era(OLD, sealed=6.0, relayed=3, rows=kept + lost),
        Era(NEW, base=2, backup=3.5, opened=6.1, switched=SWITCHED, rows=kept + after),
    ]
    writes = [
        write(1.0, 1, A, "a1", server="0.1"),
        write(2.0, 2, B, "b1", server="0.1"),
        write(4.0, 3, A, "a2", server="0.1"),
        write(7.5, 3, A, "a3", server="0.1"),
        # Made in the old era, not answered, lost; tried again in the new one.
        replace(write(5.9, 4, B, "b2", attempts=4), ret=8.0),
    ]
    reads = [
        read(1.5, 1, "a1", epoch=OLD),
        read(4.5, 3, "a2", epoch=OLD, session=9, token=True),
        read(6.5, 3, "a2", epoch=OLD),
        read(6.9, 1, "a1", as_of=2, session=9, token=True, floor=3, floor_epoch=OLD),
        read(8.0, 3, "a3", floor=3, floor_epoch=NEW),
        read(8.1, 3, "a3", epoch=""),
        read(9.0, 4, "b2", B),
    ]
    failures = [Failure(7.2, 7.3, "floor", "0.1", "UNAVAILABLE", "REVISION_NOT_REACHED", epoch=OLD)]
    return History(reads=reads, writes=writes, failures=failures), eras


def found(history: History, eras: list[Era]) -> list[tuple[int, str]]:
    verdict, _ = check_eras(history, eras, BOUNDS, ())
    return [(violation.promise, violation.rule) for violation in verdict.violations]


def test_a_clean_restore_has_no_violation():
    assert found(*clean()) == []


def test_everything_is_checked_once_and_the_last_era_is_handed_out():
    history, eras = clean()
    verdict, models = check_eras(history, eras, BOUNDS, ())
    assert verdict.checked == len(history.reads) + len(history.writes)
    assert models[-1].rows is eras[1].rows


def test_a_lost_epoch_answered_after_the_switch_is_found():
    history, eras = clean()
    late = SWITCHED + SWITCH_SECONDS + 0.1
    history.reads.append(read(late, 3, "a2", epoch=OLD))
    assert found(history, eras) == [(5, "a lost epoch is answered")]


def test_an_epoch_that_never_was_is_found():
    history, eras = clean()
    history.reads.append(read(8.0, 3, "a3", epoch="other"))
    assert found(history, eras) == [(6, "an answer from an epoch that never was")]


def test_what_an_era_never_held_is_found_though_another_did():
    history, eras = clean()
    history.reads.append(read(8.2, 3, "a2", epoch=NEW))
    assert found(history, eras) == [(6, "an answer that was never true")]


def test_a_new_write_that_is_fenced_out_is_found():
    history, eras = clean()
    history.reads.append(read(9.0, 1, "a1", as_of=2, session=5))
    assert found(history, eras) == [(5, "stale by 1.400 s")]


def test_a_write_answered_before_the_backup_that_is_lost_is_found():
    history, eras = clean()
    eras[1].backup = 4.2
    assert found(history, eras) == [(1, "an acknowledged write is lost"), (3, "two writes have one revision")]


def test_a_write_answered_after_the_restore_that_is_lost_is_found():
    history, eras = clean()
    history.writes.append(write(8.0, 5, A, "a9"))
    assert found(history, eras) == [(1, "an acknowledged write is lost")]


def test_a_write_answered_during_the_restore_that_no_era_holds_is_found():
    history, eras = clean()
    history.writes.append(replace(write(5.9, 5, A, "a9"), ret=6.5))
    assert found(history, eras) == [(1, "an acknowledged write is lost")]


def test_a_write_answered_during_the_restore_is_that_of_the_era_that_holds_it():
    history, eras = clean()
    history.writes.append(replace(write(5.9, 5, A, "a9"), ret=6.5))
    eras[0].rows.append(row(5, A, "a9"))
    assert found(history, eras) == []


def test_what_was_never_answered_is_no_violation_wherever_it_is():
    history, eras = clean()
    history.writes.append(replace(write(5.5, 0, A, "a9"), ret=UNANSWERED, answer="unknown"))
    eras[0].rows.append(row(5, A, "a9"))
    assert found(history, eras) == []


def test_an_answer_from_an_epoch_before_that_of_the_token_is_found():
    history, eras = clean()
    history.reads.append(read(7.9, 3, "a2", epoch=OLD, floor=2, floor_epoch=NEW))
    assert found(history, eras) == [(4, "a reply from an epoch before that of min_revision")]


def test_an_answer_below_a_token_of_its_own_epoch_is_found():
    history, eras = clean()
    history.reads.append(read(7.55, 1, "a1", as_of=2, floor=3, floor_epoch=NEW))
    assert found(history, eras) == [(4, "a reply from before min_revision")]


@pytest.mark.parametrize(("epoch", "count"), [(OLD, 1), (NEW, 0), ("", 0)])
def test_a_token_of_a_lost_epoch_that_makes_a_read_fail_is_found(epoch, count):
    history, eras = clean()
    late = SWITCHED + SWITCH_SECONDS + 0.1
    history.failures.append(Failure(late, late, "floor", "0.1", "UNAVAILABLE", "REVISION_NOT_REACHED", epoch=epoch))
    assert found(history, eras) == [(4, "a read with a token of a lost epoch failed")] * count
