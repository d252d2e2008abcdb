"""Everything the client raises: one tree, by gRPC status code and then by the reason the server gives.

::

    PointsmanError
    ├── InvalidArgument (also a ValueError)
    │   └── RequestIdReused
    ├── NotFound
    │   ├── RouteNotFound
    │   └── RouteInactive
    ├── Conflict
    │   ├── RouteExists
    │   └── RevisionMismatch
    ├── Unauthenticated · PermissionDenied · ResourceExhausted
    ├── Unavailable
    │   ├── RevisionNotReached
    │   └── NearCacheStale
    └── DeadlineExceeded · Unimplemented · Internal
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import grpc


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One malformed field: its path in the request, for example ``key.tenant``, and the rule that it breaks."""

    field: str
    description: str


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


class InvalidArgument(PointsmanError, ValueError):
    """The request is malformed: ``violations`` names each field. Sending it again cannot help."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class RequestIdReused(InvalidArgument):
    """The ``request_id`` was already used for a different request: choose a new one."""


class NotFound(PointsmanError):
    """There is no such live route."""

    default_code = grpc.StatusCode.NOT_FOUND


class RouteNotFound(NotFound):
    """The route never existed, or was deleted."""


class RouteInactive(NotFound):
    """The route exists, but is not active. From ``resolve`` only."""


class Conflict(PointsmanError):
    """The state of the route forbids the change: read it again, then decide."""

    default_code = grpc.StatusCode.ABORTED


class RouteExists(Conflict):
    """The key is taken."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class RevisionMismatch(Conflict):
    """The route is not at ``expected_revision``; ``metadata["revision"]``, or ``violations``, say where it is."""


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
