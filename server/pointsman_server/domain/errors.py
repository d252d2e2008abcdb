"""The errors of the domain. ``rpc.statuses`` has the gRPC status of each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

_NAME = re.compile(r"[A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One malformed field: its path in the request, and the rule that it breaks."""

    field: str
    description: str


class PointsmanError(Exception):
    """An error whose text and metadata are sent to the caller: they never contain a secret or a cause."""

    reason: ClassVar[str]

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})


# A request may have thousands of fields. Clients accept statuses of 8 KiB, and a status has each violation twice.
MOST_VIOLATIONS = 16
# In a text; the metadata have more.
MOST_READERS_SHOWN = 3


class InvalidField(PointsmanError):
    """One or more fields of the request are malformed; ``violations`` are the first of them."""

    reason = "INVALID_FIELD"

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__(_listed(violations))
        self.violations = tuple(violations[:MOST_VIOLATIONS])


class MalformedRequest(InvalidField):
    """The request is not a protobuf message of its type."""

    def __init__(self) -> None:
        super().__init__([FieldViolation("", "the request is not a valid protobuf message of this method")])


class RouteNotFound(PointsmanError):
    """No route has the key as of ``revision`` of ``epoch``: it never existed, or it was deleted."""

    reason = "ROUTE_NOT_FOUND"

    def __init__(self, key: str, revision: int, epoch: str = "") -> None:
        super().__init__(f"no route {key}", _as_of(key, revision, epoch))


class RouteInactive(PointsmanError):
    """The route exists as of ``revision`` of ``epoch``, but is not active."""

    reason = "ROUTE_INACTIVE"

    def __init__(self, key: str, revision: int, epoch: str = "") -> None:
        super().__init__(f"route {key} is not active: activate it first", _as_of(key, revision, epoch))


class RouteExists(PointsmanError):
    """The key is taken by a route at ``revision``."""

    reason = "ROUTE_EXISTS"

    def __init__(self, key: str, revision: int) -> None:
        super().__init__(f"route {key} exists: update it instead", {"key": key, "revision": str(revision)})


class AmbiguousVersion(PointsmanError):
    """Several ``versions`` of a family are active, and no traffic is set."""

    reason = "AMBIGUOUS_VERSION"

    def __init__(self, family: str, versions: Sequence[str], revision: int, epoch: str = "") -> None:
        shown = _some(versions)
        message = f"several versions of {family} are active: {shown}; set traffic, or deactivate all but one"
        super().__init__(message, {"versions": shown} | _as_of(family, revision, epoch))


class NoActiveVersion(PointsmanError):
    """No version of a family is active; ``versions`` are those that its traffic names."""

    reason = "NO_ACTIVE_VERSION"

    def __init__(self, family: str, versions: Sequence[str], revision: int, epoch: str = "") -> None:
        shown = _some(versions)
        message = f"no version of {family} is active: activate one" + (f" of {shown}" if shown else "")
        super().__init__(message, {"versions": shown} | _as_of(family, revision, epoch))


class TrafficNotFound(PointsmanError):
    """No traffic is set for the family as of ``revision``."""

    reason = "TRAFFIC_NOT_FOUND"

    def __init__(self, family: str, revision: int, epoch: str = "") -> None:
        super().__init__(f"no traffic is set for {family}", _as_of(family, revision, epoch))


class TargetNotFound(PointsmanError):
    """``versions`` that the traffic names have no route."""

    reason = "TARGET_NOT_FOUND"

    def __init__(self, family: str, versions: Sequence[str]) -> None:
        shown = _some(versions)
        super().__init__(f"{family} has no version {shown}: create it first", {"key": family, "versions": shown})


class RouteInTraffic(PointsmanError):
    """The traffic at ``traffic_revision`` names the version that is to be deleted."""

    reason = "ROUTE_IN_TRAFFIC"

    def __init__(self, key: str, traffic_revision: int) -> None:
        message = f"the traffic names route {key}: take it out of the traffic first"
        super().__init__(message, {"key": key, "traffic_revision": str(traffic_revision)})


class RouteInUse(PointsmanError):
    """The route was read lately; ``readers`` are subjects with the times of their last reads, as text, latest first."""

    reason = "ROUTE_IN_USE"

    def __init__(self, key: str, readers: Sequence[str]) -> None:
        shown = readers[:MOST_READERS_SHOWN]
        more = f" and {len(readers) - len(shown)} more" if len(readers) > len(shown) else ""
        message = f"route {key} is in use: last read by {', '.join(shown)}{more}"
        super().__init__(message, {"key": key, "readers": ", ".join(readers[:MOST_VIOLATIONS])})


