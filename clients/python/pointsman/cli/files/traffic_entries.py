"""One entry of the ``traffic`` of a file: how calls are divided, checked before anything is sent."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pointsman.cli.files.entries import FieldError, RawEntry, text_field
from pointsman.cli.files.problems import Problem
from pointsman.cli.traffic.weights import InvalidWeights, check_sum, version_problem, weight_of
from pointsman.errors import InvalidArgument
from pointsman.keys import FamilyKey
from pointsman.rules import KEY_PARTS

MOST_TARGETS = 64
MOST_FALLBACKS = 16

_PARTS = KEY_PARTS[:3]
_FIELDS = frozenset({*_PARTS, "key", "targets", "fallbacks"})


@dataclass(frozen=True, slots=True)
class TrafficEntry:
    """The desired traffic of a tenant, service and env; weights are basis points."""

    line: int
    key: FamilyKey
    weights: Mapping[str, int]
    fallbacks: tuple[str, ...]


def checked_traffic(raws: Iterable[RawEntry | Problem]) -> Iterator[TrafficEntry | Problem]:
    """Turn what was read into entries, in its order; each bad one, and each key that came before, into a Problem."""
    first_lines: dict[FamilyKey, int] = {}
    for raw in raws:
        entry = raw if isinstance(raw, Problem) else _entry(raw)
        if isinstance(entry, TrafficEntry):
            first = first_lines.setdefault(entry.key, entry.line)
            if first != entry.line:
                entry = Problem(entry.line, f"{entry.key} is given twice: first in line {first}")
        yield entry


def _entry(raw: RawEntry) -> TrafficEntry | Problem:
    try:
        _refuse_unknown(raw.fields)
        return TrafficEntry(raw.line, _key(raw.fields), _weights(raw.fields), _fallbacks(raw.fields))
    except FieldError as bad:
        return Problem(raw.lines.get(bad.name, raw.line), str(bad))


def _refuse_unknown(fields: Mapping[str, object]) -> None:
    for name in fields:
        if name not in _FIELDS:
            raise FieldError(name, "unknown field: an entry of traffic has key, targets and fallbacks")


def _key(fields: Mapping[str, object]) -> FamilyKey:
    text = fields.get("key")
    has_parts = not fields.keys().isdisjoint(_PARTS)
    if text is not None and has_parts:
        raise FieldError("key", "give it whole or in its three parts, not both")
    if has_parts:
        text = "/".join(text_field(part, fields.get(part, "")) for part in _PARTS)
    if text is None:
        raise FieldError("key", "must be given, as tenant/service/env")
    try:
        return FamilyKey.parse(text_field("key", text))
    except InvalidArgument as error:
        raise FieldError("key", error.violations[0].description) from error


def _weights(fields: Mapping[str, object]) -> Mapping[str, int]:
    targets = fields.get("targets")
    if not isinstance(targets, Mapping) or not targets:
        raise FieldError("targets", "must be versions with percentages, such as {v1: 90%, v2: 10%}")
    if len(targets) > MOST_TARGETS:
        raise FieldError("targets", f"must be at most {MOST_TARGETS}")
    try:
        weights = {str(version): _weight(version, percent) for version, percent in targets.items()}
        check_sum(weights)
    except InvalidWeights as error:
        raise FieldError("targets", str(error)) from error
    return weights


def _weight(version: object, percent: object) -> int:
    if problem := version_problem(str(version)):
        raise InvalidWeights(problem)
    # The sign is required: 10 could be meant as basis points.
    if not isinstance(percent, str) or not percent.endswith("%"):
        raise InvalidWeights(f"{version}: {percent!r} must be a percentage, such as 90% or 12.5%")
    return weight_of(percent[:-1])


def _fallbacks(fields: Mapping[str, object]) -> tuple[str, ...]:
    fallbacks = fields.get("fallbacks", [])
    if not isinstance(fallbacks, list) or len(fallbacks) > MOST_FALLBACKS:
        raise FieldError("fallbacks", f"must be a list of versions, at most {MOST_FALLBACKS}")
    for number, version in enumerate(fallbacks):
        if problem := version_problem(text_field("fallbacks", version)):
            raise FieldError("fallbacks", problem)
        if version in fallbacks[:number]:
            raise FieldError("fallbacks", f"{version} is given twice")
    return tuple(fallbacks)
