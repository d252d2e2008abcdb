"""The status of each domain error: one table for all RPCs.

The details follow AIP-193: a ``google.rpc.ErrorInfo`` whose reason is an ``ErrorReason``, a ``BadRequest`` that names
malformed fields, a ``RetryInfo`` where a retry can succeed, and a ``RequestInfo`` with the request id of the call.
"""

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import StatusCode

from pointsman_server.domain import access_errors, errors

DOMAIN = "pointsman.v1"

CODES: dict[type[errors.PointsmanError], StatusCode] = {
    errors.InvalidField: StatusCode.INVALID_ARGUMENT,
    errors.MalformedRequest: StatusCode.INVALID_ARGUMENT,
    errors.RequestIdReused: StatusCode.INVALID_ARGUMENT,
    access_errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    access_errors.Forbidden: StatusCode.PERMISSION_DENIED,
    errors.RouteNotFound: StatusCode.NOT_FOUND,
    errors.RouteInactive: StatusCode.NOT_FOUND,
    errors.RouteExists: StatusCode.ALREADY_EXISTS,
    errors.RoutesExist: StatusCode.ALREADY_EXISTS,
    errors.RevisionMismatch: StatusCode.ABORTED,
    errors.RevisionsMismatch: StatusCode.ABORTED,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.ResponseTooLarge: StatusCode.RESOURCE_EXHAUSTED,
    access_errors.AccessUnavailable: StatusCode.UNAVAILABLE,
    access_errors.RateLimited: StatusCode.RESOURCE_EXHAUSTED,
    errors.StoreUnavailable: StatusCode.UNAVAILABLE,
    errors.StoreRestored: StatusCode.UNAVAILABLE,
    errors.RevisionNotReached: StatusCode.UNAVAILABLE,
    errors.ShuttingDown: StatusCode.UNAVAILABLE,
    errors.RevisionCompacted: StatusCode.OUT_OF_RANGE,
    errors.EpochChanged: StatusCode.ABORTED,
    errors.AmbiguousVersion: StatusCode.FAILED_PRECONDITION,
    errors.NoActiveVersion: StatusCode.NOT_FOUND,
    errors.TrafficNotFound: StatusCode.NOT_FOUND,
    errors.TargetNotFound: StatusCode.FAILED_PRECONDITION,
    errors.RouteInTraffic: StatusCode.FAILED_PRECONDITION,
    errors.RouteInUse: StatusCode.FAILED_PRECONDITION,
    errors.UsageNotCounted: StatusCode.FAILED_PRECONDITION,
    errors.UsageUnavailable: StatusCode.UNAVAILABLE,
    errors.ChangedSince: StatusCode.ABORTED,
    errors.HistoryCompacted: StatusCode.OUT_OF_RANGE,
    errors.RevisionInFuture: StatusCode.OUT_OF_RANGE,
    errors.TimeInFuture: StatusCode.OUT_OF_RANGE,
}

INTERNAL_TEXT = "internal error: tell the operator the x-request-id of this call"


def code_of(error: errors.PointsmanError) -> StatusCode:
    """Return the status code of a domain error."""
    if isinstance(error, errors.MutationsRefused):
        return code_of(error.refusals[0][1])
    return CODES[type(error)]


def name_of(code: StatusCode) -> str:
    """Return a code in the style of go-grpc-middleware's labels, such as ``NotFound``; but Go spells ``Canceled``."""
    return "OK" if code is StatusCode.OK else code.name.title().replace("_", "")


def status_of(error: errors.PointsmanError, request_id: str = "") -> status_pb2.Status:
    """Build the status of a domain error, with its details. ``request_id`` is empty for one key of many."""
    details: list[Message] = [_info(error.reason, error.metadata)]
    if isinstance(error, errors.InvalidField | errors.RoutesRefused | errors.MutationsRefused):
        details.append(_bad_request(error))
    if isinstance(error, errors.RetryLater):
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_delay)))
    return _status(code_of(error), error.message, details, request_id)


def plain(code: StatusCode, message: str, request_id: str) -> status_pb2.Status:
    """Build the status of a refusal for which there is no domain error."""
    return _status(code, message, [], request_id)


def internal(request_id: str) -> status_pb2.Status:
    """Build the status of an unexpected error: a fixed text and the request id, nothing of the cause."""
    return _status(StatusCode.INTERNAL, INTERNAL_TEXT, [_info("INTERNAL", {"x-request-id": request_id})], request_id)


def _status(code: StatusCode, message: str, details: list[Message], request_id: str) -> status_pb2.Status:
    if request_id:
        details = [*details, error_details_pb2.RequestInfo(request_id=request_id)]
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _info(reason: str, metadata: dict[str, str]) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


def _bad_request(
    error: errors.InvalidField | errors.RoutesRefused | errors.MutationsRefused,
) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations
        ]
    )


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
