"""What waits to be sent on one stream."""

import asyncio
from collections.abc import Callable, Sequence

from pointsman_server.domain.errors import Overloaded
from pointsman_server.events.watch.filters import Filter
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.batcher import settle
from pointsman_server.runtime.fair_share import Window

# Events and bytes that may wait for one stream. Streams of one filter share the bytes.
MOST_EVENTS = 1_000
MOST_BYTES = 32 * 1024 * 1024


class Interrupted(Exception):
    """The hub started over: what follows the position must be read from the store."""


class Watcher:
    """The queue of one stream: events in order, up to ``queued``.

    ``position`` is what has been taken. A stream that reads too slowly is ended: ``on_slow`` is called, because a write
    may be waiting for its client.
    """

    __slots__ = (
        "_bytes",
        "_events",
        "_failure",
        "_on_slow",
        "_waiting",
        "_window",
        "beat",
        "epoch",
        "filter",
        "queued",
        "taken",
    )

    def __init__(self, wanted: Filter, position: Clock, on_slow: Callable[[], None] = lambda: None) -> None:
        self.filter = wanted
        self.epoch = position.epoch
        self.taken = self.queued = position.revision
        # The hub's: when this stream receives its checkpoints.
        self.beat = 0
        self._events: list[bytes] = []
        self._bytes = 0
        self._failure: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._on_slow = on_slow
        self._window: Window | None = None

    @property
    def position(self) -> Clock:
        return Clock(self.epoch, self.taken)

    def put_changes(self, events: Sequence[bytes], revision: int) -> None:
        """Queue a change set that ends at ``revision``, unless the stream has it. Without events, none matches."""
        if revision > self.queued:
            self.queued = revision
            if events:
                self._put(events)

    def put_checkpoint(self, event: bytes, revision: int) -> None:
        """Queue a checkpoint at ``revision``, unless the stream is beyond it."""
        if revision >= self.queued:
            self.queued = revision
            self._put((event,))

    def _put(self, events: Sequence[bytes]) -> None:
        if self._failure is not None:
            return
        self._events += events
        self._bytes += sum(map(len, events))
        if len(self._events) > MOST_EVENTS or self._bytes > MOST_BYTES:
            self._fail(Overloaded("watch_queue"))
            self._on_slow()
        elif self._waiting is not None:
            settle(self._waiting, None)

    def join(self, window: Window) -> None:
        """Count in ``window`` until what is queued now has been written, if there was nothing else to write."""
        if self._window is None and self._events and self._waiting is not None:
            self._window = window
            window.begin()

    def interrupt(self) -> None:
        """Drop what is queued: the stream goes on from its position by itself."""
        if self._failure is None:
            self._fail(Interrupted())

    async def take(self) -> Sequence[bytes]:
        """Wait for events, and take all of them. Raises Overloaded when the stream was too slow, and Interrupted."""
        if self._window is not None and not self._events:
            self._leave_window()
        while not self._events and self._failure is None:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        if self._failure is not None:
            raise self._failure
        events, self._events, self._bytes = self._events, [], 0
        self.taken = self.queued
        return events

    def _leave_window(self) -> None:
        window, self._window = self._window, None
        if window is not None:
            window.end()

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._events, self._bytes = [], 0
        self._leave_window()
        if self._waiting is not None:
            settle(self._waiting, None)
