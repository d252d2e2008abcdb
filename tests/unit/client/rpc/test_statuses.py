"""statuses: which exception a status becomes, and what of the details it keeps."""

from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from pointsman import Client, errors
from pointsman.rpc.statuses import error_from_status
from tests.support.fake_route_service import REQUEST_ID, Failure, FakeServer

C = grpc.StatusCode


def raised(client: Client, server: FakeServer, failure: Failure) -> errors.PointsmanError:
    server.fail("Get", *[failure] * 5)
    with pytest.raises(errors.PointsmanError) as caught:
        client.get("a/b/c/d")
    return caught.value


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (C.INVALID_ARGUMENT, "INVALID_FIELD", errors.InvalidArgument),
        (C.INVALID_ARGUMENT, "REQUEST_ID_REUSED", errors.RequestIdReused),
        (C.UNAUTHENTICATED, "", errors.Unauthenticated),
        (C.PERMISSION_DENIED, "FORBIDDEN", errors.PermissionDenied),
        (C.NOT_FOUND, "ROUTE_NOT_FOUND", errors.RouteNotFound),
        (C.NOT_FOUND, "ROUTE_INACTIVE", errors.RouteInactive),
        (C.NOT_FOUND, "", errors.NotFound),
        (C.ALREADY_EXISTS, "ROUTE_EXISTS", errors.RouteExists),
        (C.ABORTED, "REVISION_MISMATCH", errors.RevisionMismatch),
        (C.ABORTED, "EPOCH_CHANGED", errors.EpochChanged),
        (C.ABORTED, "CHANGED_SINCE", errors.ChangedSince),
        (C.ABORTED, "", errors.Conflict),
        (C.OUT_OF_RANGE, "REVISION_COMPACTED", errors.RevisionCompacted),
        (C.OUT_OF_RANGE, "REVISION_IN_FUTURE", errors.RevisionInFuture),
        (C.OUT_OF_RANGE, "", errors.InvalidArgument),
        (C.NOT_FOUND, "NO_ACTIVE_VERSION", errors.NoActiveVersion),
        (C.NOT_FOUND, "TRAFFIC_NOT_FOUND", errors.TrafficNotFound),
        (C.FAILED_PRECONDITION, "AMBIGUOUS_VERSION", errors.AmbiguousVersion),
        (C.FAILED_PRECONDITION, "TARGET_NOT_FOUND", errors.TargetNotFound),
        (C.FAILED_PRECONDITION, "ROUTE_IN_TRAFFIC", errors.RouteInTraffic),
        (C.FAILED_PRECONDITION, "ROUTE_IN_USE", errors.RouteInUse),
        (C.FAILED_PRECONDITION, "USAGE_NOT_COUNTED", errors.UsageNotCounted),
        (C.FAILED_PRECONDITION, "", errors.FailedPrecondition),
        (C.UNAVAILABLE, "USAGE_UNAVAILABLE", errors.UsageUnavailable),
        (C.RESOURCE_EXHAUSTED, "RATE_LIMITED", errors.ResourceExhausted),
        (C.RESOURCE_EXHAUSTED, "OVERLOADED", errors.ResourceExhausted),
        (C.UNAVAILABLE, "STORE_UNAVAILABLE", errors.Unavailable),
        (C.UNAVAILABLE, "REVISION_NOT_REACHED", errors.RevisionNotReached),
        (C.DEADLINE_EXCEEDED, "", errors.DeadlineExceeded),
        (C.UNIMPLEMENTED, "", errors.Unimplemented),
        (C.INTERNAL, "INTERNAL", errors.Internal),
        (C.DATA_LOSS, "", errors.PointsmanError),
    ],
)
def test_code_and_reason_choose_the_exception(code: C, reason: str, kind: type[errors.PointsmanError]) -> None:
    error = error_from_status(Failure(code, reason=reason).status())
    assert type(error) is kind
    assert (error.code, error.reason) == (code, reason)


def test_keeps_all_that_the_server_tells(server: FakeServer) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="key.tenant", description="must be short")
    details = (
        error_details_pb2.BadRequest(field_violations=[violation]),
        error_details_pb2.RetryInfo(retry_delay=Duration(nanos=50_000_000)),
    )
    failure = Failure(C.UNAVAILABLE, "wait", "REVISION_NOT_REACHED", {"min_revision": "9"}, details)
    with Client(server.target, max_attempts=1) as client:
        error = raised(client, server, failure)
    assert (error.message, error.metadata, error.request_id) == ("wait", {"min_revision": "9"}, REQUEST_ID)
    assert error.violations == (errors.FieldViolation("key.tenant", "must be short"),)
    assert error.retry_delay == timedelta(milliseconds=50)


def test_a_reason_of_another_domain_is_not_ours(client: Client, server: FakeServer) -> None:
    error = raised(client, server, Failure(C.NOT_FOUND, reason="ROUTE_INACTIVE", domain="proxy.example"))
    assert type(error) is errors.NotFound
    assert error.reason == ""


def test_unreadable_details_do_not_hide_the_status(client: Client, server: FakeServer) -> None:
    error = raised(client, server, Failure(C.NOT_FOUND, trailers=(("grpc-status-details-bin", b"\xff"),)))
    assert isinstance(error, errors.NotFound)
