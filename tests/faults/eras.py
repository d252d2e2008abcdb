"""Histories with restores in them: each era is checked by itself, and then how they follow one another.

A restore takes back what was written after the backup, and gives its revisions away again. So every answer belongs to
one era. Reads say which, by their epoch. Writes do not: those that cannot have been in two eras by their times belong
to the one they were in; of the others, what the eras hold under their request_id decides.
"""

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tests.faults.checking import NO_OPS, Bounds, Model, Verdict, Violation, check
from tests.faults.history import UNANSWERED, Era, History, Read, Row, Write

# Servers look at the clock each second, and share two cores with everything else.
SWITCH_SECONDS = 3.0
# An answer may be on its way for so long after the era ended in which it was made.
ANSWER_SECONDS = 5.0


def check_eras(
    history: History, eras: Sequence[Era], bounds: Bounds, degraded: Sequence[tuple[float, float]]
) -> tuple[Verdict, list[Model]]:
    """Hold a history to every rule, era by era. Returns the model of each, too."""
    models = split(history, eras, bounds, degraded)
    total = Verdict([violation for rule in RULES for violation in rule(history, eras)], [], 0)
    for model in models:
        verdict = check(model)
        total.violations += verdict.violations
        total.staleness += verdict.staleness
    total.staleness.sort()
    total.checked = len(history.reads) + len(history.writes)
    return total, models


def split(
    history: History, eras: Sequence[Era], bounds: Bounds, degraded: Sequence[tuple[float, float]]
) -> list[Model]:
    """Make a model of each era: its rows, the reads that show it, and the writes that it holds or ought to hold."""
    rows = [_by_request(era) for era in eras]
    reads = _reads(history.reads, eras)
    writes: list[list[Write]] = [[] for _ in eras]
    for write in history.writes:
        home = _home(write, eras, rows)
        for number in range(len(eras)):
            kept = home == number or (
                home is not None and home < number and _survives(write, eras[home + 1 : number + 1])
            )
            seen = _as_of_era(write, kept, rows[number].get(write.request_id, ()))
            if seen is not None and (home == number or write.kind not in NO_OPS or write.request_id in rows[number]):
                writes[number].append(seen)
    return [
        Model(History(reads=reads[number], writes=writes[number]), era.rows, bounds, degraded)
        for number, era in enumerate(eras)
    ]


def _by_request(era: Era) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in era.rows:
        found[row.request_id].append(row)
    return dict(found)


def _places(call: float, ret: float, eras: Sequence[Era]) -> list[int]:
    """Name the eras in which something may have been done that was asked for and answered then."""
    return [number for number, era in enumerate(eras) if call <= era.sealed and ret >= era.opened]


def _home(write: Write, eras: Sequence[Era], rows: Sequence[dict[str, list[Row]]]) -> int | None:
    """Say in which era the write was answered; None if it was not, or if that cannot be told and matters little."""
    if write.answer != "ok":
        return None
    places = _places(write.call, write.ret, eras)
    if len(places) == 1:
        return places[0]
    for number in places:
        made = rows[number].get(write.request_id, ())
        if any(row.revision == write.revision and row.revision > eras[number].base for row in made):
            return number
    return None if write.kind in NO_OPS else places[-1]


def _survives(write: Write, later: Sequence[Era]) -> bool:
    """Say whether a write of an earlier era was answered before each of the backups that ``later`` grew from."""
    return all(write.ret < era.backup for era in later)


def _as_of_era(write: Write, kept: bool, made: Sequence[Row]) -> Write | None:
    """Give the write as an era must see it: answered, made by a call without an answer, or not there."""
    answered = kept or any(row.revision == write.revision for row in made)
    if write.answer == "ok" and not answered:
        return replace(write, answer="unknown", ret=UNANSWERED, revision=0) if made else None
    return write


def _reads(reads: Sequence[Read], eras: Sequence[Era]) -> list[list[Read]]:
    numbers = {era.epoch: number for number, era in enumerate(eras)}
    truth = [Model(History(), era.rows) for era in eras]
    found: list[list[Read]] = [[] for _ in eras]
    for read in reads:
        number = numbers.get(read.epoch)
        if number is None and not read.epoch:
            # Rarely: it is of the newest era that it can be of.
            places = _places(read.call - ANSWER_SECONDS, read.ret, eras)
            number = next((each for each in reversed(places) if truth[each].tells(read)), places[-1])
        if number is not None:
            comparable = read.floor_epoch in ("", read.epoch)
            found[number].append(read if comparable else replace(read, floor=0))
    return found


def epochs_are_known(history: History, eras: Sequence[Era]) -> Iterator[Violation]:
    """Promise 6: no answer names an epoch that never was."""
    known = {era.epoch for era in eras} | {""}
    for read in history.reads:
        if read.epoch not in known:
            yield Violation(6, "an answer from an epoch that never was", read.ret, str(read))


def lost_eras_are_left(history: History, eras: Sequence[Era]) -> Iterator[Violation]:
    """Promise 5: once the servers have had time to switch, no answer shows what a restore took back."""
    over = {era.epoch: following.switched + SWITCH_SECONDS for era, following in itertools.pairwise(eras)}
    for read in history.reads:
        if read.call > over.get(read.epoch, UNANSWERED):
            text = f"{read.call - over[read.epoch] + SWITCH_SECONDS:.3f} s after the restore: {read}"
            yield Violation(5, "a lost epoch is answered", read.ret, text)


def tokens_lead_forward(history: History, eras: Sequence[Era]) -> Iterator[Violation]:
    """Promise 4: what is answered to a token of an epoch is not from an epoch before it."""
    numbers = {era.epoch: number for number, era in enumerate(eras)}
    for read in history.reads:
        if read.floor and numbers.get(read.epoch, len(eras)) < numbers.get(read.floor_epoch, 0):
            yield Violation(4, "a reply from an epoch before that of min_revision", read.ret, str(read))


def lost_tokens_fail_nothing(history: History, eras: Sequence[Era]) -> Iterator[Violation]:
    """Promise 4: a token of a lost epoch counts for nothing, once the servers have had time to switch."""
    numbers = {era.epoch: number for number, era in enumerate(eras)}
    switches = [era.switched + SWITCH_SECONDS for era in eras[1:]]
    for failure in history.failures:
        lost = failure.epoch and numbers.get(failure.epoch, 0) < bisect_right(switches, failure.call)
        if lost and failure.reason == "REVISION_NOT_REACHED":
            yield Violation(4, "a read with a token of a lost epoch failed", failure.ret, str(failure))


RULES = (epochs_are_known, lost_eras_are_left, tokens_lead_forward, lost_tokens_fail_nothing)
