"""The status that a caller gets for each kind of error."""

from typing import Any, cast

import grpc
import pytest

from pointsman_server.domain.errors import RouteNotFound, ShuttingDown
from pointsman_server.rpc.call import begin_call
from pointsman_server.rpc.interceptors.errors import translate
from pointsman_server.rpc.interceptors.stage import Method


class Context:
    """Remembers how a call is ended."""

    def __init__(self, code: Any = None) -> None:
        self.status: tuple[grpc.StatusCode, str] | None = None
        self.trailers: dict[str, Any] = {}
        self._code = code

    def invocation_metadata(self) -> Any:
        return (("x-request-id", "from-me"),)

    def code(self) -> Any:
        return self._code

    def set_trailing_metadata(self, trailers: Any) -> None:
        self.trailers = dict(trailers)

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.status = (code, details)
        raise grpc.aio.AbortError


async def ended(error: BaseException, context: Context) -> Context:
    async def fail(_request: Any, _context: Any) -> None:
        raise error

    begin_call(cast("Any", context))
    with pytest.raises(grpc.aio.AbortError):
        await translate()(Method("a", "b"), fail)(None, cast("Any", context))
    return context


async def test_an_error_of_the_domain_has_its_status() -> None:
    context = await ended(RouteNotFound("a/b/c/d", 7, "epoch"), Context())

    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.NOT_FOUND
    assert context.trailers["x-request-id"] == "from-me"
    assert b"ROUTE_NOT_FOUND" in context.trailers["grpc-status-details-bin"]


async def test_pushback_is_sent_with_what_may_be_retried() -> None:
    context = await ended(ShuttingDown(), Context())

    assert "grpc-retry-pushback-ms" in context.trailers


async def test_a_bug_shows_nothing_of_its_cause() -> None:
    context = await ended(RuntimeError("canary"), Context())

    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.INTERNAL
    assert "canary" not in repr((context.status, context.trailers))


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNIMPLEMENTED.value[0]])
async def test_a_method_that_a_servicer_lacks_is_unimplemented(code: Any) -> None:
    # What generated servicers do, and grpcio gives codes back as numbers.
    context = await ended(NotImplementedError("Method not implemented!"), Context(code))

    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_what_a_handler_forgot_to_implement_is_a_bug() -> None:
    context = await ended(NotImplementedError("canary"), Context())

    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.INTERNAL


async def test_a_call_that_the_handler_ended_stays_as_it_is() -> None:
    context = await ended(grpc.aio.AbortError(), Context())

    assert context.status is None
