"""Routes and their changes. No I/O, and no dependency on gRPC, SQL, Redis or Kafka."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Self

from pointsman.rules import InvalidKey, split_key, url_problem
from pointsman_server.domain.errors import FieldViolation, InvalidField
from pointsman_server.domain.traffic import Division, Slice

# Active routes of a family without traffic that are kept: one tells the answer, these are enough to name several.
MOST_UNDIVIDED = 17


class RouteKey(NamedTuple):
    """Names one route. Every part matches ``rules.KEY_PART``, so the text form is unambiguous.

    A tuple, because every call makes and looks up one: three times as fast as a dataclass.

    Without a version it is the key of a *family*: of the versions of one tenant, service and env together.
    """

    tenant: str
    service: str
    env: str
    version: str

    def __str__(self) -> str:
        return "/".join(self if self.version else self[:3])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``tenant/service/env/version``. Raises InvalidField if ``text`` is not such a key."""
        try:
            return cls(*split_key(text))
        except InvalidKey as error:
            raise InvalidField([FieldViolation(error.field, error.description)]) from None

    @property
    def family(self) -> str:
        """The text form without the version: what exclusive activation ranges over."""
        return f"{self.tenant}/{self.service}/{self.env}"

    @property
    def family_key(self) -> "RouteKey":
        """The key without its version."""
        return RouteKey(self.tenant, self.service, self.env, "")


# A route that servers change by themselves, to measure how stale caches are.
HEARTBEAT = RouteKey("pointsman", "heartbeat", "internal", "v1")


@dataclass(frozen=True, slots=True)
class Route:
    """One route as of its ``revision``, the revision of its last change."""

    key: RouteKey
    url: str
    active: bool
    labels: Mapping[str, str]
    revision: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Traffic:
    """The traffic of a family, as of its ``revision``, the revision of its last change.

    Invariants: weights add up to ``POINTS``; each version has as many points in ``slices`` as its weight; and every
    version that is named has a route, active or not. So a route cannot be deleted while traffic names it.
    """

    key: RouteKey
    division: Division
    slices: tuple[Slice, ...]
    revision: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Family:
    """What a Select chooses from: the traffic, and active routes in the order of their versions.

    With traffic, ``routes`` are the active ones that it names; without, the first ``MOST_UNDIVIDED`` active ones.
    """

    key: RouteKey
    traffic: Traffic | None
    routes: tuple[Route, ...]

    # As of a route: a family is cached as present.
    active = True

    @classmethod
    def of(cls, key: RouteKey, traffic: Traffic | None, routes: Iterable[Route]) -> "Family":
        """Take from ``routes`` of the family, in any order, those that belong to it."""
        active = sorted((route for route in routes if route.active), key=lambda route: route.key)
        if traffic is None:
            return cls(key, None, tuple(active[:MOST_UNDIVIDED]))
        named = traffic.division.versions
        return cls(key, traffic, tuple(route for route in active if route.key.version in named))

    @property
    def revision(self) -> int:
        """The revision of what changed last among its parts."""
        parts = (*self.routes, *((self.traffic,) if self.traffic else ()))
        return max((part.revision for part in parts), default=0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of one key as of the database revision ``as_of``: its route or its family, or None if it has none.

    ``as_of`` is not below the revision of the value, and the key did not change between the two; a family changes with
    each of its versions. ``epoch`` is that of ``as_of``; empty if it is not known.
    """

    key: RouteKey
    value: Route | Family | None
    as_of: int
    epoch: str = field(default="", compare=False)

    @property
    def route(self) -> Route | None:
        """The route of a key with a version."""
        return self.value if isinstance(self.value, Route) else None

    @property
    def family(self) -> Family:
        """The family of a key without a version; one without routes and traffic if there is nothing."""
        return self.value if isinstance(self.value, Family) else Family(self.key, None, ())


class ChangeKind(StrEnum):
    """What a change did to its route."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    ACTIVATED = "ACTIVATED"
    DEACTIVATED = "DEACTIVATED"
    DELETED = "DELETED"
    TRAFFIC_SET = "TRAFFIC_SET"
    TRAFFIC_DELETED = "TRAFFIC_DELETED"

    @property
    def of_traffic(self) -> bool:
        """Whether traffic was changed, and no route."""
        return self in _OF_TRAFFIC


_OF_TRAFFIC = frozenset({ChangeKind.TRAFFIC_SET, ChangeKind.TRAFFIC_DELETED})


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of history: exactly one per revision, and no revision without one.

    It is of a route, with ``before`` and ``after``, or of traffic: then its key is that of a family.
    """

    revision: int
    event_id: str
    kind: ChangeKind
    key: RouteKey
    before: Route | None
    after: Route | None
    actor: str
    reason: str
    request_id: str
    occur_time: datetime
    epoch: str
    traceparent: str = ""
    # The revision of the last change of the same change set; 0 if that was not recorded.
    change_set_end: int = 0
    tracestate: str = ""
    # The revision of the first change of the same change set, and how many it has; 0 if that was not recorded.
    change_set_id: int = 0
    change_set_size: int = 0
    traffic_before: Traffic | None = None
    traffic_after: Traffic | None = None

    @property
    def ends_set(self) -> bool:
        """Whether this is the last change of its set; one of which that was not recorded is a set of its own."""
        return self.change_set_end <= self.revision

    @property
    def snapshot(self) -> Snapshot:
        """The state of the route right after this change, which is not one of traffic."""
        return Snapshot(self.key, self.after, self.revision, self.epoch)


@dataclass(frozen=True, slots=True)
class Draft:
    """A decided change that has no revision and no time yet.

    ``url``, ``active`` and ``labels`` are those of the route after it; DELETED ignores them. A change of traffic has
    ``traffic_before`` and, unless it is deleted, ``division``, what is wanted. ``slices`` are those of the traffic
    after it; where there are none, ``traffic.allot`` makes them from those before.
    """

    kind: ChangeKind
    key: RouteKey
    before: Route | None
    url: str = ""
    active: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    traffic_before: Traffic | None = None
    division: Division | None = None
    slices: tuple[Slice, ...] = ()


class Wanted(NamedTuple):
    """The desired state of a route in an import. None keeps what is there; for a new route: no labels, and active.

    ``expected_revision``: the revision that the route must be at; 0: any.
    """

    key: RouteKey
    url: str
    labels: Mapping[str, str] | None = None
    active: bool | None = None
    expected_revision: int = 0


def check_url(url: str) -> None:
    """Raise InvalidField unless ``url`` is absolute, with a host and without credentials (RFC 3986 §3)."""
    problem = url_problem(url)
    if problem:
        raise InvalidField([FieldViolation("url", problem)])
