"""A commit: many mutations as one change set."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pointsman_server.domain.errors import (
    MOST_VIOLATIONS,
    FieldViolation,
    InvalidField,
    MutationsRefused,
    PointsmanError,
)
from pointsman_server.ports.store import Intent, MutationScope, Step
from pointsman_server.writes.checks import violations_of
from pointsman_server.writes.mutations import (
    Activate,
    Command,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    SetTraffic,
    Update,
    decide,
    of_family,
    of_traffic,
)
from pointsman_server.writes.overlay import Overlay

# The names of the commands in a request.
FIELDS = {
    Create: "create",
    Update: "update",
    Activate: "activate",
    Deactivate: "deactivate",
    Delete: "delete",
    SetTraffic: "set_traffic",
    DeleteTraffic: "delete_traffic",
}


@dataclass(frozen=True, slots=True)
class Commit:
    """Commands of any tenants, at least one, to decide one after the other; with ``dry_run`` nothing is changed."""

    commands: Sequence[Command]
    dry_run: bool = False


def scope_of(commands: Sequence[Command], intent: Intent) -> MutationScope:
    """Return what to lock for all of the commands; the ``request_id`` belongs to the tenant of the first one.

    Raises InvalidField for fields that are malformed, the first of them, with paths like ``mutations[17].create.url``.
    """
    _check(commands)
    # Without a version, among the others, a key stands for all the routes of its family: DeleteTraffic needs none.
    reads = (command for command in commands if not isinstance(command, DeleteTraffic))
    names = dict.fromkeys(command.key.family_key if of_family(command) else command.key for command in reads)
    divided = dict.fromkeys(command.key.family_key for command in commands if of_traffic(command))
    first = commands[0]
    return MutationScope(first.key, intent, of_family(first), tuple(names), tuple(divided))


def _check(commands: Iterable[Command]) -> None:
    violations: list[FieldViolation] = []
    for number, command in enumerate(commands):
        violations += [_inside(number, command, each) for each in violations_of(command)]
        if len(violations) > MOST_VIOLATIONS:
            break
    if violations:
        raise InvalidField(violations)


def decide_all(commands: Sequence[Command]) -> Callable[[Overlay], Sequence[Step]]:
    """Return the decision of the commands: each sees what those before it did.

    It raises MutationsRefused, which has all that are refused, up to ``MOST_VIOLATIONS``; those after a refused one are
    decided as if it were not there.
    """

    def decision(overlay: Overlay) -> Sequence[Step]:
        steps: list[Step] = []
        refusals: list[tuple[int, PointsmanError]] = []
        for number, command in enumerate(commands):
            try:
                steps.append(overlay.apply(decide(command, overlay.see(command.key, family=of_family(command)))))
            except PointsmanError as error:
                refusals.append((number, _named(command, error)))
                if len(refusals) == MOST_VIOLATIONS:
                    break
        if refusals:
            raise MutationsRefused(refusals)
        return steps

    return decision


def _named(command: Command, error: PointsmanError) -> PointsmanError:
    if not isinstance(error, InvalidField):
        return error
    prefix = FIELDS[type(command)]
    return InvalidField([FieldViolation(f"{prefix}.{each.field}", each.description) for each in error.violations])


def _inside(number: int, command: Command, violation: FieldViolation) -> FieldViolation:
    return FieldViolation(f"mutations[{number}].{FIELDS[type(command)]}.{violation.field}", violation.description)
