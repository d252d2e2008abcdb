"""What a stub of asyncio calls: the four kinds of method, each call at the backend that is live.

Calls are gRPC's own where the near-cache can say at once where they go.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import grpc
import grpc.aio

from pointsman.channels.aio.calls import (
    PendingCall,
    PendingStreamStream,
    PendingStreamUnary,
    PendingUnaryStream,
    PendingUnaryUnary,
    failing,
)
from pointsman.channels.aio.dispatch import AsyncDispatch, Started
from pointsman.channels.dispatch import callable_of

Make = Callable[[grpc.aio.Channel], Any]
"""Makes what calls the method at one backend."""
Rest = tuple[Any, bool | None, Any]
"""The credentials of a call, whether it waits for a connection, and its compression."""


class _Method:
    """A method of a channel."""

    pending: ClassVar[type[PendingCall]]

    def __init__(self, dispatch: AsyncDispatch, make: Make) -> None:
        self._dispatch = dispatch
        self._make = make

    def _start(self, request: Any, timeout: float | None, metadata: Any, rest: Rest) -> Any:
        try:
            started = self._dispatch.begin_now(timeout, metadata)
        except grpc.aio.AioRpcError as error:
            return self.pending(failing(error), timeout)
        if started is not None:
            return self._open(started, request, metadata, rest)
        return self.pending(self._ask(request, timeout, metadata, rest), timeout)

    async def _ask(self, request: Any, timeout: float | None, metadata: Any, rest: Rest) -> Any:  # noqa: ASYNC109 - of the call
        return self._open(await self._dispatch.begin(timeout, metadata), request, metadata, rest)

    def _open(self, started: Started, request: Any, metadata: Any, rest: Rest) -> Any:
        backend, timeout = started
        try:
            method = callable_of(backend, self, self._make)
            credentials, wait_for_ready, compression = rest
            call = method(
                request,
                timeout=timeout,
                metadata=metadata,
                credentials=credentials,
                wait_for_ready=wait_for_ready,
                compression=compression,
            )
            call.add_done_callback(lambda _: self._dispatch.end(backend))
        except BaseException:
            self._dispatch.end(backend)
            raise
        return call


class UnaryUnary(_Method, grpc.aio.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """One request, one response."""

    pending = PendingUnaryUnary

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._start(request, timeout, metadata, (credentials, wait_for_ready, compression))


class UnaryStream(_Method, grpc.aio.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """One request, a stream of responses."""

    pending = PendingUnaryStream

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._start(request, timeout, metadata, (credentials, wait_for_ready, compression))


class StreamUnary(_Method, grpc.aio.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """A stream of requests, one response."""

    pending = PendingStreamUnary

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._start(request_iterator, timeout, metadata, (credentials, wait_for_ready, compression))


class StreamStream(_Method, grpc.aio.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """A stream of requests, a stream of responses."""

    pending = PendingStreamStream

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._start(request_iterator, timeout, metadata, (credentials, wait_for_ready, compression))
