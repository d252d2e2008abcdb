"""NetChanges: what differs between two moments, from the changes between them."""

from datetime import datetime
from operator import attrgetter
from typing import Any

from pointsman.change_sets import Difference
from pointsman.keys import RouteKey
from pointsman.results import Change, Route, Traffic
from pointsman.rpc.requests import Moment

LARGEST_PAGE = 1000

State = Route | Traffic | None


def bounds(start: Moment, end: Moment | None) -> dict[str, Any]:
    """Return the arguments of ``list_changes`` for the changes after ``start``, up to ``end``."""
    found: dict[str, Any] = {
        "after_revision": 0,
        "before_revision": 0,
        "actor": "",
        "newest_first": False,
        "page_size": LARGEST_PAGE,
    }
    found["after_time" if isinstance(start, datetime) else "after_revision"] = start
    if isinstance(end, datetime):
        found["before_time"] = end
    elif end is not None:
        found["before_revision"] = end + 1
    return found


class NetChanges:
    """The first state and the last of each key; changes are added in the order of their revisions."""

    def __init__(self) -> None:
        self._found: dict[RouteKey, Difference] = {}

    def add(self, change: Change) -> None:
        """Take one change."""
        before, after = change.before or change.traffic_before, change.after or change.traffic_after
        first = self._found.get(change.key)
        if first:
            before = first.before
        count = first.change_count + 1 if first else 1
        self._found[change.key] = Difference(change.key, before, after, count, change)

    def differences(self) -> tuple[Difference, ...]:
        """Return what differs in the end, in the order of the keys."""
        every = sorted(self._found.values(), key=attrgetter("key"))
        return tuple(each for each in every if _content(each.before) != _content(each.after))


def _content(state: State) -> object:
    if isinstance(state, Route):
        return state.url, state.active, dict(state.labels)
    if isinstance(state, Traffic):
        return state.targets, state.fallbacks, state.slices
    return None
