"""Resources of the table: built once for all clients of a view, and again only where a change may have changed them."""

from collections.abc import Collection, Sequence
from typing import Protocol

from pointsman_server.domain.routes import Change
from pointsman_server.ports.store import Clock
from pointsman_server.xds.names import root_of
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource
from pointsman_server.xds.resources.build import build
from pointsman_server.xds.table import Table
from pointsman_server.xds.targets import FORBIDDEN, Target
from pointsman_server.xds.views import View


class Subscriber(Protocol):
    """A stream that wants to know of changes."""

    def changed(self, roots: Collection[str]) -> None:
        """Some of ``roots``, of which it watches at least one, may have changed."""


class ResourceSnapshot:
    """What is served now.

    Invariants:

    - A resource depends on its view, type and name, and on what its root leads to in the table; so equal tables have
      equal resources, with equal versions, on every server.
    - A change set is applied whole before any subscriber hears of it.
    - Only what subscribers watch is kept.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._built: dict[str, dict[tuple[View, ResourceType, str, bool], Resource]] = {}
        self._subscribers: dict[str, dict[Subscriber, None]] = {}

    @property
    def clock(self) -> Clock:
        """The revision that every resource is true as of."""
        return self._table.clock

    @property
    def table(self) -> Table:
        """The table that is served; another one after a reload."""
        return self._table

    def target(self, root: str) -> Target:
        """Return what ``root`` leads to."""
        return self._table.target(root)

    def resource(self, view: View, kind: ResourceType, name: str, *, forbidden: bool = False) -> Resource:
        """Return the resource called ``name``; it is never missing."""
        root = root_of(name)
        built = self._built.get(root)
        key = (view, kind, name, forbidden)
        if built is not None and key in built:
            return built[key]
        resource = build(view, kind, name, FORBIDDEN if forbidden else self._table.target(root))
        if root in self._subscribers:
            self._built.setdefault(root, {})[key] = resource
        return resource

    def subscribe(self, root: str, subscriber: Subscriber) -> None:
        """Tell ``subscriber`` of changes of ``root`` from now on."""
        self._subscribers.setdefault(root, {})[subscriber] = None

    def unsubscribe(self, root: str, subscriber: Subscriber) -> None:
        """Tell it no more."""
        subscribers = self._subscribers.get(root, {})
        subscribers.pop(subscriber, None)
        if not subscribers:
            self._subscribers.pop(root, None)
            self._built.pop(root, None)

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply a change set, and tell those who watch what it changed."""
        self._tell(self._table.apply(changes))

    def replace(self, table: Table) -> None:
        """Take another table, which may differ anywhere, and tell everybody."""
        self._table = table
        self._tell(tuple(self._subscribers))

    def _tell(self, roots: Collection[str]) -> None:
        watched = [root for root in roots if root in self._subscribers]
        told: dict[Subscriber, None] = {}
        for root in watched:
            self._built.pop(root, None)
            told.update(self._subscribers[root])
        for subscriber in told:
            subscriber.changed(watched)
