"""Applies differences: as change sets, each only if nothing of it has changed since the differences were shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from pointsman.aio import AsyncClient
from pointsman.change_sets import ChangeSetResult
from pointsman.cli.bulk.change_set import Step
from pointsman.cli.bulk.retry import Patience
from pointsman.cli.files.problems import place
from pointsman.errors import DeadlineExceeded, FieldViolation, PointsmanError, Refusal, Unavailable

TIMEOUT = 60.0
"""Seconds, for one change set."""


@dataclass(frozen=True, slots=True)
class Applying:
    """What is to be applied: the change sets of a file, why, and whether to ask only what they would do."""

    file: str
    sets: Sequence[Sequence[Step]]
    reason: str = ""
    dry_run: bool = False


async def perform(client: AsyncClient, work: Applying) -> list[ChangeSetResult]:
    """Commit the change sets one after another, and return what each did. After one has failed no other begins.

    Raises its PointsmanError, which names the lines of the file that were refused, and says in its notes what is done.
    """
    results: list[ChangeSetResult] = []
    patience = Patience()
    for steps in work.sets:
        mutations = [step.mutation for step in steps]
        commit = partial(client.commit, dry_run=work.dry_run, request_id=uuid4().hex, reason=work.reason)
        try:
            results.append(await patience.of(lambda: commit(mutations, timeout=TIMEOUT)))  # noqa: B023 - awaited here
        except PointsmanError as error:
            _explain(error, work, steps)
            error.add_note(_done(error, work, results))
            raise
    return results


def _explain(error: PointsmanError, work: Applying, steps: Sequence[Step]) -> None:
    """Make the error name lines and keys instead of the numbers of mutations."""
    refused = [each for each in error.refusals if each.index < len(steps)]
    if not refused:
        return
    lines = [_refusal_text(work.file, steps[each.index], each) for each in refused]
    error.violations = tuple(
        FieldViolation(str(steps[each.index].difference.key), f"{each.reason}: {each.message}") for each in refused
    )
    error.message = lines[0]
    error.__notes__ = lines[1:]


def _refusal_text(file: str, step: Step, refusal: Refusal) -> str:
    each = step.difference
    what = f"{each.key}" if each.line else f"{each.key}, which was to be deleted"
    return f"{place(file, each.line)}: {what}: {refusal.message} ({refusal.reason})"


def _done(error: PointsmanError, work: Applying, results: Sequence[ChangeSetResult]) -> str:
    if work.dry_run:
        return "nothing is changed"
    if isinstance(error, Unavailable | DeadlineExceeded):
        last = "whether this change set is made is not known"
    elif len(work.sets) == 1:
        return "nothing is changed: a change set is made as a whole or not at all"
    else:
        last = "nothing of this one is"
    names = [str(each.change_set_id) for each in results if each.change_set_id]
    which = f" ({names[0]} to {names[-1]})" if names else ""
    made = f"{len(results)} of {len(work.sets)} change sets are made{which}"
    return f"{made}, {last}: run it again"
