"""Filters of watches, and an index that finds those that a key matches."""

from collections.abc import Iterator
from typing import NamedTuple

from pointsman_server.domain.routes import RouteKey


class Filter(NamedTuple):
    """Routes of a tenant, service and env, and with ``traffic`` also their traffic; an empty part matches all."""

    tenant: str = ""
    service: str = ""
    env: str = ""
    traffic: bool = False

    @property
    def of_routes(self) -> "Filter":
        """The same without traffic."""
        return self._replace(traffic=False) if self.traffic else self

    def matches(self, key: RouteKey) -> bool:
        """Return whether it takes changes of ``key``; that of traffic has no version."""
        return (
            (not self.tenant or self.tenant == key.tenant)
            and (not self.service or self.service == key.service)
            and (not self.env or self.env == key.env)
            and (self.traffic or bool(key.version))
        )


class FilterIndex:
    """The filters in use. Finding those of a key takes one look-up for each shape, of which there are at most 16.

    A shape is which parts are empty, and whether traffic is wanted.
    """

    def __init__(self) -> None:
        self._filters: set[Filter] = set()
        self._shapes: dict[tuple[bool, bool, bool, bool], int] = {}

    def add(self, wanted: Filter) -> None:
        if wanted not in self._filters:
            self._filters.add(wanted)
            shape = _shape(wanted)
            self._shapes[shape] = self._shapes.get(shape, 0) + 1

    def discard(self, wanted: Filter) -> None:
        if wanted in self._filters:
            self._filters.discard(wanted)
            shape = _shape(wanted)
            self._shapes[shape] -= 1
            if not self._shapes[shape]:
                del self._shapes[shape]

    def matching(self, key: RouteKey) -> Iterator[Filter]:
        """Return every filter in use that ``key`` matches."""
        for tenant, service, env, traffic in self._shapes:
            if not traffic and not key.version:
                continue
            candidate = Filter(
                key.tenant if tenant else "", key.service if service else "", key.env if env else "", traffic
            )
            if candidate in self._filters:
                yield candidate

    def copy(self) -> "FilterIndex":
        """Return the filters as they are now, for work that takes turns with the tasks that change them."""
        same = FilterIndex()
        same._filters, same._shapes = self._filters.copy(), self._shapes.copy()
        return same


def _shape(wanted: Filter) -> tuple[bool, bool, bool, bool]:
    return bool(wanted.tenant), bool(wanted.service), bool(wanted.env), wanted.traffic
