"""Applies the chain to the handlers of a gRPC server."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc

from pointsman_server.rpc.fastpath.handler import FastMethod
from pointsman_server.rpc.interceptors.chain import stream_through, through
from pointsman_server.rpc.interceptors.stage import Method, Stage
from pointsman_server.rpc.interceptors.validation import tolerant


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps each method in the stages once, at its first call. grpcio asks its interceptors again for each call.

    A method in ``fast_methods`` tries the fast path before the stages.
    """

    def __init__(self, stages: Iterable[Stage], fast_methods: Mapping[Method, FastMethod] | None = None) -> None:
        self._stages = tuple(stages)
        self._fast_methods = fast_methods or {}
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the method's handler, wrapped in every stage."""
        path = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[path] = self.wrap(path, handler)
        return wrapped

    def wrap(self, path: str, handler: Any) -> Any:
        """Return an RpcMethodHandler that passes the stages before ``handler``."""
        method = Method.parse(
            path, request_streaming=handler.request_streaming, response_streaming=handler.response_streaming
        )
        parse, encode = tolerant(handler.request_deserializer), handler.response_serializer
        if method.streaming:
            kind = f"{_cardinality(method.request_streaming)}_{_cardinality(method.response_streaming)}"
            behaviour = stream_through(self._stages, method, getattr(handler, kind))
            return getattr(grpc, f"{kind}_rpc_method_handler")(behaviour, parse, _or_encoded(encode))
        unary = through(self._stages, method, handler.unary_unary)
        fast = self._fast_methods.get(method)
        if fast:
            return grpc.unary_unary_rpc_method_handler(fast.before(unary, parse, encode))
        return grpc.unary_unary_rpc_method_handler(unary, parse, encode)


def _or_encoded(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Pass bytes on: a response that many streams send is encoded once."""
    return lambda response: response if isinstance(response, bytes) else encode(response)


def _cardinality(streaming: bool) -> str:
    return "stream" if streaming else "unary"
