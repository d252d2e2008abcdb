"""Everything the client raises: one tree, by gRPC status code and then by the reason the server gives.

::

    PointsmanError
    ├── InvalidArgument (also a ValueError)
    │   ├── RequestIdReused
    │   └── RevisionCompacted · RevisionInFuture
    ├── NotFound
    │   ├── RouteNotFound · RouteInactive
    │   └── NoActiveVersion · TrafficNotFound
    ├── Conflict
    │   ├── RouteExists · RevisionMismatch
    │   └── ChangedSince · EpochChanged
    ├── FailedPrecondition
    │   ├── AmbiguousVersion · TargetNotFound · RouteInTraffic
    │   └── RouteInUse · UsageNotCounted
    ├── Unauthenticated · PermissionDenied · ResourceExhausted
    ├── Unavailable
    │   ├── RevisionNotReached · UsageUnavailable
    │   └── NearCacheStale
    └── DeadlineExceeded · Unimplemented · Internal

A refused commit raises what its first refused mutation would have raised alone; ``refusals`` names up to 16 of them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import grpc

_MUTATION = re.compile(r"mutations\[(\d+)\](?:\.(.+))?")
_REFUSAL = re.compile(r"([A-Z][A-Z_]*): (.*)", re.DOTALL)
_READER = re.compile(r"(.+?) (\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d))(?:, |\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One malformed field: its path in the request, for example ``key.tenant``, and the rule that it breaks."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """One mutation of a commit that was refused: its number in the commit, from 0, the reason, and why."""

    index: int
    reason: str
    message: str


class LastRead(NamedTuple):
    """Who read a route, and when last."""

    subject: str
    time: datetime


class PointsmanError(Exception):
    """A call that failed. The original ``grpc.RpcError``, if there was one, is the ``__cause__``.

    Attributes:
        code: the gRPC status code.
        reason: the machine-readable reason, for example ``ROUTE_NOT_FOUND``; empty when the server gave none,
            which is so when it was never reached.
        message: what went wrong, for people.
        metadata: details of the reason, for example ``{"key": "team-a/payments/prod/v9", "revision": "1042"}``.
        violations: each malformed field, or of a refused import each route that is to blame; otherwise empty.
        request_id: the id under which the server logged the call; empty when it gave none.
        retry_delay: how long the server asks to wait before another try, or None.
    """

    default_code = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        request_id: str = "",
        retry_delay: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.request_id = request_id
        self.retry_delay = retry_delay

    def __str__(self) -> str:
        origin = f", request {self.request_id}" if self.request_id else ""
        return f"{self.message} ({self.reason or self.code.name}{origin})"

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The mutations of a commit that were refused, up to 16, in their order; empty for every other call."""
        return tuple(filter(None, (_refusal(each) for each in self.violations)))

    def _number(self, name: str) -> int:
        text = self.metadata.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else 0

    def _versions(self) -> tuple[str, ...]:
        return tuple(each for each in self.metadata.get("versions", "").split(",") if each not in {"", "…"})


def _refusal(violation: FieldViolation) -> Refusal | None:
    place = _MUTATION.fullmatch(violation.field)
    if place is None:
        return None
    said = None if place[2] else _REFUSAL.fullmatch(violation.description)
    if said:
        return Refusal(int(place[1]), said[1], said[2])
    return Refusal(int(place[1]), "INVALID_FIELD", ": ".join(filter(None, (place[2], violation.description))))


class InvalidArgument(PointsmanError, ValueError):
    """The request is malformed: ``violations`` names each field. Sending it again cannot help."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class RequestIdReused(InvalidArgument):
    """The ``request_id`` was already used for a different request: choose a new one."""


class RevisionCompacted(InvalidArgument):
    """The history of that moment is no longer kept."""

    default_code = grpc.StatusCode.OUT_OF_RANGE

    @property
    def oldest_revision(self) -> int:
        """The first revision whose state is known; 0: not said."""
        return self._number("oldest_revision")


class RevisionInFuture(InvalidArgument):
    """There is no such revision yet, or the time has not come."""

    default_code = grpc.StatusCode.OUT_OF_RANGE

    @property
    def last_revision(self) -> int:
        """The last revision that there is; 0: not said."""
        return self._number("last_revision")


class NotFound(PointsmanError):
    """There is no such live route, or no such traffic."""

    default_code = grpc.StatusCode.NOT_FOUND


class RouteNotFound(NotFound):
    """The route never existed, or was deleted."""


class RouteInactive(NotFound):
    """The route exists, but is not active. From ``resolve`` only."""


class NoActiveVersion(NotFound):
    """No version that a select could choose is active."""

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that the traffic names, up to 16; empty if no traffic is set."""
        return self._versions()


