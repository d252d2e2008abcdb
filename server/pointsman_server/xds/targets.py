"""What a name leads to: whether calls are let through, and to which URLs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from pointsman.selection import POINTS
from pointsman_server.domain.traffic import Division


class Verdict(IntEnum):
    """Whether a name is live; else the gRPC status of its calls (google.rpc.Code)."""

    LIVE = 0
    NOT_A_NAME = 3
    NOT_LIVE = 5
    FORBIDDEN = 7
    # Live, at a URL that clients of a kind cannot be led to.
    NOT_CARRIED = 9


@dataclass(frozen=True, slots=True)
class Slot:
    """A URL, and its weight of ``POINTS``; of a route, or of a target of a family."""

    version: str
    url: str
    weight: int = POINTS


@dataclass(frozen=True, slots=True)
class Target:
    """What a root leads to, as of the revision of the table.

    A live target has at least one slot; the first one has a weight. A slot without a weight has the URL of the first,
    so that a client that still has the weights of before reaches something. A route that is not active keeps its slot.
    ``fallbacks`` are tried in order when a slot cannot be reached. ``reason`` says in words why it is so, for people.
    """

    verdict: Verdict
    slots: tuple[Slot, ...] = ()
    fallbacks: tuple[Slot, ...] = ()
    reason: str = field(default="", compare=False)


UNKNOWN = Target(Verdict.NOT_LIVE, reason="there is no such route")
FORBIDDEN = Target(Verdict.FORBIDDEN, reason="the client may not read this tenant and env")
NOT_A_NAME = Target(
    Verdict.NOT_A_NAME,
    reason="the name must be version~env~service~tenant for a route, or env~service~tenant for a family",
)


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
    slots = (Slot(route.version, route.url),)
    if route.active:
        return Target(Verdict.LIVE, slots, reason="the route is active")
    return Target(Verdict.NOT_LIVE, slots, reason="the route is inactive: activate it")


def of_family(versions: Sequence[Version], division: Division | None) -> Target:
    """Return the target of a family by the rule of Select: weights, then the first active fallback.

    Without a division it is the only active version; with none, or more than one, nothing is live.
    """
    active = {version.version: version.url for version in versions if version.active}
    if division is None:
        return _undivided(active, len(versions))
    fallbacks = tuple(Slot(version, active[version]) for version in division.fallbacks if version in active)
    # Also with active versions of weight 0: nobody chose them.
    if not any(target.weight and target.version in active for target in division.targets):
        reason = "no version that the traffic gives a weight is active"
        if not fallbacks:
            return Target(Verdict.NOT_LIVE, reason=f"{reason}, and no fallback: activate one")
        return Target(Verdict.LIVE, fallbacks[:1], fallbacks[1:], reason=f"{reason}: the first active fallback is live")
    slots = _slots(active, division)
    used = {slot.version for slot in slots}
    shares = ", ".join(f"{slot.version} {slot.weight}" for slot in slots if slot.weight)
    return Target(
        Verdict.LIVE,
        slots,
        tuple(slot for slot in fallbacks if slot.version not in used),
        reason=f"by the traffic, in basis points: {shares}",
    )


def _undivided(active: dict[str, str], versions: int) -> Target:
    if not active:
        reason = "no version is active: activate one" if versions else "the family has no versions"
        return Target(Verdict.NOT_LIVE, reason=reason)
    if len(active) > 1:
        return Target(
            Verdict.NOT_LIVE,
            reason=f"more than one version is active ({_listed(active)}), and no traffic divides the calls between "
            "them: set the traffic, or deactivate all but one",
        )
    ((version, url),) = active.items()
    return Target(Verdict.LIVE, (Slot(version, url),), reason=f"{version} is the only active version")


def _slots(active: dict[str, str], division: Division) -> tuple[Slot, ...]:
    """Order the targets of a division, the heaviest first, and fill up to their number.

    A client takes new URLs a few milliseconds before new weights. By this order what it does between the two is closest
    to what it did or will do: when a family that has one version gets a canary, all calls stay at that version; when
    two versions change their places, so do their weights. In the order of the division, a canary that is named first
    would get every call meanwhile.
    """
    weighted = [
        Slot(target.version, active[target.version], target.weight)
        for target in division.targets
        if target.weight and target.version in active
    ]
    weighted.sort(key=lambda slot: -slot.weight)
    spare = Slot(weighted[0].version, weighted[0].url, 0)
    return (*weighted, *(spare,) * (len(division.targets) - len(weighted)))


def _listed(versions: Collection[str]) -> str:
    shown = sorted(versions)
    more = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


_SHOWN = 5
