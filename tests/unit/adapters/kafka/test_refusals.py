"""adapters.kafka.refusals: what is refused now, and no longer than that."""

from pointsman_server.adapters.kafka.refusals import KEEP_SECONDS, Refusals


def test_a_refusal_is_kept_until_it_is_cleared_or_not_told_again() -> None:
    now = 0.0
    refusals = Refusals(clock=lambda: now)
    refusals.tell("read t", "no")
    refusals.tell("write t", "never")
    refusals.tell("create t", "no topic", keep=True)
    assert refusals.current() == ["no", "never", "no topic"]
    refusals.clear("write t")
    refusals.clear("anything")
    now = KEEP_SECONDS
    assert refusals.current() == ["no", "no topic"]
    refusals.tell("read t", "still no")
    now = 2 * KEEP_SECONDS
    assert refusals.current() == ["still no", "no topic"]
    now += 1
    assert refusals.current() == ["no topic"]
    refusals.clear("create t")
    assert refusals.current() == []


def test_the_same_problem_of_two_clients_is_said_once() -> None:
    refusals = Refusals()
    refusals.tell("read t as a", "no")
    refusals.tell("read t as b", "no")
    assert refusals.current() == ["no"]
