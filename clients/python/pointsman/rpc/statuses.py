"""From a gRPC status to the exception that the client raises.

The details are read from the trailing metadata here, because grpcio-status would pin the protobuf release.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from pointsman import errors

DOMAIN = "pointsman.v1"
DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"

BY_REASON: dict[str, type[errors.PointsmanError]] = {
    "ROUTE_NOT_FOUND": errors.RouteNotFound,
    "ROUTE_INACTIVE": errors.RouteInactive,
    "ROUTE_EXISTS": errors.RouteExists,
    "REVISION_MISMATCH": errors.RevisionMismatch,
    "REQUEST_ID_REUSED": errors.RequestIdReused,
    "REVISION_NOT_REACHED": errors.RevisionNotReached,
    "REVISION_COMPACTED": errors.RevisionCompacted,
    "REVISION_IN_FUTURE": errors.RevisionInFuture,
    "EPOCH_CHANGED": errors.EpochChanged,
    "AMBIGUOUS_VERSION": errors.AmbiguousVersion,
    "NO_ACTIVE_VERSION": errors.NoActiveVersion,
    "TRAFFIC_NOT_FOUND": errors.TrafficNotFound,
    "TARGET_NOT_FOUND": errors.TargetNotFound,
    "ROUTE_IN_TRAFFIC": errors.RouteInTraffic,
    "ROUTE_IN_USE": errors.RouteInUse,
    "USAGE_UNAVAILABLE": errors.UsageUnavailable,
    "USAGE_NOT_COUNTED": errors.UsageNotCounted,
    "CHANGED_SINCE": errors.ChangedSince,
}

BY_CODE: dict[grpc.StatusCode, type[errors.PointsmanError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.Conflict,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
    grpc.StatusCode.INTERNAL: errors.Internal,
}

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

M = TypeVar("M", bound=Message)


def error_from_call(error: grpc.RpcError) -> errors.PointsmanError:
    """Return what to raise for a call that ended with ``error``, sync or asyncio alike."""
    trailers = dict(cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()))
    status = _decode(trailers.get(DETAILS_KEY))
    message = error.details() or status.message
    return _error(error.code(), message, status.details, _text(trailers.get(REQUEST_ID_KEY)))


def error_from_status(status: status_pb2.Status) -> errors.PointsmanError:
    """Return the exception for one status inside an answer, as BatchResolve gives per key."""
    return _error(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status.details, "")


def _error(code: grpc.StatusCode, message: str, details: Iterable[Any], request_id: str) -> errors.PointsmanError:
    details = list(details)
    info = _first(details, error_details_pb2.ErrorInfo())
    reason = info.reason if info.domain == DOMAIN else ""
    kind = BY_REASON.get(reason) or BY_CODE.get(code, errors.PointsmanError)
    return kind(
        message,
        code=code,
        reason=reason,
        metadata=info.metadata,
        violations=_violations(_first(details, error_details_pb2.BadRequest())),
        request_id=request_id,
        retry_delay=_retry_delay(details),
    )


def _first(details: Iterable[Any], message: M) -> M:
    """Fill ``message`` from the first detail of its type, and return it; it stays empty when there is none."""
    for detail in details:
        if detail.Unpack(message):
            break
    return message


def _violations(request: error_details_pb2.BadRequest) -> list[errors.FieldViolation]:
    return [errors.FieldViolation(violation.field, violation.description) for violation in request.field_violations]


def _retry_delay(details: Iterable[Any]) -> timedelta | None:
    info = _first(details, error_details_pb2.RetryInfo())
    return info.retry_delay.ToTimedelta() if info.HasField("retry_delay") else None


def _decode(value: str | bytes | None) -> status_pb2.Status:
    """Read the details; what cannot be read counts as absent, so that the status itself is never lost."""
    try:
        return status_pb2.Status.FromString(value) if isinstance(value, bytes) else status_pb2.Status()
    except DecodeError:
        return status_pb2.Status()


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
