"""Follows the changes of a server through every outage, for the commands that show them."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from pointsman.client import Client
from pointsman.errors import (
    InvalidArgument,
    PermissionDenied,
    PointsmanError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from pointsman.near_cache.watch.protocol import Apply, Confirm, Position, ProtocolViolation, Replace, WatchProtocol
from pointsman.rpc.streams import EventStream
from pointsman.v1.route_pb2 import Route
from pointsman.v1.watch_pb2 import WatchRequest

T = TypeVar("T")

_VOID = {"REVISION_COMPACTED", "EPOCH_CHANGED"}
_MOST_REFUSALS = 2
"""A credential may have been renewed, or a policy corrected, by the second attempt."""
_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A stream has ended; the next one begins after ``pause`` seconds, at ``resume``. None: with a snapshot."""

    error: PointsmanError
    pause: float
    resume: Position | None


class Follower(Generic[T]):
    """Iterate over ``steps``; ``stop`` ends them, from any thread. ``convert`` makes what snapshots consist of."""

    def __init__(
        self,
        client: Client,
        request: WatchRequest,
        convert: Callable[[Route], T],
        position: Position | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._request = request
        self._protocol = WatchProtocol(convert, position)
        self._clock = clock
        self._stopped = threading.Event()
        self._connected = False
        self._refusals = 0
        self._stream: EventStream | None = None
        self._silent = False

    def stop(self) -> None:
        """End the steps soon."""
        self._stopped.set()
        self._cancel()

    def steps(self) -> Iterator[Replace[T] | Apply | Confirm | Interrupted]:
        """Yield what happens, and where the stream is interrupted. Raises the error that another try cannot help.

        Before the first event that is any error, so that a wrong address is noticed.
        """
        with self._guarded():
            while not self._stopped.is_set():
                error = yield from self._one_stream()
                if self._stopped.is_set():
                    return
                if self._is_final(error):
                    raise error
                pause = self._protocol.ended(error, self._clock())
                token = self._protocol.resume
                yield Interrupted(error, pause, Position(token.epoch, token.revision) if token else None)
                self._stopped.wait(pause)

    def _one_stream(self) -> Generator[Replace[T] | Apply | Confirm, None, PointsmanError]:
        """Yield the steps of one stream, and return what it ended with."""
        self._silent = False
        request = WatchRequest()
        request.CopyFrom(self._request)
        if self._protocol.resume:
            request.resume.CopyFrom(self._protocol.resume)
        try:
            self._stream = self._client.watch_events(request)
            if self._stopped.is_set():  # it was not there to be cancelled
                self._stream.cancel()
            self._protocol.opened(self._clock())
            for event in self._stream:
                self._connected, self._refusals = True, 0
                step = self._protocol.received(event, self._clock())
                if step is not None:
                    yield step
        except PointsmanError as error:
            return Unavailable("the server has sent nothing for too long") if self._silent else error
        except ProtocolViolation as error:
            return Unavailable(str(error))
        finally:
            self._cancel()
            self._stream = None
        return Unavailable("the server has ended the stream")

    def _is_final(self, error: PointsmanError) -> bool:
        if error.reason in _VOID or (isinstance(error, ResourceExhausted) and error.retry_delay is not None):
            return False
        if isinstance(error, Unauthenticated | PermissionDenied):
            self._refusals += 1
            return not self._connected or self._refusals >= _MOST_REFUSALS
        return not self._connected or isinstance(error, InvalidArgument | Unimplemented)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Close streams that are silent for too long, meanwhile."""
        guard = threading.Thread(target=self._guard, name="pointsman-watch-guard", daemon=True)
        guard.start()
        try:
            yield
        finally:
            self.stop()
            guard.join()

    def _guard(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            if self._clock() >= self._protocol.silent_at:
                self._silent = True
                self._cancel()

    def _cancel(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.cancel()
