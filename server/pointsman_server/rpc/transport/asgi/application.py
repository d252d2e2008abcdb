"""The ASGI application that serves RPC methods, and passes other requests on."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from grpc import StatusCode
from starlette.types import ASGIApp, Receive, Scope, Send

from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport.asgi.headers import exceeds, first
from pointsman_server.rpc.transport.asgi.request_streams import RequestStreamMethod
from pointsman_server.rpc.transport.asgi.response_streams import ResponseStreamMethod
from pointsman_server.rpc.transport.asgi.responses import is_grpc, send_refusal
from pointsman_server.rpc.transport.asgi.unary_calls import UnaryMethod

Serve = Callable[[Scope, Receive, Send], Awaitable[None]]

UNKNOWN_METHOD = Refusal(StatusCode.UNIMPLEMENTED, "unknown method")


class OpenCalls:
    """Counts the calls that have begun and not ended."""

    def __init__(self) -> None:
        self._open = 0
        self._ended = asyncio.Event()

    async def counted(self, call: Awaitable[None]) -> None:
        """Serve a call, and count it as open meanwhile."""
        self._open += 1
        try:
            await call
        finally:
            self._open -= 1
            if not self._open:
                self._ended.set()

    async def wait(self) -> None:
        """Wait until no call is open."""
        while self._open:
            self._ended.clear()
            await self._ended.wait()


class AsgiServer:
    """Serves the methods of the servicers that are added to it, as generated code adds them to a ``grpc.Server``.

    ``message_bytes`` and ``metadata_bytes`` bound a request; ``patience`` is how many seconds it may take to arrive.
    ``others`` serves requests that are not gRPC.
    """

    def __init__(
        self,
        interceptor: Interceptor,
        *,
        message_bytes: int,
        metadata_bytes: int,
        patience: float,
        others: ASGIApp,
    ) -> None:
        self._interceptor = interceptor
        self._message_bytes = message_bytes
        self._metadata_bytes = metadata_bytes
        self._patience = patience
        self._others = others
        self._too_much_metadata = Refusal(
            StatusCode.RESOURCE_EXHAUSTED, f"the metadata is larger than {metadata_bytes} bytes"
        )
        self._methods: dict[str, Serve] = {}
        self._open = OpenCalls()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Ignore what ``add_registered_method_handlers`` gets too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Serve the methods of ``service``, by name."""
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            self._methods[path] = self._serve(self._interceptor.wrap(path, handler))

    def _serve(self, handler: Any) -> Serve:
        if handler.request_streaming:
            return RequestStreamMethod(handler, self._message_bytes)
        if handler.response_streaming:
            return ResponseStreamMethod(handler, self._message_bytes, self._patience)
        return UnaryMethod(handler, self._message_bytes, self._patience)

    # A call returns a coroutine without being one, which spares one for each call; pyvoy else takes it for ASGI 2.
    _asgi_single_callable = True

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        return self._open.counted(self._response(scope, receive, send))

    async def finished(self) -> None:
        """Wait until the calls that are open now have given their responses to the transport.

        Calls that begin later are not waited for: under load there would always be one.
        """
        begun, self._open = self._open, OpenCalls()
        await begun.wait()

    def _response(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        headers = scope["headers"]
        if not is_grpc(first(headers, b"content-type")):
            return self._others(scope, receive, send)
        method = self._methods.get(scope["path"])
        if method is None:
            return send_refusal(send, UNKNOWN_METHOD)
        if exceeds(headers, self._metadata_bytes):
            return send_refusal(send, self._too_much_metadata)
        return method(scope, receive, send)
