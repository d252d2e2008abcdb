"""Makes change sets of differences. Pure: no calls."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pointsman.change_sets import (
    Activate,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    SetTraffic,
    Update,
)
from pointsman.cli.bulk.difference import AnyDifference, Difference, TrafficDifference
from pointsman.keys import FamilyKey

MOST_MUTATIONS = 1000
"""Of one Commit."""
MOST_BYTES = 900_000
"""Of one Commit: servers accept messages of 1 MiB by default."""

_ORDER = (Create, Update, Activate, SetTraffic, DeleteTraffic, Deactivate, Delete)
"""In which the mutations of a family are decided: traffic may name only what is there, and what it names must stay."""
_BYTES_BESIDE_TEXT = 96
_BYTES_OF_A_LABEL = 8


Mutation = Create | Update | Activate | Deactivate | Delete | SetTraffic | DeleteTraffic


@dataclass(frozen=True, slots=True)
class Step:
    """One mutation, and the difference that it removes."""

    mutation: Mutation
    difference: AnyDifference


def change_sets(found: Iterable[AnyDifference]) -> list[list[Step]]:
    """Return as few change sets as a server takes, in the order of ``found``; one if all of it fits.

    What happens to a tenant, service and env stays together, unless it fits into no change set by itself.
    """
    sets: list[list[Step]] = []
    room, bytes_left = 0, 0
    for steps in _by_family(found):
        for part in _parts(steps):
            size = sum(map(_size, part))
            if not sets or len(part) > room or size > bytes_left:
                sets.append([])
                room, bytes_left = MOST_MUTATIONS, MOST_BYTES
            sets[-1] += part
            room, bytes_left = room - len(part), bytes_left - size
    return sets


def _by_family(found: Iterable[AnyDifference]) -> Iterator[list[Step]]:
    families: dict[FamilyKey, list[Step]] = {}
    for each in found:
        families.setdefault(each.family, []).extend(Step(mutation, each) for mutation in _mutations(each))
    for steps in families.values():
        yield sorted(steps, key=lambda step: _ORDER.index(type(step.mutation)))


def _parts(steps: Sequence[Step]) -> Iterator[list[Step]]:
    part: list[Step] = []
    size = 0
    for step in steps:
        if part and (len(part) == MOST_MUTATIONS or size + _size(step) > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(step)
        size += _size(step)
    if part:
        yield part


def _mutations(each: AnyDifference) -> Iterator[Mutation]:
    if isinstance(each, TrafficDifference):
        yield _of_traffic(each)
        return
    before, after = each.before, each.after
    if before is None and after is not None:
        yield Create(each.key, after.url, after.labels, after.active)
    elif before is not None and after is None:
        yield Delete(each.key, before.revision)
    else:
        yield from _changes(each)


def _changes(each: Difference) -> Iterator[Mutation]:
    before, after = each.before, each.after
    if before is None or after is None:
        return
    # After the first mutation the route is at another revision, which nobody but this change set can have made.
    expected = before.revision
    url = after.url if after.url != before.url else None
    labels = after.labels if after.labels != before.labels else None
    if url is not None or labels is not None:
        yield Update(each.key, url, labels, expected)
        expected = 0
    if after.active != before.active:
        yield (Activate if after.active else Deactivate)(each.key, expected)


def _of_traffic(each: TrafficDifference) -> Mutation:
    expected = each.before.revision if each.before else 0
    if each.after is None:
        return DeleteTraffic(each.key, expected)
    return SetTraffic(each.key, each.after.weights, each.after.fallbacks, expected)


def _size(step: Step) -> int:
    """Return at least how many bytes the mutation takes in a request."""
    mutation = step.mutation
    texts = [str(mutation.key)]
    if isinstance(mutation, Create | Update):
        labels = mutation.labels or {}
        texts += [mutation.url or "", *labels, *labels.values()]
    elif isinstance(mutation, SetTraffic):
        texts += [*dict(step.difference.after.weights), *mutation.fallbacks]  # type: ignore[union-attr]
    return _BYTES_BESIDE_TEXT + sum(len(text.encode()) + _BYTES_OF_A_LABEL for text in texts)
