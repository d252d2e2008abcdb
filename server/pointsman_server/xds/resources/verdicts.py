"""Whether calls of clients of a kind are let through, and why not."""

from collections.abc import Sequence

from pointsman_server.xds.resources.destinations import NotCarried, destination_of
from pointsman_server.xds.targets import Slot, Target, Verdict
from pointsman_server.xds.views import ClientKind


def verdict_of(kind: ClientKind, target: Target) -> Verdict:
    """Return whether clients of ``kind`` are let through to ``target``.

    One URL with a weight that they cannot be led to closes the whole family: else its share of the calls would fail.
    """
    if target.verdict is Verdict.LIVE and not_carried(kind, [slot for slot in target.slots if slot.weight]):
        return Verdict.NOT_CARRIED
    return target.verdict


def fallbacks_of(kind: ClientKind, target: Target) -> list[Slot]:
    """Return the fallbacks that clients of ``kind`` can be led to."""
    unused = {slot for slot, _ in unused_fallbacks(kind, target)}
    return [slot for slot in target.fallbacks if slot not in unused]


def unused_fallbacks(kind: ClientKind, target: Target) -> list[tuple[Slot, str]]:
    """Return the other fallbacks, each with the reason.

    Envoy adds the path of a URL when it chooses a slot, before it knows that it takes a fallback.
    """
    if not target.fallbacks:
        return []
    unused = not_carried(kind, target.fallbacks)
    known = {slot for slot, _ in unused}
    paths = {_path(kind, slot) for slot in target.slots if slot.weight}
    return unused + [
        (slot, "the path of its URL is not that of every version that has a weight")
        for slot in target.fallbacks
        if slot not in known and paths != {_path(kind, slot)}
    ]


def _path(kind: ClientKind, slot: Slot) -> str:
    destination = destination_of(kind, slot.url)
    return "" if isinstance(destination, NotCarried) else destination.path


def not_carried(kind: ClientKind, slots: Sequence[Slot]) -> list[tuple[Slot, str]]:
    """Return the slots that clients of ``kind`` cannot be led to, each with the reason."""
    found = ((slot, destination_of(kind, slot.url)) for slot in slots)
    return [(slot, destination.reason) for slot, destination in found if isinstance(destination, NotCarried)]
