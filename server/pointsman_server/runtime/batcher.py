"""Groups loads of single keys into few loads of many, bounded in number.

Resolve and BatchResolve both load through this: a thousand concurrent misses are a handful of queries. What exceeds the
queue is rejected at once, because an unbounded queue only moves the failure.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import Context
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast

from pointsman_server.domain.errors import Overloaded

K = TypeVar("K")
V = TypeVar("V")
# Gets the result or the error, once; must raise nothing.
Callback = Callable[[V | BaseException], None]


class BatchTracer(Protocol):
    """Records batches for those who asked for them."""

    def caller(self) -> Any | None:
        """Return what is known of who asks now; None if nothing is recorded for it."""

    def running(self, callers: Sequence[Any], size: int) -> AbstractContextManager[Any]:
        """Record a batch of ``size`` keys, for the results of ``caller``."""


class Batcher(Generic[K, V]):
    """Calls ``load`` with up to ``size`` keys at a time, at most ``concurrency`` times at once (but see ``release``).

    At most ``queue`` keys wait; a key beyond them gets Overloaded with ``limit`` as the name of the bound. A key is
    loaded by a load that begins after it was asked for: its result has everything that was written before.

    A key counts as ``weigh`` says toward ``size``, one by default. One that is heavier than that is loaded alone.
    """

    def __init__(
        self,
        load: Callable[[Sequence[K]], Awaitable[Sequence[V]]],
        *,
        size: int,
        concurrency: int,
        queue: int,
        limit: str,
        tracer: BatchTracer | None = None,
        weigh: Callable[[K], int] | None = None,
    ) -> None:
        self._load = load
        self._weigh = weigh
        self._tracer = tracer
        self._callers: dict[K, list[Any]] = {}
        self._size = size
        self._free = concurrency
        self._queue = queue
        self._limit = limit
        # In the order in which they were asked for, with the callbacks.
        self._waiting: dict[K, list[Callback[V]]] = {}
        self._scheduled = False
        self._running: set[asyncio.Task[None]] = set()
        self._released: set[asyncio.Task[None]] = set()

    def ask(self, key: K, on_result: Callback[V]) -> None:
        """Load ``key`` in the next batch; ``on_result`` gets the value, or what ``load`` raised, or Overloaded.

        ``on_result`` may be called before this returns.
        """
        callbacks = self._waiting.get(key)
        if callbacks is not None:
            callbacks.append(on_result)
        elif len(self._waiting) >= self._queue:
            on_result(Overloaded(self._limit))
            return
        else:
            self._waiting[key] = [on_result]
            self._schedule()
        if self._tracer is not None and (caller := self._tracer.caller()) is not None:
            self._callers.setdefault(key, []).append(caller)

    async def get(self, key: K) -> V:
        """Load ``key`` in the next batch. Raises what ``load`` raises, and Overloaded."""
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self.ask(key, partial(settle, future))
        return await future

    def release(self) -> None:
        """Let the next load begin before the one that calls this has ended."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        if task in self._running and task not in self._released:
            self._released.add(task)
            task.add_done_callback(self._released.discard)
            self._free_slot()

    async def drain(self) -> None:
        """Wait until no key waits and no load runs."""
        while self._waiting or self._running:
            if self._running:
                await asyncio.wait(self._running)
            else:
                await asyncio.sleep(0)  # waiting keys are dispatched in the next iteration of the loop

    def _next_batch(self) -> list[K]:
        if self._weigh is None:
            return list(itertools.islice(self._waiting, self._size))
        keys: list[K] = []
        free = self._size
        for key in self._waiting:
            weight = self._weigh(key)
            if keys and weight > free:
                break
            free -= weight
            keys.append(key)
        return keys

    def _free_slot(self) -> None:
        self._free += 1
        self._schedule()

    def _schedule(self) -> None:
        # In the next iteration of the event loop, so that all keys of this one go together. Without the context
        # variables of who asks first: the load is for many.
        if not self._scheduled and self._free and self._waiting:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch, context=Context())

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._free and self._waiting:
            keys = self._next_batch()
            callbacks = [self._waiting.pop(key) for key in keys]
            callers = [caller for key in keys for caller in self._callers.pop(key, ())] if self._callers else []
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._run(keys, callbacks, callers))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, keys: list[K], callbacks: list[list[Callback[V]]], callers: list[Any]) -> None:
        outcomes: Sequence[V | BaseException]
        try:
            outcomes = await (self._load_for(callers, keys) if callers else self._load(keys))
            if len(outcomes) != len(keys):
                raise ValueError(f"{len(outcomes)} values for {len(keys)} keys")  # noqa: TRY301 - as if load had
        except BaseException as error:  # noqa: BLE001 - handed to everyone who waits
            outcomes = [error] * len(keys)
        if asyncio.current_task() not in self._released:
            self._free_slot()
        for outcome, of_key in zip(outcomes, callbacks, strict=True):
            for on_result in of_key:
                on_result(outcome)

    async def _load_for(self, callers: list[Any], keys: list[K]) -> Sequence[V]:
        with cast("BatchTracer", self._tracer).running(callers, len(keys)):
            return await self._load(keys)


def settle(future: asyncio.Future[V], outcome: V | BaseException) -> None:
    """Set the result or the exception of ``future``, unless it is done."""
    if future.done():
        return
    if isinstance(outcome, asyncio.CancelledError):
        future.cancel()
    elif isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
