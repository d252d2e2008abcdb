"""Whether calls of clients of a kind are let through, and why not."""

from collections.abc import Sequence

from pointsman_server.xds.resources.destinations import NotCarried, destination
from pointsman_server.xds.targets import Slot, Target, Verdict
from pointsman_server.xds.views import ClientKind


def verdict_of(kind: ClientKind, target: Target) -> Verdict:
    """Return whether clients of ``kind`` are let through to ``target``.

    One URL with a weight that they cannot be led to closes the whole family: else its share of the calls would fail.
    """
    if target.verdict is Verdict.LIVE and not_carried(kind, [slot for slot in target.slots if slot.weight]):
        return Verdict.NOT_CARRIED
    return target.verdict


def not_carried(kind: ClientKind, slots: Sequence[Slot]) -> list[tuple[Slot, str]]:
    """Return the slots that clients of ``kind`` cannot be led to, each with the reason."""
    found = ((slot, destination(kind, slot.url)) for slot in slots)
    return [(slot, place.reason) for slot, place in found if isinstance(place, NotCarried)]
