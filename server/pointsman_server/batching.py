"""Gather loads that are asked for one by one into few, bounded ones.

Resolve and BatchResolve both load through this: a thousand misses at once are a handful of queries, never a thousand
connections. What exceeds the queue is refused at once, because a queue without an end only moves the failure.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from pointsman_server.errors import Overloaded

K = TypeVar("K")
V = TypeVar("V")


class Batcher(Generic[K, V]):
    """Calls ``load`` with up to ``size`` keys at a time, at most ``concurrency`` times at once.

    At most ``queue`` keys wait; a key beyond them gets Overloaded with ``limit`` as the name of the bound. A key
    is loaded after it was asked for, never by a load already under way: who asks sees everything written before.
    """

    def __init__(
        self,
        load: Callable[[Sequence[K]], Awaitable[Sequence[V]]],
        *,
        size: int,
        concurrency: int,
        queue: int,
        limit: str,
    ) -> None:
        self._load = load
        self._size = size
        self._free = concurrency
        self._queue = queue
        self._limit = limit
        self._waiting: dict[K, asyncio.Future[V]] = {}
        self._order: deque[K] = deque()
        self._scheduled = False
        self._running: set[asyncio.Task[None]] = set()

    async def get(self, key: K) -> V:
        """Load ``key`` with whatever else is waiting. Raises what ``load`` raises, and Overloaded."""
        future = self._waiting.get(key)
        if future is None:
            if len(self._waiting) >= self._queue:
                raise Overloaded(self._limit)
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
            self._order.append(key)
            self._schedule()
        return await asyncio.shield(future)

    async def drain(self) -> None:
        """Wait until nothing is asked for or under way, whether or not anybody still waits for it."""
        while self._waiting or self._running:
            await asyncio.wait([*self._waiting.values()] or self._running)

    def _schedule(self) -> None:
        # On the next turn of the loop, so that everything this turn asks for goes together.
        if not self._scheduled and self._free and self._order:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._free and self._order:
            keys = [self._order.popleft() for _ in range(min(self._size, len(self._order)))]
            futures = [self._waiting.pop(key) for key in keys]
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._run(keys, futures))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, keys: list[K], futures: list[asyncio.Future[V]]) -> None:
        try:
            answered = list(zip(futures, await self._load(keys), strict=True))
        except BaseException as error:  # noqa: BLE001 - handed to everyone who waits
            _fail(futures, error)
        else:
            for future, value in answered:
                if not future.done():
                    future.set_result(value)
        finally:
            self._free += 1
            self._schedule()


def _fail(futures: list[asyncio.Future[V]], error: BaseException) -> None:
    for future in futures:
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
        elif not future.done():
            future.set_exception(error)
            future.exception()  # marked as seen: everyone who waited may be gone by now
