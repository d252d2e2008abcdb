"""The types of the interceptor chain (``chain.stages``): a stage wraps a call, unary or stream.

For a call with one request, ``request`` is that message; for a stream of requests it is an async iterator of them. The
context of a call with a stream on either side is a ``StreamContext``, through which a stage sees each message.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from pointsman_server.rpc.call import Context

CallHandler = Callable[[Any, Context], Awaitable[Any]]

# Checks one request, and raises to refuse it. Most checks are synchronous and return None.
RequestCheck = Callable[[Any, Context], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Method:
    """One method of one service."""

    service: str
    name: str
    request_streaming: bool = False
    response_streaming: bool = False

    @classmethod
    def parse(cls, path: str, *, request_streaming: bool = False, response_streaming: bool = False) -> "Method":
        """Read ``/package.Service/Method``."""
        service, _, name = path.removeprefix("/").rpartition("/")
        return cls(service, name, request_streaming, response_streaming)

    @property
    def streaming(self) -> bool:
        """Whether it has a stream on either side."""
        return self.request_streaming or self.response_streaming

    @property
    def grpc_type(self) -> str:
        """The kind of call, as go-grpc-middleware labels it."""
        return _TYPES[self.request_streaming, self.response_streaming]


_TYPES = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}

# Takes a method and the next handler; returns a handler that does the stage's part and calls the next one.
Stage = Callable[[Method, CallHandler], CallHandler]


class StreamContext:
    """Wraps the transport's context of a streaming call; stages add functions to its lists before they proceed.

    Each request passes ``received`` before the handler gets it. Each response passes ``access`` and ``sending`` before
    it is written, which may refuse the rest of the call by raising, and ``sent`` once the transport has taken it.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        # Sent before the first response.
        self.initial_metadata: tuple[tuple[str, str | bytes], ...] = ()
        self.received: list[RequestCheck] = []
        # What must hold for the call to go on, whether or not there is a response.
        self.access: list[Callable[[], Awaitable[None] | None]] = []
        self.sending: list[Callable[[], Awaitable[None] | None]] = []
        self.sent: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        """Return the next request, which has passed every check, outermost first, or ``grpc.aio.EOF``."""
        request = await self._context.read()
        if request is not grpc.aio.EOF:
            for check in self.received:
                waiting = check(request, self)  # type: ignore[arg-type]  # a ServicerContext by __getattr__
                if waiting is not None:
                    await waiting
        return request

    async def write(self, response: Any) -> None:
        """Send a response; waits until the transport has taken it."""
        if self.access:
            await self.verify()
        for do in self.sending:
            waiting = do()
            if waiting is not None:
                await waiting
        if self.initial_metadata:
            metadata, self.initial_metadata = self.initial_metadata, ()
            await self._context.send_initial_metadata(metadata)
        await self._context.write(response)
        for do in self.sent:
            do()

    async def verify(self) -> None:
        """Check that the call may go on. Raises where it may not."""
        for do in self.access:
            waiting = do()
            if waiting is not None:
                await waiting

    def end(self) -> None:
        """Forget the functions, which refer to this context: the memory of an ended stream is free at once."""
        for functions in (self.received, self.access, self.sending, self.sent):
            functions.clear()


class Requests:
    """The requests of a stream, each checked as it is read.

    They are read from the context: the iterator of grpcio keeps the last request, which may be large, until there is
    another one.
    """

    __slots__ = ("_context",)

    def __init__(self, context: StreamContext) -> None:
        self._context = context

    def __aiter__(self) -> "Requests":
        return self

    async def __anext__(self) -> Any:
        request = await self._context.read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        return request


def check_requests(method: Method, proceed: CallHandler, check: RequestCheck) -> CallHandler:
    """Make a handler that checks one request before it proceeds, and those of a stream as each is read."""

    async def handle(request: Any, context: Context) -> Any:
        waiting = check(request, context)
        if waiting is not None:
            await waiting
        return await proceed(request, context)

    # No coroutine of its own, which would be kept as long as the stream.
    def handle_stream(requests: Any, context: Any) -> Awaitable[Any]:
        context.received.append(check)
        return proceed(requests, context)

    return handle_stream if method.request_streaming else handle
