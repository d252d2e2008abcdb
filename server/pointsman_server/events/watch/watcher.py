"""What waits to be sent on one stream."""

import asyncio
from collections.abc import Sequence

from pointsman_server.domain.errors import Overloaded
from pointsman_server.events.watch.filters import Filter
from pointsman_server.runtime.batcher import settle

# Events and bytes that may wait for one stream. Streams of one filter share the bytes.
MOST_EVENTS = 1_000
MOST_BYTES = 32 * 1024 * 1024


class Interrupted(Exception):
    """The hub started over: what follows ``revision`` must be read from the store."""


class Watcher:
    """The queue of one stream: events up to ``revision``, in order. A stream that reads too slowly is ended.

    ``revision`` is what has been taken from the queue, and ``queued`` what has been put into it.
    """

    __slots__ = ("_bytes", "_events", "_failure", "_waiting", "epoch", "filter", "queued", "revision")

    def __init__(self, wanted: Filter, epoch: str, revision: int) -> None:
        self.filter = wanted
        self.epoch = epoch
        self.revision = self.queued = revision
        self._events: list[bytes] = []
        self._bytes = 0
        self._failure: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    def put_changes(self, events: Sequence[bytes], revision: int) -> None:
        """Queue a change set that ends at ``revision``, unless the stream has it."""
        if revision > self.queued:
            self._put(events, revision)

    def put_checkpoint(self, event: bytes, revision: int) -> None:
        """Queue a checkpoint at ``revision``, unless the stream is beyond it."""
        if revision >= self.queued:
            self._put((event,), revision)

    def _put(self, events: Sequence[bytes], revision: int) -> None:
        if self._failure is not None:
            return
        self.queued = revision
        self._events += events
        self._bytes += sum(map(len, events))
        if len(self._events) > MOST_EVENTS or self._bytes > MOST_BYTES:
            self._fail(Overloaded("watch_queue"))
        else:
            self._wake()

    def interrupt(self) -> None:
        """Drop what is queued: the stream goes on from ``revision`` by itself."""
        self._fail(Interrupted())

    async def take(self) -> Sequence[bytes]:
        """Wait for events, and take all of them. Raises Overloaded when the stream was too slow, and Interrupted."""
        while not self._events and self._failure is None:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        if self._failure is not None:
            raise self._failure
        events, self._events, self._bytes = self._events, [], 0
        self.revision = self.queued
        return events

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._events, self._bytes = [], 0
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            settle(self._waiting, None)
