"""What can be said of a mutation without the store: whether its URL and its traffic are well-formed."""

from collections.abc import Sequence

from pointsman.rules import url_problem
from pointsman.selection import POINTS
from pointsman_server.domain.errors import FieldViolation, InvalidField
from pointsman_server.domain.traffic import Division
from pointsman_server.writes.mutations import Command, Create, SetTraffic, Update


def check(command: Command) -> None:
    """Raise InvalidField for a URL or for traffic that nothing in the store can make valid."""
    if violations := violations_of(command):
        raise InvalidField(violations)


def violations_of(command: Command) -> Sequence[FieldViolation]:
    """Return what is wrong with the fields of a command."""
    if isinstance(command, Create | Update):
        problem = url_problem(command.url) if command.url is not None else None
        return [FieldViolation("url", problem)] if problem else []
    return _violations_of_division(command.division) if isinstance(command, SetTraffic) else []


def _violations_of_division(division: Division) -> Sequence[FieldViolation]:
    violations = _repeated([target.version for target in division.targets], "targets[{}].version")
    violations += _repeated(division.fallbacks, "fallbacks[{}]")
    total = sum(target.weight for target in division.targets)
    if total != POINTS:
        violations.append(FieldViolation("targets", f"must have weights that add up to {POINTS:,}, not to {total:,}"))
    return violations


def _repeated(versions: Sequence[str], path: str) -> list[FieldViolation]:
    first: dict[str, int] = {}
    places = [(number, first.setdefault(version, number)) for number, version in enumerate(versions)]
    return [
        FieldViolation(path.format(number), f"is that of {path.format(before)} again")
        for number, before in places
        if before != number
    ]
