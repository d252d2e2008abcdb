"""Which calls are let in, and when the last of them is out: what a drain waits for.

Neither transport's own ``stop`` suffices: both can close before the last answers are on the wire, so that calls
whose work is done still fail.
"""

import asyncio

from pointsman_server.domain.errors import Overloaded, ShuttingDown

SETTLE_SECONDS = 0.1


class Admission:
    """Counts the calls that are open, and refuses new ones beyond ``most`` (0 is no limit), or once closed."""

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._open = 0
        self._closed = False
        self._idle = asyncio.Event()

    def enter(self) -> None:
        """One more call is open."""
        self._open += 1
        self._idle.clear()

    def leave(self) -> None:
        """One call is over."""
        self._open -= 1
        if not self._open:
            self._idle.set()

    @property
    def closed(self) -> bool:
        """Whether nobody is let in any more."""
        return self._closed

    @property
    def full(self) -> bool:
        """Whether one call more would be too many."""
        return 0 < self._most <= self._open

    def check(self) -> None:
        """Raise ShuttingDown once closed, and Overloaded for a call that entered beyond the limit."""
        if self._closed:
            raise ShuttingDown
        if self._open > self._most > 0:
            raise Overloaded("concurrent_calls")

    async def close(self, patience: float) -> None:
        """Let nobody in any more, and wait up to ``patience`` seconds until everybody is out, answers included."""
        self._closed = True
        if self._open:
            try:
                async with asyncio.timeout(patience):
                    await self._idle.wait()
            except TimeoutError:
                return
        # The transports have the last answers, and take a moment to write them.
        await asyncio.sleep(SETTLE_SECONDS)
