"""What the table of a near-cache has for a key: a result that is ready, or the reason why there is none."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

from pointsman.keys import RouteKey
from pointsman.near_cache.table.view import View
from pointsman.results import Resolution, Route, Source
from pointsman.v1 import route_pb2

# No entry of this view is ever fresh: readers leave the fast path when they find one.
NEVER = View()
NEVER.fresh_until = -inf


class CachedResolution:
    """A live route from a near-cache, with the attributes of ``Resolution``. It is shared: nothing in it is set anew.

    What it says of its age stays true for as long as it is kept: ``age`` is how long ago this was last known to be the
    current route, at the moment when it is asked.
    """

    __slots__ = ("_key", "_rest", "_superseded", "revision", "url", "view")

    source = Source.NEAR_CACHE

    def __init__(self, view: View, key: str, url: str, revision: int, rest: bytes) -> None:
        """``rest``: the message of the route, without what is given by itself."""
        self.view = view
        self._key = key
        self.url = url
        self.revision = revision
        self._rest = rest
        # The moment and the position as of which it was last known to be current, once it no longer is.
        self._superseded: tuple[float, int, str] | None = None

    @property
    def key_text(self) -> str:
        """The key of the route, as a text."""
        return self._key

    @property
    def version(self) -> str:
        """The version of the route."""
        return self._key.rpartition("/")[2]

    @property
    def route(self) -> Route:
        """The route, decoded anew each time."""
        rest = route_pb2.Route.FromString(self._rest)
        return Route(
            key=RouteKey(*self._key.split("/")),
            url=self.url,
            active=True,
            labels=dict(rest.labels),
            revision=self.revision,
            create_time=_time(rest.create_time),
            update_time=_time(rest.update_time),
        )

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the route."""
        return self.route.labels

    @property
    def age(self) -> timedelta:
        """How long ago this was last known to be the current route."""
        until = self._current_until()
        confirmed_at = until[0] if until else self.view.confirmed_at
        return timedelta(seconds=max(0.0, time.monotonic() - confirmed_at))

    @property
    def live(self) -> bool:
        """Whether this is the current route as far as the server says, over a stream that is open now."""
        return self._current_until() is None and self.view.live

    @property
    def as_of_revision(self) -> int:
        """The latest revision as of which this is known to have been the route."""
        until = self._current_until()
        known = until[1] if until else self.view.revision
        return max(known, self.revision)  # readers may see a change before its view has advanced

    @property
    def epoch(self) -> str:
        """The epoch that the revisions count in."""
        until = self._current_until()
        return until[2] if until else self.view.epoch

    def _current_until(self) -> tuple[float, int, str] | None:
        """Return the moment and the position as of which it was last known to be current; None while it is."""
        return self._superseded

    def supersede(self, known: tuple[float, int, str]) -> None:
        """Take note that another entry takes its place; this one was current as of ``known``."""
        self._superseded = known

    def __repr__(self) -> str:
        return f"CachedResolution({self._key} → {self.url}, revision {self.revision})"

    @property
    def stored(self) -> tuple[str, str, int, bytes, bool]:
        """What a disk keeps: key, url, revision, the rest of the message, and whether the route is active."""
        return self._key, self.url, self.revision, self._rest, True


class InactiveRoute:
    """A route that exists, but is not active."""

    __slots__ = ("_key", "_rest", "_url", "owner", "revision")

    view = NEVER

    def __init__(self, owner: View, key: str, url: str, revision: int, rest: bytes) -> None:
        self.owner = owner
        self._key = key
        self._url = url
        self.revision = revision
        self._rest = rest

    @property
    def stored(self) -> tuple[str, str, int, bytes, bool]:
        """What a disk keeps: key, url, revision, the rest of the message, and whether the route is active."""
        return self._key, self._url, self.revision, self._rest, False


class Behind:
    """Stands before an entry that is older than what this client has seen or written: the server must be asked."""

    __slots__ = ("entry", "epoch", "revision")

    view = NEVER

    def __init__(self, entry: "CachedResolution | InactiveRoute | None", epoch: str, revision: int) -> None:
        """``revision``: what the table must have reached; ``epoch``: what it counts in."""
        self.entry = entry
        self.epoch = epoch
        self.revision = revision


class Deleted:
    """There is nothing any more. It stands in the table only while a change set is applied."""

    __slots__ = ()

    view = NEVER


Known = CachedResolution | InactiveRoute

DELETED = Deleted()


def key_text(key: route_pb2.RouteKey) -> str:
    """Return ``tenant/service/env/version``, or ``tenant/service/env`` for the key of traffic."""
    family = f"{key.tenant}/{key.service}/{key.env}"
    return f"{family}/{key.version}" if key.version else family


def entry_of(view: View, route: route_pb2.Route) -> tuple[str, Known]:
    """Return the key and the entry of a route. It takes the message apart: do not use that any more."""
    key, url, revision, active = key_text(route.key), route.url, route.revision, route.active
    for field in ("key", "url", "revision", "active"):
        route.ClearField(field)
    kind = CachedResolution if active else InactiveRoute
    return key, kind(view, key, url, revision, route.SerializeToString())


def _time(timestamp: Any) -> datetime:
    moment: datetime = timestamp.ToDatetime(tzinfo=UTC)
    return moment


Resolved = Resolution | CachedResolution
"""What a near-cache returns: from its table, or from the server where it had to be asked."""
