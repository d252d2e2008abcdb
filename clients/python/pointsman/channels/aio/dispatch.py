"""The way of one call of asyncio: as in ``pointsman.channels.dispatch``, awaited where the server is asked."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio

from pointsman.channels.backends import Backend, Backends
from pointsman.channels.dispatch import checked_timeout, out_of_time, time_left
from pointsman.channels.failure import details_of, trailing_metadata_of
from pointsman.channels.options import Metadata
from pointsman.channels.routes import AsyncRoutes
from pointsman.errors import DeadlineExceeded, PointsmanError


class Started(NamedTuple):
    """A call that has its backend: ``AsyncDispatch.end`` it."""

    backend: Backend[grpc.aio.Channel]
    timeout: float | None


class AsyncDispatch:
    """Finds backends for the calls of a channel, in its event loop."""

    def __init__(
        self,
        routes: AsyncRoutes,
        backends: Backends[grpc.aio.Channel],
        sticky_key: Callable[[Metadata | None], str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = routes
        self._backends = backends
        self._sticky_key = sticky_key
        self._clock = clock

    def begin_now(self, timeout: float | None, metadata: Any) -> Started | None:
        """Return the backend for a call, and its timeout; None where the server must be asked.

        Raises AioRpcError if there is no backend, and UsageError once the channel is closed.
        """
        sticky_key = self._sticky_key(metadata)
        self.check_open()
        try:
            url = self._routes.find(sticky_key)
            return None if url is None else Started(self._backends.begin(url), timeout)
        except PointsmanError as error:
            raise no_backend(self._routes.key, error) from error

    async def begin(self, timeout: float | None, metadata: Any) -> Started:  # noqa: ASYNC109 - of the call
        """Ask the server, within ``timeout``; return the backend, and the timeout that is left. Raises the same."""
        began = self._clock()
        try:
            url = await self._ask(self._sticky_key(metadata), timeout, began)
            left = time_left(timeout, self._clock() - began)
            self.check_open()
            return Started(self._backends.begin(url), left)
        except PointsmanError as error:
            raise no_backend(self._routes.key, error) from error

    async def _ask(self, sticky_key: str, timeout: float | None, began: float) -> str:  # noqa: ASYNC109 - of the call
        try:
            return await self._routes.ask(sticky_key, checked_timeout(timeout))
        except DeadlineExceeded as error:
            raise out_of_time(error, timeout, self._clock() - began) from error

    def end(self, backend: Backend[grpc.aio.Channel]) -> None:
        """Take note that a call has ended."""
        self._backends.end(backend)

    def check_open(self) -> None:
        """Raise UsageError once the channel is closed."""
        if self._backends.closed:
            raise grpc.aio.UsageError("Channel is closed.")  # as grpc.aio.Channel does


def no_backend(key: str, error: PointsmanError) -> grpc.aio.AioRpcError:
    """Return what a call without a backend raises: the status of ``pointsman.channels.failure``."""
    metadata = grpc.aio.Metadata(*trailing_metadata_of(error))
    return grpc.aio.AioRpcError(error.code, grpc.aio.Metadata(), metadata, details_of(key, error))
