"""The way of one call: which URL it goes to, the backend there, and how much of its time is left."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from pointsman.channels.backends import Backend, Backends
from pointsman.channels.failure import NoBackend
from pointsman.channels.options import Metadata
from pointsman.channels.routes import SyncRoutes
from pointsman.errors import DeadlineExceeded, PointsmanError, Unavailable


class Started(NamedTuple):
    """A call that has its backend: ``Dispatch.end`` it."""

    backend: Backend[grpc.Channel]
    timeout: float | None


class Dispatch:
    """Finds backends for the calls of a channel. Safe to use from several threads."""

    def __init__(
        self,
        routes: SyncRoutes,
        backends: Backends[grpc.Channel],
        sticky_key: Callable[[Metadata | None], str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = routes
        self._backends = backends
        self._sticky_key = sticky_key
        self._clock = clock

    def begin(self, timeout: float | None, metadata: Metadata | None) -> Started:
        """Return the backend for a call, and the timeout that is left for it.

        Where the near-cache cannot answer the server is asked, within ``timeout``. Raises NoBackend, and ValueError
        once the channel is closed.
        """
        sticky_key = self._sticky_key(metadata)
        if self._backends.closed:
            raise ValueError("Cannot invoke RPC on closed channel!")  # the text of grpc.Channel
        try:
            url = self._routes.find(sticky_key)
            if url is None:
                url, timeout = self._ask(sticky_key, timeout)
            return Started(self._backends.begin(url), timeout)
        except PointsmanError as error:
            raise NoBackend(self._routes.key, error) from error

    def end(self, backend: Backend[grpc.Channel]) -> None:
        """Take note that a call has ended."""
        self._backends.end(backend)

    def _ask(self, sticky_key: str, timeout: float | None) -> tuple[str, float | None]:
        began = self._clock()
        try:
            url = self._routes.ask(sticky_key, checked_timeout(timeout))
        except DeadlineExceeded as error:
            raise out_of_time(error, timeout, self._clock() - began) from error
        return url, time_left(timeout, self._clock() - began)


def checked_timeout(timeout: float | None) -> float | None:
    """Return ``timeout``. Raises DeadlineExceeded if nothing is left of it to ask the server."""
    if timeout is not None and timeout <= 0:
        raise DeadlineExceeded("the deadline had passed before the call began")
    return timeout


def out_of_time(error: DeadlineExceeded, timeout: float | None, seconds: float) -> PointsmanError:
    """Return what a call fails with if the server has not answered after so many seconds.

    It is not DEADLINE_EXCEEDED while the call itself has time left: those who retry would not.
    """
    if timeout is not None and seconds >= timeout:
        return error
    return Unavailable("the server did not say in time which URL is live")


def time_left(timeout: float | None, seconds: float) -> float | None:
    """Return what is left of ``timeout`` after so many seconds. Raises DeadlineExceeded if nothing is."""
    if timeout is None:
        return None
    if seconds >= timeout:
        raise DeadlineExceeded("the deadline passed while the server was asked which URL is live")
    return timeout - seconds


def callable_of(backend: Backend[Any], of: object, make: Callable[[Any], Any]) -> Any:
    """Return what calls a method at a backend, made once for each ``of``, which calls it at the whole channel."""
    found = backend.callables.get(of)
    if found is None:
        found = backend.callables[of] = make(backend.channel)
    return found
