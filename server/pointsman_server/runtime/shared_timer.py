"""One timer of the event loop for many things that may take the same time each."""

import asyncio
import contextvars
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class SharedTimer(Generic[T]):
    """Calls ``on_expiry`` with each item that was added ``seconds`` ago and has not been removed.

    It must raise nothing. A timer for each item costs several times as much, and nearly all are removed in time.
    """

    def __init__(self, seconds: float, on_expiry: Callable[[T], None]) -> None:
        self._seconds = seconds
        self._on_expiry = on_expiry
        # In the order in which they expire.
        self._due: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: T) -> None:
        self._due[item] = time.monotonic() + self._seconds
        if self._timer is None:
            self._arm(self._seconds)

    def remove(self, item: T) -> None:
        """Remove an item; one that has expired is not there any more."""
        self._due.pop(item, None)

    def _arm(self, seconds: float) -> None:
        # Not in the context of the call that comes first, which would be kept.
        loop, context = asyncio.get_running_loop(), contextvars.Context()
        self._timer = loop.call_later(seconds, self._look, context=context)

    def _look(self) -> None:
        now = time.monotonic()
        while self._due:
            item, due = next(iter(self._due.items()))
            if due > now:
                self._arm(due - now)
                return
            del self._due[item]
            self._on_expiry(item)
        self._timer = None
