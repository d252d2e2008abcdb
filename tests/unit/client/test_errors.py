"""errors: the tree, and what an exception holds."""

import pickle
from datetime import timedelta

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
