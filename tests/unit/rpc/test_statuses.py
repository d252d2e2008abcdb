"""Every error of the domain is on the wire what the table says, with the details of AIP-193."""

import ast
import inspect
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

import pointsman_server
from pointsman.v1 import error_reason_pb2
from pointsman_server.domain import access_errors, errors
from pointsman_server.domain.errors import FieldViolation, PointsmanError, RetryLater
from pointsman_server.rpc.statuses import CODES, INTERNAL_TEXT, code_of, internal, status_of

EXAMPLES: list[tuple[PointsmanError, grpc.StatusCode, dict[str, str]]] = [
    (errors.InvalidField([FieldViolation("url", "is bad")]), grpc.StatusCode.INVALID_ARGUMENT, {}),
    (errors.MalformedRequest(), grpc.StatusCode.INVALID_ARGUMENT, {}),
    (errors.RequestIdReused("id"), grpc.StatusCode.INVALID_ARGUMENT, {"request_id": "id"}),
    (
        access_errors.Unauthenticated("bearer token", "expired", "the bearer token has expired: get a new one"),
        grpc.StatusCode.UNAUTHENTICATED,
        {"credential": "bearer token", "problem": "expired"},
    ),
    (
        access_errors.Forbidden("jwt:alice", "routes.write", "team-b", "prod"),
        grpc.StatusCode.PERMISSION_DENIED,
        {"permission": "routes.write", "tenant": "team-b", "env": "prod"},
    ),
    (errors.RouteNotFound("a/b/c/d", 7), grpc.StatusCode.NOT_FOUND, {"key": "a/b/c/d", "revision": "7"}),
    (
        errors.RouteNotFound("a/b/c/d", 7, "0b7e"),
        grpc.StatusCode.NOT_FOUND,
        {"key": "a/b/c/d", "revision": "7", "epoch": "0b7e"},
    ),
    (errors.RouteInactive("a/b/c/d", 7), grpc.StatusCode.NOT_FOUND, {"key": "a/b/c/d", "revision": "7"}),
    (errors.RouteExists("a/b/c/d", 7), grpc.StatusCode.ALREADY_EXISTS, {"key": "a/b/c/d", "revision": "7"}),
    (errors.RoutesExist([FieldViolation("routes[1].key", "exists")]), grpc.StatusCode.ALREADY_EXISTS, {}),
    (
        errors.RevisionMismatch("a/b/c/d", 5, 7),
        grpc.StatusCode.ABORTED,
        {"key": "a/b/c/d", "expected_revision": "5", "revision": "7"},
    ),
    (errors.RevisionsMismatch([FieldViolation("routes[1].expected_revision", "is 5")]), grpc.StatusCode.ABORTED, {}),
    (errors.Overloaded("store_loads"), grpc.StatusCode.RESOURCE_EXHAUSTED, {"limit": "store_loads"}),
    (errors.ResponseTooLarge(), grpc.StatusCode.RESOURCE_EXHAUSTED, {}),
    (access_errors.RateLimited("tenant.writes", 0.25), grpc.StatusCode.RESOURCE_EXHAUSTED, {"limit": "tenant.writes"}),
    (errors.ShuttingDown(), grpc.StatusCode.UNAVAILABLE, {}),
    (access_errors.AccessUnavailable("the policy"), grpc.StatusCode.UNAVAILABLE, {"what": "the policy"}),
    (errors.StoreUnavailable(), grpc.StatusCode.UNAVAILABLE, {}),
    (errors.StoreRestored(), grpc.StatusCode.UNAVAILABLE, {}),
    (errors.RevisionCompacted(7), grpc.StatusCode.OUT_OF_RANGE, {"revision": "7"}),
    (errors.EpochChanged("0b7e", "1c8f"), grpc.StatusCode.ABORTED, {"resume_epoch": "0b7e", "epoch": "1c8f"}),
    (
        errors.AmbiguousVersion("a/b/c", ["v1", "v2"], 7, "0b7e"),
        grpc.StatusCode.FAILED_PRECONDITION,
        {"key": "a/b/c", "versions": "v1,v2", "revision": "7", "epoch": "0b7e"},
    ),
    (
        errors.NoActiveVersion("a/b/c", ["v1"], 7),
        grpc.StatusCode.NOT_FOUND,
        {"key": "a/b/c", "versions": "v1", "revision": "7"},
    ),
    (errors.TrafficNotFound("a/b/c", 7), grpc.StatusCode.NOT_FOUND, {"key": "a/b/c", "revision": "7"}),
    (
        errors.TargetNotFound("a/b/c", ["v9"]),
        grpc.StatusCode.FAILED_PRECONDITION,
        {"key": "a/b/c", "versions": "v9"},
    ),
    (
        errors.RouteInTraffic("a/b/c/d", 7),
        grpc.StatusCode.FAILED_PRECONDITION,
        {"key": "a/b/c/d", "traffic_revision": "7"},
    ),
    (
        errors.RouteInUse("a/b/c/d", ["cart 2026-11-20T14:00:03Z"]),
        grpc.StatusCode.FAILED_PRECONDITION,
        {"key": "a/b/c/d", "readers": "cart 2026-11-20T14:00:03Z"},
    ),
    (errors.UsageNotCounted(600), grpc.StatusCode.FAILED_PRECONDITION, {"window": "600s"}),
    (errors.UsageUnavailable(), grpc.StatusCode.UNAVAILABLE, {}),
    (
        errors.ChangedSince([FieldViolation("a/b/c/d", "by alice")], "a/b/c/d", 7, 1),
        grpc.StatusCode.ABORTED,
        {"key": "a/b/c/d", "revision": "7", "count": "1"},
    ),
    (
        errors.HistoryCompacted(7, 9),
        grpc.StatusCode.OUT_OF_RANGE,
        {"revision": "7", "oldest_revision": "9"},
    ),
    (
        errors.TimeInFuture(datetime(2026, 11, 20, 15, tzinfo=UTC), datetime(2026, 11, 20, 14, tzinfo=UTC)),
        grpc.StatusCode.OUT_OF_RANGE,
        {"time": "2026-11-20T15:00:00Z", "now": "2026-11-20T14:00:00Z"},
    ),
    (errors.RevisionInFuture(9, 7), grpc.StatusCode.OUT_OF_RANGE, {"revision": "9", "last_revision": "7"}),
    (errors.RevisionNotReached(9, 7), grpc.StatusCode.UNAVAILABLE, {"min_revision": "9", "revision": "7"}),
]
examples = pytest.mark.parametrize(("error", "code", "metadata"), EXAMPLES, ids=lambda value: type(value).__name__)


