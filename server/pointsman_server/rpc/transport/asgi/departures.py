"""Finds out that the clients of open calls have gone.

Once a request has ended, pyvoy says that it is empty for as long as the client waits, and then that it has gone: it
does so only when asked. A task that asks for each call would cost more than a call that waits, so one asks for all.
"""

import asyncio
import contextvars
from collections.abc import Callable

from starlette.types import Receive

TICK_SECONDS = 0.1
# A call is asked for after one tick, the pause doubled each time up to this many.
LONGEST_PAUSE_TICKS = 50
# Calls that are asked for in one tick. With more open than are asked for in the longest pause, each waits longer.
MOST_A_TICK = 100


class Departure:
    """One call: ``gone`` is called once its client has gone."""

    __slots__ = ("among", "gone", "pause", "receive")

    def __init__(self, receive: Receive, gone: Callable[[], None]) -> None:
        self.receive = receive
        self.gone = gone
        self.pause = 1
        self.among: dict[Departure, None] = {}

    def put(self, among: "dict[Departure, None]") -> None:
        """Move to another list."""
        self.among = among
        among[self] = None

    def forget(self) -> None:
        """Ask no more."""
        self.among.pop(self, None)
        # While it is being asked for.
        self.pause = 0


class Departures:
    """Asks for calls whose requests have ended, as long as there are any. Refers to them strongly."""

    def __init__(self) -> None:
        # A wheel of ticks, each with the calls whose turn it is; and those whose turn has come.
        self._wheel: list[dict[Departure, None]] = [{} for _ in range(LONGEST_PAUSE_TICKS + 1)]
        self._now = 0
        self._due: dict[Departure, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    def watch(self, receive: Receive, gone: Callable[[], None]) -> Departure:
        """Call ``gone``, unless it is forgotten before, when the client has gone. The request has ended."""
        departure = Departure(receive, gone)
        self._put(departure)
        if self._timer is None and self._asking is None:
            self._arm()
        return departure

    def _put(self, departure: Departure) -> None:
        departure.put(self._wheel[(self._now + departure.pause) % len(self._wheel)])

    def _arm(self) -> None:
        # Not in the context of the call that comes first, which would be kept.
        loop, context = asyncio.get_running_loop(), contextvars.Context()
        self._timer = loop.call_later(TICK_SECONDS, self._tick, context=context)

    def _tick(self) -> None:
        self._timer = None
        self._now = (self._now + 1) % len(self._wheel)
        turn = self._wheel[self._now]
        if turn:
            self._wheel[self._now] = {}
            for departure in turn:
                departure.put(self._due)
        if self._due:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        elif any(self._wheel):
            self._arm()

    async def _ask(self) -> None:
        turn = [departure for departure, _ in zip(self._due, range(MOST_A_TICK), strict=False)]
        # All at once: an answer takes a way through two other threads.
        asked = [(departure, departure.receive()) for departure in turn]
        try:
            for departure, event in asked:
                departure.among.pop(departure, None)
                try:
                    is_gone = (await event)["type"] == "http.disconnect"
                except OSError:
                    is_gone = True
                self._take(departure, is_gone=is_gone)
        finally:
            # When the loop ends, the others are not awaited any more. With pyvoy these are futures, which need nothing.
            for _, event in asked:
                if asyncio.iscoroutine(event):
                    event.close()

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            self._arm()

    def _take(self, departure: Departure, *, is_gone: bool) -> None:
        if not departure.pause:
            return
        if is_gone:
            departure.gone()
        else:
            departure.pause = min(2 * departure.pause, LONGEST_PAUSE_TICKS)
            self._put(departure)
