"""Admits or refuses calls. A drain refuses new calls, ends streams, and waits for the handlers of open calls.

The responses of the last calls may still have to be written then: each transport waits for that in its own way.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from pointsman_server.domain.errors import Overloaded, ShuttingDown
from pointsman_server.rpc import HEALTH
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, Stage

# A drain ends streams one after another, so that their clients do not all reconnect at once: within this share of the
# time it has, and no further apart than this many seconds.
STREAMS_SHARE = 0.8
STREAM_PAUSE_SECONDS = 0.05


class Admission:
    """Counts open calls; refuses new ones beyond ``most`` (0 is no limit) or once closed.

    Streams have their own limit of the same size, so that long streams do not use up the limit of unary calls.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._open = 0
        self._streams: set[asyncio.Timeout] = set()
        self._closed = False
        self._idle = asyncio.Event()

    def enter(self) -> None:
        """Count a call that begins."""
        self._open += 1
        self._idle.clear()

    def leave(self) -> None:
        """Count a call that ended."""
        self._open -= 1
        if not self._open:
            self._idle.set()

    @property
    def closed(self) -> bool:
        """Whether every new call is refused, because the server drains."""
        return self._closed

    @property
    def full(self) -> bool:
        """Whether one unary call more would exceed the limit."""
        return 0 < self._most <= self._open - len(self._streams)

    def check(self) -> None:
        """Check a unary call that has entered. Raises ShuttingDown once closed, Overloaded beyond the limit."""
        if self._closed:
            raise ShuttingDown
        if self._open - len(self._streams) > self._most > 0:
            raise Overloaded("concurrent_calls")

    def stream(self) -> "_OpenStream":
        """Keep a stream open until its work or the drain ends it. Raises ShuttingDown, and Overloaded."""
        if self._closed:
            raise ShuttingDown
        if len(self._streams) >= self._most > 0:
            raise Overloaded("concurrent_streams")
        return _OpenStream(self._streams)

    async def close(self, patience: float) -> None:
        """Refuse new calls, end streams, and wait up to ``patience`` seconds for the end of all open calls."""
        self._closed = True
        self._end_streams(patience)
        if self._open:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._idle.wait()

    def _end_streams(self, patience: float) -> None:
        streams, now = list(self._streams), asyncio.get_running_loop().time()
        pause = min(STREAM_PAUSE_SECONDS, STREAMS_SHARE * patience / len(streams)) if streams else 0
        for number, stream in enumerate(streams):
            stream.reschedule(now + number * pause)


class _OpenStream:
    """The context of a stream. No generator, which would take three times as much for each."""

    __slots__ = ("_end", "_streams")

    def __init__(self, streams: set[asyncio.Timeout]) -> None:
        self._streams = streams
        self._end = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._end.__aenter__()
        self._streams.add(self._end)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._streams.discard(self._end)
        try:
            await self._end.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise ShuttingDown from None
        if isinstance(error, TimeoutError) and self._end.expired():
            raise ShuttingDown from None


def count_open(admission: Admission) -> Stage:
    """Count a call as open from its start to its end."""

    def stage(_method: Method, proceed: CallHandler) -> CallHandler:
        async def handle(request: Any, context: Context) -> Any:
            admission.enter()
            try:
                return await proceed(request, context)
            finally:
                admission.leave()

        return handle

    return stage


async def _at_once() -> None:
    """Wait for nothing."""


def admit(admission: Admission, turn: Callable[[], Awaitable[None]] = _at_once) -> Stage:
    """Refuse calls beyond the limit or during a drain; a drain ends streams.

    Streams wait for their ``turn`` to begin: thousands of them reconnect at once, and other calls pass meanwhile.

    Unary health checks are always admitted: a draining server reports NOT_SERVING.
    """

    def stage(method: Method, proceed: CallHandler) -> CallHandler:
        async def handle(request: Any, context: Context) -> Any:
            admission.check()
            return await proceed(request, context)

        async def handle_stream(request: Any, context: Context) -> Any:
            async with admission.stream():
                await turn()
                return await proceed(request, context)

        if method.streaming:
            return handle_stream
        return proceed if method.service == HEALTH else handle

    return stage
