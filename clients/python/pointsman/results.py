"""What the client returns: plain immutable values. Times are aware and in UTC, revisions are positive integers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from pointsman.errors import PointsmanError
from pointsman.keys import FamilyKey, RouteKey

T = TypeVar("T")


class Consistency(StrEnum):
    """How new the answer of a resolve must be, beyond its ``min_revision``."""

    MINIMIZE_LATENCY = "minimize_latency"
    """From the nearest cache that is new enough. The default."""
    FULLY_CONSISTENT = "fully_consistent"
    """From PostgreSQL, past every cache."""


class Source(StrEnum):
    """The layer that answered: of the server, or the near-cache in this process."""

    LOCAL = "LOCAL"
    REDIS = "REDIS"
    POSTGRES = "POSTGRES"
    NEAR_CACHE = "NEAR_CACHE"
    """No server: the near-cache of this process."""
    UNKNOWN = "UNKNOWN"
    """One that this release of the client does not know."""


class Existing(StrEnum):
    """What an import does with the routes that exist already."""

    UPDATE = "update"
    """Change them to what the import says. The default."""
    SKIP = "skip"
    """Leave them as they are."""
    REFUSE = "refuse"
    """Refuse what they came with: RouteExists."""


class ChangeKind(StrEnum):
    """What a change did to its route, or to the traffic of its tenant, service and env."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    ACTIVATED = "ACTIVATED"
    DEACTIVATED = "DEACTIVATED"
    DELETED = "DELETED"
    TRAFFIC_SET = "TRAFFIC_SET"
    TRAFFIC_DELETED = "TRAFFIC_DELETED"
    UNKNOWN = "UNKNOWN"
    """One that this release of the client does not know."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route as of its ``revision``, the revision of its last change."""

    key: RouteKey
    url: str
    active: bool
    labels: Mapping[str, str] = field(hash=False)
    revision: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Target:
    """A version and its share of calls in basis points: 10,000 are all of them."""

    version: str
    weight: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """How the calls of ``key`` are divided between its versions, as of ``revision``, that of its last change.

    Without an active target that has a weight, the first active one of ``fallbacks`` gets them. ``slices`` are the
    runs of points that belong to each version, of 10,000: what the server keeps, so that a change of weights moves as
    few callers as it must.
    """

    key: FamilyKey
    targets: tuple[Target, ...]
    fallbacks: tuple[str, ...]
    slices: tuple[tuple[str, int], ...]
    revision: int
    create_time: datetime
    update_time: datetime

    @property
    def weights(self) -> dict[str, int]:
        """The weight of each version, in their order."""
        return {target.version: target.weight for target in self.targets}


@dataclass(frozen=True, slots=True)
class Resolution:
    """A live route, the layer that answered, and how new the answer is.

    ``age`` is how long ago the server took the answer over from the layer below; zero from Redis and PostgreSQL.
    ``as_of_revision`` is the revision as of which the answer is true, and ``epoch`` names the history that it
    counts in ("": the server did not say): together a revision token for ``min_revision`` and ``epoch``.
    """

    route: Route
    source: Source
    age: timedelta
    as_of_revision: int
    epoch: str = ""

    @property
    def url(self) -> str:
        """The URL of the route."""
        return self.route.url

    @property
    def revision(self) -> int:
        """The revision of the last change of the route."""
        return self.route.revision

    @property
    def live(self) -> bool:
        """True: a server has just answered. Results of a near-cache may not be live."""
        return True


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What ``resolve`` would have done for one key: exactly one of ``resolution`` and ``error`` is set."""

    key: RouteKey
    resolution: Resolution | None = None
    error: PointsmanError | None = None

    def unwrap(self) -> Resolution:
        """Return the resolution, or raise the error."""
        return unwrapped(self.key, self.resolution, self.error)


def unwrapped(key: RouteKey | FamilyKey, answer: T | None, error: PointsmanError | None) -> T:
    """Return the answer for ``key``, or raise the error."""
    if answer is None:
        raise error or PointsmanError(f"the server gave no answer for {key}")
    return answer


@dataclass(frozen=True, slots=True)
class Activation:
    """The active route, and the revision as of which its siblings are inactive too, if that was asked for."""

    route: Route
    revision: int


@dataclass(frozen=True, slots=True)
class ImportResult:
    """How many routes an import created and updated, and how many were already as requested (or skipped).

    As of ``revision`` every route is as requested: a revision token. Results of one import can be added.
    """

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    revision: int = 0

    @property
    def total(self) -> int:
        """How many routes there were."""
        return self.created + self.updated + self.unchanged

    def __add__(self, other: "ImportResult") -> "ImportResult":
        return ImportResult(
            self.created + other.created,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            max(self.revision, other.revision),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of history. ``before`` is None for CREATED, ``after`` for DELETED.

    A change of traffic has a key without a version, and ``traffic_before`` and ``traffic_after`` instead: the first is
    None where none was set, the second for TRAFFIC_DELETED. The changes from revision ``change_set_id`` on,
    ``change_set_size`` of them, were made together: 0 and 0 where the server did not record it.
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
    traceparent: str
    tracestate: str = ""
    change_set_id: int = 0
    change_set_size: int = 0
    traffic_before: Traffic | None = None
    traffic_after: Traffic | None = None
