"""How the chain is applied to the handlers of a gRPC server."""

from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.rpc.interceptors.stage import CallHandler, Method
from pointsman_server.rpc.interceptors.validation import Malformed
from tests.support.call_context import CallContext

PATH = f"/{SERVICE}/Get"


class Stages:
    """One stage, which records the methods it wraps and the requests it sees."""

    def __init__(self) -> None:
        self.methods: list[Method] = []
        self.requests: list[Any] = []

    def stage(self, method: Method, proceed: CallHandler) -> CallHandler:
        self.methods.append(method)

        async def handle(request: Any, context: Any) -> Any:
            self.requests.append(request)
            return await proceed(request, context)

        return handle


@pytest.fixture
def stages() -> Stages:
    return Stages()


async def get(request: Any, _context: Any) -> Any:
    return request


def handler_of_get() -> Any:
    return grpc.unary_unary_rpc_method_handler(
        get, request_deserializer=pb.GetRequest.FromString, response_serializer=pb.GetRequest.SerializeToString
    )


async def intercept(interceptor: Interceptor, handler: Any, path: str = PATH) -> Any:
    async def continuation(_details: Any) -> Any:
        return handler

    return await interceptor.intercept_service(continuation, SimpleNamespace(method=path))


async def test_a_method_is_wrapped_once_and_its_calls_pass_the_stages(stages: Stages) -> None:
    interceptor = Interceptor([stages.stage])
    first = await intercept(interceptor, handler_of_get())

    assert await intercept(interceptor, handler_of_get()) is first
    assert stages.methods == [Method(SERVICE, "Get")]
    request = pb.GetRequest()
    assert await first.unary_unary(request, CallContext()) is request
    assert stages.requests == [request]


async def test_an_unknown_method_stays_unknown(stages: Stages) -> None:
    assert await intercept(Interceptor([stages.stage]), None) is None
    assert stages.methods == []


async def test_bytes_that_cannot_be_parsed_reach_the_stages(stages: Stages) -> None:
    handler = await intercept(Interceptor([stages.stage]), handler_of_get())

    assert isinstance(handler.request_deserializer(b"\xff"), Malformed)
    assert handler.request_deserializer(b"") == pb.GetRequest()


@pytest.mark.parametrize(("requests", "responses"), [(True, False), (False, True), (True, True)])
async def test_a_stream_keeps_its_kind(stages: Stages, requests: bool, responses: bool) -> None:
    kind = f"{'stream' if requests else 'unary'}_{'stream' if responses else 'unary'}"
    handler = getattr(grpc, f"{kind}_rpc_method_handler")(get, pb.GetRequest.FromString)
    wrapped = Interceptor([stages.stage]).wrap(PATH, handler)

    assert (wrapped.request_streaming, wrapped.response_streaming) == (requests, responses)
    assert getattr(wrapped, kind) is not None
    assert stages.methods == [Method(SERVICE, "Get", requests, responses)]


async def test_the_fast_path_gets_the_bytes_before_the_stages(stages: Stages) -> None:
    class Fast:
        def before(self, proceed: CallHandler, parse: Any, encode: Any) -> CallHandler:
            async def handle(request: Any, context: Any) -> Any:
                return b"fast" if request == b"fast" else encode(await proceed(parse(request), context))

            return handle

    wrapped = Interceptor([stages.stage], {Method(SERVICE, "Get"): cast("Any", Fast())}).wrap(PATH, handler_of_get())

    assert wrapped.request_deserializer is None
    assert await wrapped.unary_unary(b"fast", CallContext()) == b"fast"
    assert stages.requests == []
    assert await wrapped.unary_unary(b"", CallContext()) == b""
    assert stages.requests == [pb.GetRequest()]