class RoutesRefused(PointsmanError):
    """The state of existing routes does not allow the import; ``violations`` are the first of them."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__(_listed(violations))
        self.violations = tuple(violations[:MOST_VIOLATIONS])


class RoutesExist(RoutesRefused):
    """An import that may only create routes has keys that are taken; ``violations`` are the first of them."""

    reason = "ROUTE_EXISTS"


class RevisionMismatch(PointsmanError):
    """The route, or the traffic of a family, is at another revision than the caller expected."""

    reason = "REVISION_MISMATCH"

    def __init__(self, key: str, expected: int, revision: int, what: str = "route") -> None:
        message = f"{what} {key} is at revision {revision}, not {expected}: read it again, then decide"
        super().__init__(message, {"key": key, "expected_revision": str(expected), "revision": str(revision)})


class RevisionsMismatch(RoutesRefused):
    """Routes of an import are not at the revisions that it expects; ``violations`` are the first of them."""

    reason = "REVISION_MISMATCH"


class ChangedSince(RoutesRefused):
    """What is to be undone was changed since; ``violations`` are the first, with who did it, when and the revision.

    ``key`` and ``revision`` are those of the first of them; ``count`` is how many there are.
    """

    reason = "CHANGED_SINCE"

    def __init__(self, violations: Sequence[FieldViolation], key: str, revision: int, count: int) -> None:
        more = f"; and {count - len(violations)} more" if count > len(violations) else ""
        PointsmanError.__init__(
            self,
            f"changed since: {_listed(violations)}{more}; undo that first, or force it and lose that",
            {"key": key, "revision": str(revision), "count": str(count)},
        )
        self.violations = tuple(violations[:MOST_VIOLATIONS])


class MutationsRefused(PointsmanError):
    """Mutations of a commit are refused: by ``refusals``, index and error. It has the reason of the first one."""

    def __init__(self, refusals: Sequence[tuple[int, PointsmanError]]) -> None:
        index, first = refusals[0]
        super().__init__(
            _listed([FieldViolation(f"mutations[{each}]", error.message) for each, error in refusals]),
            {**first.metadata, "index": str(index)},
        )
        self.reason = first.reason  # type: ignore[misc]  # of the class in all others
        self.refusals = tuple(refusals)

    @property
    def violations(self) -> tuple[FieldViolation, ...]:
        """The first refusals as the fields that they are about."""
        named = [violation for index, error in self.refusals for violation in _of_mutation(index, error)]
        return tuple(named[:MOST_VIOLATIONS])


class RequestIdReused(PointsmanError):
    """The ``request_id`` was already used for another request."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        message = f"request_id {request_id} was already used for a different request: choose a new one"
        super().__init__(message, {"request_id": request_id})


class RetryLater(PointsmanError):
    """A temporary error: the caller may retry after ``retry_delay`` seconds."""

    retry_delay: float = 1.0


class Overloaded(RetryLater):
    """A limit of this server is reached: ``limit`` names it; ``text`` says what to do, if it is not to try again."""

    reason = "OVERLOADED"
    retry_delay = 0.1

    def __init__(self, limit: str, text: str = "the server sheds load: try again later") -> None:
        super().__init__(text, {"limit": limit})


class ResponseTooLarge(PointsmanError):
    """An answer does not fit into the response of a BatchResolve or BatchSelect, which has others."""

    reason = "RESPONSE_TOO_LARGE"

    def __init__(self) -> None:
        super().__init__("the answer does not fit into the response: ask for it in another call")


class StoreUnavailable(RetryLater):
    """PostgreSQL is needed and cannot be reached, or does not answer in time."""

    reason = "STORE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("the store cannot be reached")


class StoreRestored(StoreUnavailable):
    """PostgreSQL was restored to an older state and has no new epoch yet: its revisions would be assigned twice."""

    def __init__(self) -> None:
        RetryLater.__init__(self, "the store was restored to an older state: its operator must give it a new epoch")


class RevisionCompacted(PointsmanError):
    """What follows ``revision`` is not in the history that is kept for watches."""

    reason = "REVISION_COMPACTED"

    def __init__(self, revision: int) -> None:
        message = f"the history after revision {revision} is no longer kept: watch again without resume"
        super().__init__(message, {"revision": str(revision)})


