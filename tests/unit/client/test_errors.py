"""errors: the tree, and what an exception holds."""

import pickle
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from pointsman import errors


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        (errors.RouteNotFound, errors.NotFound),
        (errors.RouteInactive, errors.NotFound),
        (errors.RouteExists, errors.Conflict),
        (errors.RevisionMismatch, errors.Conflict),
        (errors.RequestIdReused, errors.InvalidArgument),
        (errors.InvalidArgument, ValueError),
        (errors.RevisionNotReached, errors.Unavailable),
        (errors.Unavailable, errors.PointsmanError),
        (errors.NoActiveVersion, errors.NotFound),
        (errors.TrafficNotFound, errors.NotFound),
        (errors.ChangedSince, errors.Conflict),
        (errors.EpochChanged, errors.Conflict),
        (errors.RevisionCompacted, errors.InvalidArgument),
        (errors.RevisionInFuture, errors.InvalidArgument),
        (errors.RouteInUse, errors.FailedPrecondition),
        (errors.UsageNotCounted, errors.FailedPrecondition),
        (errors.UsageUnavailable, errors.Unavailable),
    ],
)
def test_a_handler_of_the_parent_catches_the_child(child: type[Exception], parent: type[Exception]) -> None:
    assert issubclass(child, parent)


def test_reads_well_in_a_log() -> None:
    error = errors.RouteNotFound("no route a/b/c/d", reason="ROUTE_NOT_FOUND", request_id="4bf9")
    assert str(error) == "no route a/b/c/d (ROUTE_NOT_FOUND, request 4bf9)"


def test_names_the_code_when_there_is_no_reason() -> None:
    assert str(errors.Unavailable("connection refused")) == "connection refused (UNAVAILABLE)"


def test_has_the_code_of_its_class_unless_told_otherwise() -> None:
    assert errors.RouteExists("taken").code is grpc.StatusCode.ALREADY_EXISTS
    assert errors.Conflict("taken", code=grpc.StatusCode.ALREADY_EXISTS).code is grpc.StatusCode.ALREADY_EXISTS


def test_survives_the_way_to_another_process() -> None:
    error = errors.Unavailable("later", reason="STORE_UNAVAILABLE", retry_delay=timedelta(seconds=1))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(copy), copy.message, copy.reason, copy.retry_delay) == (
        errors.Unavailable,
        "later",
        "STORE_UNAVAILABLE",
        timedelta(seconds=1),
    )


def test_names_the_versions_between_which_nobody_can_choose() -> None:
    assert errors.AmbiguousVersion("", metadata={"versions": "v1,v2,…"}).versions == ("v1", "v2")
    assert errors.NoActiveVersion("", metadata={"versions": ""}).versions == ()
    assert errors.TargetNotFound("", metadata={"versions": "v9"}).versions == ("v9",)


def test_names_who_reads_a_route_and_when_last() -> None:
    error = errors.RouteInUse(
        "", metadata={"readers": "cart 2026-11-20T14:00:03Z, of shop, Inc 2026-11-20T13:59:00.5Z"}
    )
    assert error.readers == (
        errors.LastRead("cart", datetime(2026, 11, 20, 14, 0, 3, tzinfo=UTC)),
        errors.LastRead("of shop, Inc", datetime(2026, 11, 20, 13, 59, 0, 500_000, tzinfo=UTC)),
    )
    assert errors.RouteInUse("").readers == ()


def test_has_numbers_as_numbers() -> None:
    assert errors.RouteInTraffic("", metadata={"traffic_revision": "17"}).traffic_revision == 17
    assert errors.RevisionInFuture("", metadata={"last_revision": "42"}).last_revision == 42
    assert errors.RevisionCompacted("", metadata={"oldest_revision": "many"}).oldest_revision == 0
    assert errors.ChangedSince("", metadata={"count": "20"}).count == 20


def test_names_the_mutations_of_a_commit_that_were_refused() -> None:
    violations = [
        errors.FieldViolation("mutations[3]", "ROUTE_EXISTS: route a/b/c/d exists: update it instead"),
        errors.FieldViolation("mutations[7].create.url", "must be absolute"),
        errors.FieldViolation("reason", "is too long"),
    ]
    assert errors.RouteExists("", violations=violations).refusals == (
        errors.Refusal(3, "ROUTE_EXISTS", "route a/b/c/d exists: update it instead"),
        errors.Refusal(7, "INVALID_FIELD", "create.url: must be absolute"),
    )