def concrete(kind: type[PointsmanError]) -> set[type[PointsmanError]]:
    """Everything of the domain under ``kind`` that can be raised: it has a reason."""
    of_domain = kind.__module__.startswith("pointsman_server.domain.")
    found = {kind} if of_domain and hasattr(kind, "reason") else set()
    return found.union(*(concrete(child) for child in kind.__subclasses__()))


def details(status: status_pb2.Status) -> dict[str, Message]:
    """Unpack the details by the name of their type."""
    found: dict[str, Message] = {}
    kinds = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_details_pb2.RequestInfo,
    )
    for packed in status.details:
        kind = next(kind for kind in kinds if packed.Is(kind.DESCRIPTOR))
        message = kind()
        assert packed.Unpack(message)
        assert kind.__name__ not in found
        found[kind.__name__] = message
    return found


def info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    found = details(status)["ErrorInfo"]
    assert isinstance(found, error_details_pb2.ErrorInfo)
    return found


def test_every_error_of_the_domain_is_in_the_table_and_nothing_else() -> None:
    assert set(CODES) == concrete(PointsmanError)


def test_every_error_of_the_domain_has_an_example_here() -> None:
    assert {type(error) for error, _, _ in EXAMPLES} == concrete(PointsmanError)


def test_every_reason_is_one_of_the_proto() -> None:
    reasons = {kind.reason for kind in concrete(PointsmanError)} | {info(internal("id")).reason}
    assert {f"ERROR_REASON_{reason}" for reason in reasons} <= set(error_reason_pb2.ErrorReason.keys())


