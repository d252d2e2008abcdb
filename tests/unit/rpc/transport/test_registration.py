"""rpc.transport.registration: handlers of grpcio from plain functions."""

from typing import Any

import grpc
import pytest

from pointsman_server.rpc.transport.registration import Behaviour, register, unimplemented


class Recorder:
    """Stands for a server: keeps what is registered."""

    def __init__(self) -> None:
        self.generic: list[Any] = []
        self.registered: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        self.generic += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        self.registered[service] = handlers


async def do(request: Any, _context: Any) -> Any:
    return request


@pytest.mark.parametrize("streaming", [True, False])
def test_a_method_is_unary_or_has_streams_on_both_sides(streaming: bool) -> None:
    handler = Behaviour(do, bytes.decode, str.encode, streaming=streaming).handler()
    assert (handler.request_streaming, handler.response_streaming) == (streaming, streaming)
    assert (handler.stream_stream if streaming else handler.unary_unary) is do
    assert handler.request_deserializer(b"a") == "a"
    assert handler.response_serializer("a") == b"a"


def test_a_service_is_registered_by_both_ways_of_grpcio() -> None:
    server = Recorder()
    register(server, "a.Service", {"Do": Behaviour(do, bytes.decode)})
    assert list(server.registered) == ["a.Service"]
    (generic,) = server.generic
    assert isinstance(generic, grpc.ServiceRpcHandler)
    assert generic.service_name() == "a.Service"
    assert list(server.registered["a.Service"]) == ["Do"]


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_method_that_is_not_served_says_what_is(streaming: bool) -> None:
    class Context:
        async def abort(self, code: grpc.StatusCode, text: str) -> None:
            raise LookupError(code, text)

    method = unimplemented("call another one", streaming=streaming)
    assert method.handler().request_streaming is streaming
    with pytest.raises(LookupError) as raised:
        await method.do(None, Context())
    assert raised.value.args == (grpc.StatusCode.UNIMPLEMENTED, "call another one")
