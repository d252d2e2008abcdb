"""What a name leads to: whether calls are let through, and to which URLs."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from pointsman.selection import POINTS
from pointsman_server.domain.traffic import Division


class Verdict(IntEnum):
    """Whether a name is live; else the gRPC status of its calls (google.rpc.Code)."""

    LIVE = 0
    NOT_A_NAME = 3
    NOT_LIVE = 5
    FORBIDDEN = 7


@dataclass(frozen=True, slots=True)
class Slot:
    """A URL, and its weight of ``POINTS``; of a route, or of a target of a family."""

    version: str
    url: str
    weight: int = POINTS


@dataclass(frozen=True, slots=True)
class Target:
    """What a root leads to, as of the revision of the table.

    ``slots`` of a live target have at least one with a weight, and a place that does not depend on which versions are
    active: the slot of one that is not has no weight and the URL of one that is. So a slot can be reached also while a
    client knows the weights of before. A route that is not active keeps its slot. ``fallbacks`` are tried in order when
    a slot cannot be reached.
    """

    verdict: Verdict
    slots: tuple[Slot, ...] = ()
    fallbacks: tuple[Slot, ...] = ()


UNKNOWN = Target(Verdict.NOT_LIVE)
FORBIDDEN = Target(Verdict.FORBIDDEN)
NOT_A_NAME = Target(Verdict.NOT_A_NAME)


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a family, as the table has it."""

    version: str
    url: str
    active: bool


def of_route(route: Version | None) -> Target:
    """Return the target of a route; None if there is none."""
    if route is None:
        return UNKNOWN
    return Target(Verdict.LIVE if route.active else Verdict.NOT_LIVE, (Slot(route.version, route.url),))


def of_family(versions: Sequence[Version], division: Division | None) -> Target:
    """Return the target of a family by the rule of Select: weights, then the first active fallback.

    Without a division it is the only active version; with none, or more than one, nothing is live.
    """
    active = {version.version: version.url for version in versions if version.active}
    if division is None:
        if len(active) != 1:
            return UNKNOWN
        ((version, url),) = active.items()
        return Target(Verdict.LIVE, (Slot(version, url),))
    fallbacks = [Slot(version, active[version]) for version in division.fallbacks if version in active]
    weighted = [target for target in division.targets if target.weight and target.version in active]
    if not weighted:
        # Also with active versions of weight 0: nobody chose them.
        return Target(Verdict.LIVE, (fallbacks[0],), tuple(fallbacks[1:])) if fallbacks else UNKNOWN
    first = weighted[0].version
    slots = tuple(
        Slot(target.version, active[target.version], target.weight)
        if target in weighted
        else Slot(first, active[first], 0)
        for target in division.targets
    )
    used = {slot.version for slot in slots}
    return Target(Verdict.LIVE, slots, tuple(slot for slot in fallbacks if slot.version not in used))
