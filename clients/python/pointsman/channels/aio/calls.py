"""Calls that are not open yet: while the server is asked which URL is live, or because none is.

Each behaves as the call of gRPC that it becomes, or as one that has failed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import grpc
import grpc.aio

DoneCallback = Callable[[Any], None]


class PendingCall(grpc.aio.Call):
    """What all kinds of call have."""

    def __init__(self, opening: Awaitable[Any], timeout: float | None) -> None:
        """``opening`` returns the call once there is one, or raises AioRpcError."""
        self._loop = asyncio.get_running_loop()
        self._opening: asyncio.Future[Any] = asyncio.ensure_future(opening)
        self._opening.add_done_callback(_take_note_of_failure)
        self._ends_at = None if timeout is None else self._loop.time() + timeout

    def cancelled(self) -> bool:
        return self._opening.cancelled() or (self._is_open() and bool(self._opened.cancelled()))

    def done(self) -> bool:
        return self._opening.done() and (not self._is_open() or bool(self._opened.done()))

    def time_remaining(self) -> float | None:
        if self._is_open():
            remaining: float | None = self._opened.time_remaining()
            return remaining
        return None if self._ends_at is None else max(0.0, self._ends_at - self._loop.time())

    def cancel(self) -> bool:
        return bool(self._opened.cancel()) if self._is_open() else self._opening.cancel()

    def add_done_callback(self, callback: DoneCallback) -> None:
        def on_opened(_: object) -> None:
            if self._is_open():
                self._opened.add_done_callback(lambda _: callback(self))
            else:
                callback(self)

        self._opening.add_done_callback(on_opened)

    async def initial_metadata(self) -> Any:
        return await self._or_of_failure("initial_metadata", grpc.aio.Metadata())

    async def trailing_metadata(self) -> Any:
        return await self._or_of_failure("trailing_metadata", grpc.aio.Metadata())

    async def code(self) -> Any:
        return await self._or_of_failure("code", grpc.StatusCode.CANCELLED)

    async def details(self) -> Any:
        return await self._or_of_failure("details", "Locally cancelled by application!")  # as gRPC says it

    async def wait_for_connection(self) -> None:
        await (await self._call()).wait_for_connection()

    @property
    def _opened(self) -> Any:
        return self._opening.result()

    def _is_open(self) -> bool:
        return self._opening.done() and not self._opening.cancelled() and self._opening.exception() is None

    async def _call(self) -> Any:
        """Return the call of gRPC. Who is cancelled while waiting for a call cancels it, as with gRPC."""
        try:
            return await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            self._opening.cancel()
            raise

    async def _or_of_failure(self, name: str, if_cancelled: Any) -> Any:
        await asyncio.wait([self._opening])
        if self._opening.cancelled():
            return if_cancelled
        failure = self._opening.exception()
        if isinstance(failure, grpc.aio.AioRpcError):
            return getattr(failure, name)()
        return await getattr(self._opened, name)()


class _WithResponse(PendingCall):
    def __await__(self) -> Generator[Any, None, Any]:
        return self._response().__await__()

    async def _response(self) -> Any:
        return await (await self._call())


class _WithResponses(PendingCall):
    def __aiter__(self) -> AsyncIterator[Any]:
        return self._responses()

    async def _responses(self) -> AsyncIterator[Any]:
        async for response in await self._call():
            yield response

    async def read(self) -> Any:
        return await (await self._call()).read()


class _WithRequests(PendingCall):
    async def write(self, request: Any) -> None:
        await (await self._call()).write(request)

    async def done_writing(self) -> None:
        await (await self._call()).done_writing()


class PendingUnaryUnary(_WithResponse, grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]
    """One request, one response."""


class PendingUnaryStream(_WithResponses, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]
    """One request, a stream of responses."""


class PendingStreamUnary(_WithRequests, _WithResponse, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    """A stream of requests, one response."""


class PendingStreamStream(_WithRequests, _WithResponses, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    """A stream of requests, a stream of responses."""


async def failing(error: BaseException) -> Any:
    """Open no call."""
    raise error


def _take_note_of_failure(opening: "asyncio.Future[Any]") -> None:
    """Read the exception, so that asyncio does not log a failure of a call that nobody awaits."""
    if not opening.cancelled():
        opening.exception()
