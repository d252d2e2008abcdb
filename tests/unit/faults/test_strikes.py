"""What a signal did to writes under way shows in the times at which the store made them."""

from signal import SIGKILL, SIGTERM

from tests.faults.faulting import Strike
from tests.faults.history import Era, Failure, History, Row
from tests.faults.strikes import Caught, accepted_is_answered, caught

WALL = 1000.0


def eras(*made: tuple[str, float]) -> list[Era]:
    rows = [Row(number, "k", "UPDATED", name, made=WALL + moment) for number, (name, moment) in enumerate(made, 1)]
    return [Era("epoch", rows=rows)]


def failed(request_id: str, call: float, ret: float, life: str = "0.1", code: str = "UNAVAILABLE") -> Failure:
    return Failure(call, ret, "write", life, code, "", request_id)


def test_kills_catch_what_was_under_way_made_or_not():
    history = History(
        failures=[
            failed("made", 1.0, 2.1),
            failed("made by a retry", 1.0, 2.1),
            failed("not made", 1.5, 2.1),
            failed("over before", 0.5, 1.0),
            failed("elsewhere", 1.0, 2.1, "1.1"),
            failed("", 1.0, 2.1),
        ]
    )
    store = eras(("made", 1.9), ("made by a retry", 2.5), ("elsewhere", 1.9))
    assert caught(history, store, [Strike("0.1", 2.0, SIGKILL)], WALL) == Caught(not_made=2, made=1)


def rules(failure: Failure, number: int = SIGTERM) -> list[str]:
    store, strikes = eras(("w", 1.9)), [Strike("0.1", 2.0, number)]
    return [each.rule for each in accepted_is_answered(History(failures=[failure]), store, strikes, WALL)]


def test_sigterm_that_fails_what_was_carried_out_is_found():
    assert rules(failed("w", 1.0, 2.1)) == ["SIGTERM failed a call that was carried out"]


def test_sigterm_may_fail_what_was_not_carried_out_or_too_late_or_elsewhere_and_sigkill_everything():
    assert rules(failed("w", 2.0, 2.1)) == []
    assert rules(failed("other", 1.0, 2.1)) == []
    assert rules(failed("w", 1.0, 2.1, "1.1")) == []
    assert rules(failed("w", 1.0, 2.1, code="DEADLINE_EXCEEDED")) == []
    assert rules(failed("w", 1.0, 1.95)) == []
    assert rules(failed("w", 1.0, 2.1), SIGKILL) == []