class HistoryCompacted(RevisionCompacted):
    """What was at a revision, or at a time, cannot be told any more: the history is kept from ``oldest`` on."""

    def __init__(self, at: int | datetime, oldest: int) -> None:
        message = f"the history is kept from revision {oldest} on: what was at {at} cannot be told any more"
        name = "time" if isinstance(at, datetime) else "revision"
        PointsmanError.__init__(self, message, {name: str(at), "oldest_revision": str(oldest)})


class RevisionInFuture(PointsmanError):
    """There is no ``revision`` yet: the last one is ``last``."""

    reason = "REVISION_IN_FUTURE"

    def __init__(self, revision: int, last: int) -> None:
        message = f"there is no revision {revision} yet: the last one is {last}"
        super().__init__(message, {"revision": str(revision), "last_revision": str(last)})


class TimeInFuture(RevisionInFuture):
    """What is at a time that lies ahead of ``now`` is not known yet."""

    def __init__(self, time: datetime, now: datetime) -> None:
        shown, of_now = (each.isoformat(timespec="seconds").replace("+00:00", "Z") for each in (time, now))
        message = f"{shown} is in the future: it is {of_now} now"
        PointsmanError.__init__(self, message, {"time": shown, "now": of_now})


class UsageNotCounted(PointsmanError):
    """Reads are not counted, or not for as long as asked for: ``window`` seconds, 0 if they are not counted."""

    reason = "USAGE_NOT_COUNTED"

    def __init__(self, window: float) -> None:
        message = (
            f"reads are counted for {window:g} seconds only: if_unused_for must not be longer"
            if window
            else "this server does not count reads: it cannot tell whether the route is in use"
        )
        super().__init__(message, {"window": f"{window:g}s"})


class UsageUnavailable(RetryLater):
    """Who reads a route is not known: Redis cannot be reached, or reads are known for ``known`` seconds only."""

    reason = "USAGE_UNAVAILABLE"

    def __init__(self, known: float | None = None) -> None:
        if known is None:
            super().__init__("who reads the route cannot be told now: Redis cannot be reached")
            return
        message = f"reads are known for the last {known:.0f} seconds only: wait, or ask for a shorter if_unused_for"
        super().__init__(message, {"known": f"{known:.0f}s"})


class EpochChanged(PointsmanError):
    """A revision counts in the epoch ``given``, and the store is in another one."""

    reason = "EPOCH_CHANGED"

    def __init__(self, given: str, epoch: str, what_to_do: str = "watch again without resume") -> None:
        message = f"the database was restored or replaced since: {what_to_do}"
        super().__init__(message, {"epoch": epoch, "resume_epoch": decent_name(given)})


class ShuttingDown(RetryLater):
    """This server is shutting down and accepts no new calls; other servers do."""

    reason = "SHUTTING_DOWN"
    retry_delay = 0.05

    def __init__(self) -> None:
        super().__init__("this server is shutting down: ask another one")


class RevisionNotReached(RetryLater):
    """The store is at ``revision`` and did not reach ``min_revision`` in time."""

    reason = "REVISION_NOT_REACHED"
    retry_delay = 0.05

    def __init__(self, min_revision: int, revision: int) -> None:
        super().__init__(
            f"the store is at revision {revision} and did not reach min_revision {min_revision} in time; "
            "if no revision is that high yet, the revision token is of another epoch: drop it",
            {"min_revision": str(min_revision), "revision": str(revision)},
        )


def decent_name(name: str) -> str:
    """Return ``name`` if it may be repeated: a valid one. Filters take any text, such as a URL with a password."""
    return name if _NAME.fullmatch(name) else "?"


def _listed(violations: Sequence[FieldViolation]) -> str:
    texts = [f"{violation.field}: {violation.description}" for violation in violations[:MOST_VIOLATIONS]]
    return "; ".join(texts + (["and more"] if len(violations) > MOST_VIOLATIONS else []))


def _of_mutation(index: int, error: PointsmanError) -> Sequence[FieldViolation]:
    path = f"mutations[{index}]"
    if isinstance(error, InvalidField):
        return [FieldViolation(f"{path}.{each.field}", each.description) for each in error.violations]
    return [FieldViolation(path, f"{error.reason}: {error.message}")]


def _some(versions: Sequence[str]) -> str:
    return ",".join(versions[:MOST_VIOLATIONS]) + (",…" if len(versions) > MOST_VIOLATIONS else "")


def _as_of(key: str, revision: int, epoch: str) -> dict[str, str]:
    return {"key": key, "revision": str(revision)} | ({"epoch": epoch} if epoch else {})
