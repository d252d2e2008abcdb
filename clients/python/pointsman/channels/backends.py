"""The backends of a channel: one gRPC channel for each URL in use, and when it is closed.

Bookkeeping alone: it closes nothing itself, and starts no thread. Safe to use from several threads.
"""

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

ChannelT = TypeVar("ChannelT")

LINGER_SECONDS = 1.0
"""How long a backend without calls is kept after its URL has left: calls that chose it just before still find it."""
IDLE_SECONDS = 300.0
"""How long a backend is kept that no call used, where there are several."""
MOST_BACKENDS = 64
"""Of more, those that left first are closed at once, with their calls."""


class Backend(Generic[ChannelT]):
    """The gRPC channel to one URL."""

    __slots__ = ("__weakref__", "callables", "calls", "channel", "left_at", "url", "used_at")

    def __init__(self, url: str, channel: ChannelT) -> None:
        self.url = url
        self.channel = channel
        self.calls = 0
        """Calls in flight."""
        self.used_at = -inf
        """When the last call began or ended."""
        self.left_at: float | None = None
        """Since when no new calls are meant for it; None while they are."""
        self.callables: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        """What calls a method of this backend, by what calls the method of the whole channel."""


class Backends(Generic[ChannelT]):
    """All backends of a channel, by their URLs.

    A backend whose URL is no longer among those to be called is closed once its calls have ended, or after
    ``drain_seconds``, which ends them as cancelled. If its URL comes back before, it is used again.
    """

    def __init__(
        self,
        open_channel: Callable[[str], ChannelT],
        wake: Callable[[], None],
        *,
        drain_seconds: float,
        idle_seconds: float = IDLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``open_channel``: opens a channel to a URL, without waiting. ``wake``: called when ``due`` must be called."""
        self._open_channel = open_channel
        self._wake = wake
        self._drain_seconds = drain_seconds
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._by_url: dict[str, Backend[ChannelT]] = {}
        self._wanted: frozenset[str] | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def begin(self, url: str) -> Backend[ChannelT]:
        """Return the backend of a URL, opened if need be, for one call: ``end`` it. Raises ValueError once closed."""
        with self._lock:
            backend = self._backend(url)
            backend.calls += 1
            backend.used_at = self._clock()
            if backend.left_at is not None or (self._wanted is not None and url not in self._wanted):
                backend.left_at = backend.used_at
            return backend

    def end(self, backend: Backend[ChannelT]) -> None:
        """Take note that a call has ended."""
        with self._lock:
            backend.calls -= 1
            backend.used_at = self._clock()
            due = backend.left_at is not None and not backend.calls
        if due:
            self._wake()

    def want(self, urls: frozenset[str]) -> None:
        """Take note that from now on calls are meant for these URLs; the backends of others drain."""
        with self._lock:
            self._wanted = urls
            now = self._clock()
            for backend in self._by_url.values():
                if backend.url in urls:
                    backend.left_at = None
                elif backend.left_at is None:
                    backend.left_at = now
            some_left = any(backend.left_at is not None for backend in self._by_url.values())
        if some_left:
            self._wake()

    def open(self, url: str) -> Backend[ChannelT]:
        """Return the backend of a URL, opened if need be, for no call. Raises ValueError once closed."""
        with self._lock:
            return self._backend(url)

    def current(self) -> list[Backend[ChannelT]]:
        """Return the backends that new calls are meant for."""
        with self._lock:
            return [backend for backend in self._by_url.values() if backend.left_at is None]

    def due(self) -> tuple[list[Backend[ChannelT]], float | None]:
        """Return the backends to be closed now, which are forgotten, and in how many seconds to ask again.

        None: not before ``wake`` is called.
        """
        with self._lock:
            now = self._clock()
            ended = [backend for backend in self._by_url.values() if self._due_at(backend) <= now]
            ended += self._too_many(ended)
            for backend in ended:
                del self._by_url[backend.url]
            following = min(map(self._due_at, self._by_url.values()), default=inf)
            return ended, None if following == inf else following - now

    def close(self) -> list[Backend[ChannelT]]:
        """Return all backends, to be closed; there is none from now on."""
        with self._lock:
            self._closed = True
            backends = [*self._by_url.values()]
            self._by_url.clear()
            return backends

    # Forks

    def before_fork(self) -> list[Backend[ChannelT]]:
        """Return the backends without calls, to be closed, and hold the lock."""
        self._lock.acquire()
        unused = [backend for backend in self._by_url.values() if not backend.calls]
        for backend in unused:
            del self._by_url[backend.url]
        return unused

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> list[Backend[ChannelT]]:
        """Start without backends. Returns those of the parent, whose connections are the parent's."""
        inherited = [*self._by_url.values()]
        # A thread of the parent may have been about to say what is wanted now.
        self._by_url, self._wanted = {}, None
        self._lock = threading.Lock()
        return inherited

    def _backend(self, url: str) -> Backend[ChannelT]:
        if self._closed:
            raise ValueError("Cannot invoke RPC on closed channel!")  # the text of grpc.Channel
        found = self._by_url.get(url)
        if found is None:
            found = self._by_url[url] = Backend(url, self._open_channel(url))
            found.used_at = self._clock()
            if len(self._by_url) > 1:
                self._wake()
        return found

    def _due_at(self, backend: Backend[ChannelT]) -> float:
        if backend.left_at is not None:
            if backend.calls:
                return backend.left_at + self._drain_seconds
            return max(backend.left_at, backend.used_at) + LINGER_SECONDS
        several = len(self._by_url) > 1
        return backend.used_at + self._idle_seconds if several and not backend.calls else inf

    def _too_many(self, ended: list[Backend[ChannelT]]) -> list[Backend[ChannelT]]:
        rest = [backend for backend in self._by_url.values() if backend not in ended]
        left = sorted((each for each in rest if each.left_at is not None), key=lambda each: each.left_at or 0.0)
        return left[: max(0, len(rest) - MOST_BACKENDS)]
