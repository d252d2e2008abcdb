"""What the signals that ended servers did to the writes that were under way there."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from signal import SIGKILL, SIGTERM

from tests.faults.checking import Violation
from tests.faults.faulting import Strike
from tests.faults.history import Era, Failure, History


@dataclass(frozen=True, slots=True)
class Caught:
    """Of the writes that were under way when their server was killed: how many were in which state.

    ``sets_not_made`` and ``sets_made`` are the commits and reverts among them.
    """

    not_made: int = 0
    made: int = 0
    sets_not_made: int = 0
    sets_made: int = 0


def caught(history: History, eras: Sequence[Era], strikes: Sequence[Strike], wall: float) -> Caught:
    """Count what kills caught. ``wall`` is what must be added to a monotonic time to get seconds since 1970."""
    made = _made(eras)
    lives = {strike.life: strike.at for strike in strikes if strike.number == SIGKILL}
    hit = [
        failure
        for failure in history.failures
        if failure.request_id and failure.call <= lives.get(failure.life, -1.0) <= failure.ret
    ]
    done = [failure for failure in hit if _by(failure, made, wall, lives[failure.life])]
    sets, sets_done = (sum(failure.kind == "set" for failure in some) for some in (hit, done))
    return Caught(len(hit) - len(done), len(done), sets - sets_done, sets_done)


def accepted_is_answered(
    history: History, eras: Sequence[Era], strikes: Sequence[Strike], wall: float
) -> Iterator[Violation]:
    """Promise 13: a server that was told to stop by SIGTERM answers what it carried out.

    That a call was accepted shows only where it was a write and is in the store; the rest is for tests of the drain.
    """
    made = _made(eras)
    lives = {strike.life: strike.at for strike in strikes if strike.number == SIGTERM}
    for failure in history.failures:
        late = failure.code == "DEADLINE_EXCEEDED" or failure.ret < lives.get(failure.life, failure.ret + 1)
        if failure.request_id and not late and _by(failure, made, wall, failure.ret):
            yield Violation(13, "SIGTERM failed a call that was carried out", failure.ret, str(failure))


def _made(eras: Sequence[Era]) -> dict[str, list[float]]:
    made: dict[str, list[float]] = defaultdict(list)
    for era in eras:
        for row in era.rows:
            made[row.request_id].append(row.made)
    return made


def _by(failure: Failure, made: dict[str, list[float]], wall: float, until: float) -> bool:
    """Say whether the attempt that failed was carried out by then: attempts of one write follow one another."""
    return any(failure.call + wall <= moment <= until + wall for moment in made.get(failure.request_id, ()))