def test_errors_are_raised_only_in_their_concrete_kinds() -> None:
    """An abstract one has no reason and no code."""
    abstract = {"PointsmanError", "RetryLater"}
    for file in Path(inspect.getfile(pointsman_server)).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                assert getattr(node.exc.func, "id", "") not in abstract, file


@examples
def test_an_error_has_the_code_of_the_table(
    error: PointsmanError, code: grpc.StatusCode, metadata: dict[str, str]
) -> None:
    assert code_of(error) is code
    assert status_of(error).code == code_pb2.Code.Value(code.name) == code.value[0]


@examples
def test_the_text_is_the_message_of_the_error(
    error: PointsmanError, code: grpc.StatusCode, metadata: dict[str, str]
) -> None:
    assert status_of(error).message == error.message == str(error) != ""


@examples
def test_the_first_detail_is_an_error_info_with_reason_domain_and_metadata(
    error: PointsmanError, code: grpc.StatusCode, metadata: dict[str, str]
) -> None:
    status = status_of(error)
    assert status.details[0].Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    found = info(status)
    assert (found.reason, found.domain, dict(found.metadata)) == (error.reason, "pointsman.v1", metadata)


@examples
def test_retry_info_comes_with_what_may_pass_and_with_nothing_else(
    error: PointsmanError, code: grpc.StatusCode, metadata: dict[str, str]
) -> None:
    found = details(status_of(error)).get("RetryInfo")
    if not isinstance(error, RetryLater):
        assert found is None
        return
    assert isinstance(found, error_details_pb2.RetryInfo)
    assert found.retry_delay.ToTimedelta() == timedelta(seconds=error.retry_delay) > timedelta(0)


def test_only_what_a_client_may_retry_by_itself_is_unavailable() -> None:
    unavailable = {kind for kind, code in CODES.items() if code is grpc.StatusCode.UNAVAILABLE}
    assert unavailable == {
        access_errors.AccessUnavailable,
        errors.StoreUnavailable,
        errors.StoreRestored,
        errors.RevisionNotReached,
        errors.ShuttingDown,
        errors.UsageUnavailable,
    }


def test_every_malformed_field_is_named_with_its_rule() -> None:
    violations = [FieldViolation("key.tenant", "must be short"), FieldViolation("url", "must be absolute")]
    status = status_of(errors.InvalidField(violations))
    found = details(status)["BadRequest"]
    assert isinstance(found, error_details_pb2.BadRequest)
    assert [(each.field, each.description) for each in found.field_violations] == [
        ("key.tenant", "must be short"),
        ("url", "must be absolute"),
    ]
    assert status.message == "key.tenant: must be short; url: must be absolute"


def test_a_bug_is_internal_with_a_fixed_text_and_the_request_id() -> None:
    status = internal("4bf92f35")
    assert (status.code, status.message) == (code_pb2.INTERNAL, INTERNAL_TEXT)
    assert info(status).reason == "INTERNAL"
    assert dict(info(status).metadata) == {"x-request-id": "4bf92f35"}
    assert list(details(status)) == ["ErrorInfo", "RequestInfo"]


def test_the_cause_of_an_error_never_reaches_the_caller() -> None:
    error = errors.StoreUnavailable()
    error.__cause__ = OSError("password=SECRET")
    assert b"SECRET" not in status_of(error).SerializeToString()


def test_the_metadata_of_an_error_is_its_own() -> None:
    given = {"limit": "x"}
    error = PointsmanError("text", given)
    given["limit"] = "y"
    assert error.metadata == {"limit": "x"}
