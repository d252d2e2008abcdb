"""A value in memory that is reloaded in the background: keys of an issuer, API keys, a policy.

A check of a call reads ``value`` and never waits for a disk, a database or another server. When a reload fails the last
good value stays, so an outage of its source rejects no caller that was admitted before.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from pointsman_server.domain.access_errors import AccessUnavailable

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Reloads for unknown names are at least so far apart: a flood of invented names causes no more of them.
LEAST_PAUSE_SECONDS = 5.0


class RefreshFailed(Exception):
    """A value cannot be loaded or is not valid; the text says why, and holds no secret."""


class Refreshed(Generic[T]):
    """The last value that ``load`` returned. ``version`` increments when it changes.

    ``load`` raises RefreshFailed. ``interval`` and ``least_pause`` are in seconds. ``on_result`` is called after each
    reload with whether it succeeded. Errors for callers contain the ``name``; only the log also has the ``source``.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], Awaitable[T]],
        *,
        interval: float,
        least_pause: float = LEAST_PAUSE_SECONDS,
        source: str = "",
        on_result: Callable[[bool], None] = lambda _well: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._load = load
        self._interval = interval
        self._least_pause = least_pause
        self._told = on_result
        self._now = now
        self._value: T | None = None
        self._where = f"{name} at {source}" if source else name
        self._ended = float("-inf")
        self._asked: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._problem = ""
        self.version = 0

    @property
    def value(self) -> T:
        """The last good value. Raises AccessUnavailable before the first successful load."""
        if self._value is None:
            raise AccessUnavailable(self._name)
        return self._value

    def has_loaded(self) -> bool:
        return self._value is not None

    @property
    def problem(self) -> str:
        """Why the last load failed; empty if it did not."""
        return self._problem

    async def renew(self) -> None:
        """Load once; if that fails, keep the last good value."""
        async with self._turn:
            await self._renew()

    async def renew_for_unknown(self) -> None:
        """Load because a call names something that ``value`` does not have, unless that was done a moment ago.

        Concurrent callers share one load. It goes on when the caller that started it is cancelled: otherwise a caller
        that cancels again and again would prevent the reload.
        """
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._renew_if_due())
        await asyncio.shield(self._asked)

    async def _renew_if_due(self) -> None:
        async with self._turn:
            if self._now() - self._ended >= self._least_pause:
                await self._renew()

    async def run(self) -> None:
        """Reload until cancelled: every ``interval`` seconds, or every ``least_pause`` while there is no value."""
        while True:
            pause = self._interval if self.has_loaded() else min(self._interval, self._least_pause)
            # Spread, so that servers do not query one source in step.
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, guards nothing
            await self.renew()

    async def _renew(self) -> None:
        try:
            value = await self._load()
        except RefreshFailed as error:
            self._complain(str(error))
            return
        finally:
            # At the end: a source that is slower than the pause gets a pause too.
            self._ended = self._now()
        self._told(True)
        if self._problem:
            logger.warning("%s can be read again", self._where)
            self._problem = ""
        if value != self._value:
            self._value = value
            self.version += 1

    def _complain(self, problem: str) -> None:
        self._told(False)
        if problem != self._problem:
            kept = "none was read yet" if self._value is None else "the last good ones stay in force"
            logger.error("%s cannot be read: %s; %s", self._where, problem, kept)
        self._problem = problem
