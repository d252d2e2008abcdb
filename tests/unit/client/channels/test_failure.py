"""A call that has no backend looks like a call of gRPC that has failed."""

import grpc
import pytest

from pointsman.channels.failure import REASON_KEY, NoBackend
from pointsman.errors import PermissionDenied, PointsmanError, RouteInactive

KEY = "team-a/payments/prod/v1"
INACTIVE = RouteInactive(f"route {KEY} is not active: activate it first", reason="ROUTE_INACTIVE")


def failed(error: PointsmanError = INACTIVE) -> NoBackend:
    return NoBackend(KEY, error)


def test_it_says_why() -> None:
    error = failed()
    assert isinstance(error, grpc.RpcError)
    assert isinstance(error, grpc.Call)
    assert (error.code(), error.details()) == (
        grpc.StatusCode.NOT_FOUND,
        f"pointsman {KEY}: route {KEY} is not active: activate it first",
    )
    assert error.trailing_metadata() == ((REASON_KEY, "ROUTE_INACTIVE"),)
    assert (error.initial_metadata(), error.__cause__) == ((), INACTIVE)
    assert error.args == (error.details(),)
    assert "NOT_FOUND" in str(error)
    assert "activate it first" in repr(error)


def test_without_a_reason_it_names_the_code() -> None:
    assert failed(PermissionDenied("no")).trailing_metadata() == ((REASON_KEY, "PERMISSION_DENIED"),)


def test_it_is_over() -> None:
    call = failed()
    assert (call.done(), call.running(), call.is_active(), call.cancelled(), call.cancel()) == (
        True,
        False,
        False,
        False,
        False,
    )
    assert (call.time_remaining(), call.add_callback(lambda: None), call.traceback()) == (None, False, None)
    told: list[object] = []
    call.add_done_callback(told.append)
    assert told == [call]


def test_its_result_is_the_error() -> None:
    call = failed()
    assert call.exception() is call
    for get in (call.result, lambda: list(call), lambda: next(call)):
        with pytest.raises(NoBackend) as raised:
            get()
        assert raised.value is call
