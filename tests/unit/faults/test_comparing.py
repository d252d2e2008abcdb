"""The copies of the history are held to it, and to what was lost of it."""

from tests.faults.comparing import Event, Expected, expect, judge_audit, judge_dead_letters, judge_topic
from tests.faults.history import Era, Row

A, B = "t/s/e/a", "t/s/e/b"
EVENTS = [Event(A, "e", 1), Event(B, "e", 2), Event(A, "e", 3), Event(B, "e", 4)]
ALL = frozenset((event.epoch, event.revision) for event in EVENTS)
EXPECTED = Expected(ALL, ALL)


def topic(events, expected: Expected = EXPECTED) -> list[str]:
    return [violation.rule for violation in judge_topic(events, expected)]


def audit(audited, expected: Expected = EXPECTED) -> list[str]:
    return [violation.rule for violation in judge_audit(audited, expected)]


def letters(found, poison) -> list[str]:
    return [violation.rule for violation in judge_dead_letters(found, poison)]


def test_what_was_lost_must_be_there_only_if_kafka_had_it():
    kept, lost = Row(1, A, "CREATED", "w1", epoch="e"), [Row(n, A, "UPDATED", f"w{n}", epoch="e") for n in (2, 3)]
    new = Row(2, A, "UPDATED", "w4", epoch="f")
    expected = expect([Era("e", relayed=2, rows=[kept, *lost]), Era("f", base=1, rows=[kept, new])])
    assert expected.must == {("e", 1), ("e", 2), ("f", 2)}
    assert expected.may == expected.must | {("e", 3)}


def test_the_topic_may_repeat_but_not_miss_nor_reorder():
    assert topic([*EVENTS[:2], *EVENTS]) == []
    assert topic(EVENTS[:-1]) == ["changes that are not in Kafka"]
    assert topic([*EVENTS, Event(A, "e", 9)]) == ["events that are no changes"]
    assert topic(reversed(EVENTS)) == ["events of a key out of order"] * 2


def test_revisions_that_come_again_in_another_epoch_are_others():
    again = Event(A, "f", 1)
    both = Expected(ALL | {("f", 1)}, ALL | {("f", 1)})
    assert topic([*EVENTS, again], both) == []
    assert topic(EVENTS, both) == ["changes that are not in Kafka"]


def test_what_was_lost_before_kafka_had_it_may_be_missing():
    assert topic(EVENTS[:-1], Expected(ALL - {("e", 4)}, ALL)) == []
    assert topic(EVENTS, Expected(ALL - {("e", 4)}, ALL)) == []


def test_the_audit_log_has_each_change_once_and_nothing_else():
    rows = sorted(ALL)
    assert audit(rows) == []
    assert audit([*rows, rows[0]]) == ["the audit log has a change twice"]
    assert audit(rows[1:]) == ["changes that are not in the audit log"]
    assert audit([*rows, ("e", 9)]) == ["rows of the audit log that are no changes"]


def test_poison_that_is_not_set_aside_or_not_as_it_was_is_found():
    poison = {(0, 7): b"\xff", (2, 1): b""}
    whole = list(poison.items())
    assert letters([*whole, *whole], poison) == []
    assert letters(whole[:1], poison) == ["a poison message that is not among the dead letters"]
    assert letters([whole[0], ((2, 1), b"x")], poison) == ["a poison message that is not among the dead letters"]
    assert letters([*whole, ((1, 1), b"")], poison) == ["a dead letter that was no poison"]