class TrafficNotFound(NotFound):
    """No traffic is set for the tenant, service and env."""


class Conflict(PointsmanError):
    """The state of the route forbids the change: read it again, then decide."""

    default_code = grpc.StatusCode.ABORTED


class RouteExists(Conflict):
    """The key is taken."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class RevisionMismatch(Conflict):
    """The route is not at ``expected_revision``; ``metadata["revision"]``, or ``violations``, say where it is."""


class ChangedSince(Conflict):
    """What was to be undone was changed since: ``violations`` names up to 16, with who, when and the revision."""

    @property
    def count(self) -> int:
        """How many there are in all."""
        return self._number("count") or len(self.violations)


class EpochChanged(Conflict):
    """The database was restored or replaced, so the revision means another change, or none."""


class FailedPrecondition(PointsmanError):
    """Something else must be changed first; the same call again cannot help until then."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class AmbiguousVersion(FailedPrecondition):
    """Several versions are active and no traffic is set, so a select cannot choose: set traffic."""

    @property
    def versions(self) -> tuple[str, ...]:
        """The active versions, up to 16."""
        return self._versions()


class TargetNotFound(FailedPrecondition):
    """The traffic names versions that have no route: create them first."""

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions without a route, up to 16."""
        return self._versions()


class RouteInTraffic(FailedPrecondition):
    """The traffic names the version that was to be deleted: take it out of the traffic first."""

    @property
    def traffic_revision(self) -> int:
        """The revision of the traffic; 0: not said."""
        return self._number("traffic_revision")


class RouteInUse(FailedPrecondition):
    """The route was read within ``if_unused_for``."""

    @property
    def readers(self) -> tuple[LastRead, ...]:
        """Who read it and when last, up to 16, those who read last first."""
        found = _READER.findall(self.metadata.get("readers", ""))
        return tuple(LastRead(subject, datetime.fromisoformat(time)) for subject, time in found)


class UsageNotCounted(FailedPrecondition):
    """Servers do not count reads, or not for as long as ``if_unused_for``: ``metadata["window"]`` says how long."""


class Unauthenticated(PointsmanError):
    """No credentials, or bad ones. Neither the message nor the metadata repeats them."""

    default_code = grpc.StatusCode.UNAUTHENTICATED

    @property
    def credential(self) -> str:
        """Which one was refused: ``bearer token``, ``api key``, ``client certificate`` or ``none``; "": not said."""
        return self.metadata.get("credential", "")

    @property
    def problem(self) -> str:
        """Why, for example ``expired``, ``revoked`` or ``missing``; "": not said."""
        return self.metadata.get("problem", "")


class PermissionDenied(PointsmanError):
    """The caller may not do this, whether or not the route exists."""

    default_code = grpc.StatusCode.PERMISSION_DENIED

    @property
    def permission(self) -> str:
        """What is needed, for example ``routes.write``; "": not said."""
        return self.metadata.get("permission", "")


class ResourceExhausted(PointsmanError):
    """A quota is used up, or the server sheds load: wait for ``retry_delay`` before another try.

    The client has done so already, as far as its timeout and its attempts allow.
    """

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(PointsmanError):
    """The server or its store cannot be reached. The client has retried already."""

    default_code = grpc.StatusCode.UNAVAILABLE


class RevisionNotReached(Unavailable):
    """The server did not reach ``min_revision`` in time."""


class UsageUnavailable(Unavailable):
    """Who reads the route cannot be told now, so that ``if_unused_for`` cannot be checked."""


class NearCacheStale(Unavailable):
    """The near-cache has not heard from a server for longer than ``max_stale``, and was told to raise then."""


class DeadlineExceeded(PointsmanError):
    """The call took longer than its timeout. A mutation may have been made: try again with its ``request_id``."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unimplemented(PointsmanError):
    """The server does not know the method: it is older than this client, or no Pointsman."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class Internal(PointsmanError):
    """A bug in the server: report it with the ``request_id``."""

    default_code = grpc.StatusCode.INTERNAL
