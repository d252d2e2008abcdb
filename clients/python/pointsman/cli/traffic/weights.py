"""Weights of versions as people write them: percent, with up to two decimals, which are basis points."""

import re
from collections.abc import Iterable, Mapping, Sequence

from pointsman.rules import KEY_PART, KEY_PART_RULE
from pointsman.selection import POINTS

_PERCENT = re.compile(r"(\d{1,3})(?:\.(\d{1,2}))?", re.ASCII)
_POINTS_PER_PERCENT = POINTS // 100

Weights = Mapping[str, int]
"""Basis points by version, in the order of the targets."""


class InvalidWeights(ValueError):
    """Weights that cannot be; the text says why, and what to do."""


def weight_of(text: str) -> int:
    """Return the basis points of ``90``, ``12.5`` or ``0.01``, a number of percent. Raises InvalidWeights."""
    match = _PERCENT.fullmatch(text)
    points = int(match[1]) * _POINTS_PER_PERCENT + int((match[2] or "").ljust(2, "0")) if match else POINTS + 1
    if points > POINTS:
        raise InvalidWeights(f"{text!r} must be percent from 0 to 100, with up to two decimals, such as 90 or 12.5")
    return points


def percent_text(points: int) -> str:
    """Return ``90%`` or ``12.5%``."""
    whole, rest = divmod(points, _POINTS_PER_PERCENT)
    return f"{whole}.{rest:02}".rstrip("0").rstrip(".") + "%"


def weights_of(pairs: Iterable[str]) -> dict[str, int]:
    """Return the weights of ``v1=90 v2=10%``. Raises InvalidWeights for what is malformed, or names a version twice."""
    weights: dict[str, int] = {}
    for pair in pairs:
        version, equals, percent = pair.partition("=")
        if not equals:
            raise InvalidWeights(f"{pair!r} must be VERSION=PERCENT, such as v1=90")
        if version in weights:
            raise InvalidWeights(f"{version} is given twice")
        if problem := version_problem(version):
            raise InvalidWeights(problem)
        weights[version] = weight_of(percent.removesuffix("%"))
    return weights


def version_problem(version: str) -> str | None:
    """Return what is wrong with the name of a version, or None."""
    return None if KEY_PART.fullmatch(version) else f"the version {version!r} {KEY_PART_RULE}"


def check_sum(weights: Weights) -> None:
    """Raise InvalidWeights unless the weights add up to 100 percent."""
    total = sum(weights.values())
    if total != POINTS:
        raise InvalidWeights(f"{weights_text(weights)} add up to {percent_text(total)}, and must add up to 100%")


def weights_text(weights: Weights) -> str:
    """Return ``v1=90% v2=10%``, which ``weights_of`` reads again."""
    return " ".join(f"{version}={percent_text(points)}" for version, points in weights.items())


def division_text(weights: Weights, fallbacks: Sequence[str]) -> str:
    """Return weights and fallbacks in one line; ``(not set)`` without any."""
    after = f"fallback {', '.join(fallbacks)}" if fallbacks else ""
    return "; ".join(filter(None, (weights_text(weights), after))) or "(not set)"


def shifted(current: Weights, wanted: Weights) -> dict[str, int]:
    """Return the weights after those of ``wanted`` were changed.

    If these add up to 100 percent, the other versions leave. If they add up to less, the others share the rest in
    proportion to their weights. Raises InvalidWeights if they add up to more, or if nobody can take the rest.
    """
    total = sum(wanted.values())
    if total > POINTS:
        raise InvalidWeights(f"{weights_text(wanted)} add up to {percent_text(total)}, more than 100%")
    others = {version: points for version, points in current.items() if points and version not in wanted}
    if total < POINTS and not others:
        raise InvalidWeights(
            f"{weights_text(wanted)} add up to {percent_text(total)}, and no other version has a weight to take the "
            "rest: make them add up to 100%"
        )
    rest = scaled(others, POINTS - total)
    merged = {version: wanted.get(version, rest.get(version, 0)) for version in current} | dict(wanted)
    return {version: points for version, points in merged.items() if points or version in wanted}


def without(current: Weights, version: str) -> dict[str, int]:
    """Return the weights after ``version`` has left; the others share its weight in proportion to theirs.

    Empty if no other version has a weight.
    """
    others = {name: points for name, points in current.items() if name != version}
    with_weight = {name: points for name, points in others.items() if points}
    return {**others, **scaled(with_weight, POINTS)} if with_weight else {}


def scaled(weights: Weights, total: int) -> dict[str, int]:
    """Return weights in the same proportions that add up to ``total``; by the largest remainders (Hamilton)."""
    if not weights:
        return {}
    before = sum(weights.values())
    exact = {version: divmod(points * total, before) for version, points in weights.items()}
    left = total - sum(whole for whole, _ in exact.values())
    first = sorted(exact, key=lambda version: -exact[version][1])[:left]
    return {version: whole + (version in first) for version, (whole, _) in exact.items()}
