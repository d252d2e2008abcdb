"""What a stub calls: the four kinds of method, each call at the backend that is live.

Streams, and calls that are futures, are gRPC's own once there is a backend; without one they are ``NoBackend``.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc

from pointsman.channels.dispatch import Dispatch, callable_of
from pointsman.channels.failure import NoBackend

Make = Callable[[grpc.Channel], Any]
"""Makes what calls the method at one backend."""
# The arguments that every call has, as gRPC names and orders them: timeout, metadata, credentials, wait_for_ready and
# compression.
Timeout = float | None


class _Method:
    """A method of a channel."""

    def __init__(self, dispatch: Dispatch, make: Make) -> None:
        self._dispatch = dispatch
        self._make = make

    def _wait(self, kind: str, request: Any, timeout: Timeout, metadata: Any, *rest: Any) -> Any:
        """Make a call that returns when it has ended; ``kind`` is the attribute of what makes it."""
        backend, timeout = self._dispatch.begin(timeout, metadata)
        try:
            method = getattr(callable_of(backend, self, self._make), kind)
            return method(request, timeout, metadata, *rest)
        finally:
            self._dispatch.end(backend)

    def _start(self, kind: str, request: Any, timeout: Timeout, metadata: Any, *rest: Any) -> Any:
        """Make a call that goes on after this has returned."""
        try:
            backend, timeout = self._dispatch.begin(timeout, metadata)
        except NoBackend as failed:
            return failed
        end = partial(self._dispatch.end, backend)
        try:
            method = getattr(callable_of(backend, self, self._make), kind)
            call = method(request, timeout, metadata, *rest)
        except BaseException:
            end()
            raise
        if not call.add_callback(end):
            end()
        return call


class UnaryUnary(_Method, grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """One request, one response."""

    def __call__(
        self,
        request: Any,
        timeout: Timeout = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._wait("__call__", request, timeout, metadata, credentials, wait_for_ready, compression)

    def with_call(
        self,
        request: Any,
        timeout: Timeout = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._wait("with_call", request, timeout, metadata, credentials, wait_for_ready, compression)

    def future(
        self,
        request: Any,
        timeout: Timeout = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._start("future", request, timeout, metadata, credentials, wait_for_ready, compression)


class UnaryStream(_Method, grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """One request, a stream of responses."""

    def __call__(
        self,
        request: Any,
        timeout: Timeout = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._start("__call__", request, timeout, metadata, credentials, wait_for_ready, compression)


class StreamUnary(_Method, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """A stream of requests, one response."""

    def __call__(
        self,
        request_iterator: Iterator[Any],
        timeout: Timeout = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._wait("__call__", request_iterator, timeout, metadata, credentials, wait_for_ready, compression)

    def with_call(
        self,
        request_iterator: Iterator[Any],
        timeout: Timeout = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._wait("with_call", request_iterator, timeout, metadata, credentials, wait_for_ready, compression)

    def future(
        self,
        request_iterator: Iterator[Any],
        timeout: Timeout = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._start("future", request_iterator, timeout, metadata, credentials, wait_for_ready, compression)


class StreamStream(_Method, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """A stream of requests, a stream of responses."""

    def __call__(
        self,
        request_iterator: Iterator[Any],
        timeout: Timeout = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._start("__call__", request_iterator, timeout, metadata, credentials, wait_for_ready, compression)
