"""Ends a call that waits: at the deadline, or when the client has gone."""

import asyncio

from grpc import StatusCode
from starlette.types import Receive

from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport.asgi.context import AsgiContext
from pointsman_server.rpc.transport.asgi.ending import Gone, refusal_of
from pointsman_server.rpc.transport.asgi.headers import Rejected

# Once a request has ended, pyvoy says that it is empty for as long as the client waits, and then that it has gone: so
# it is asked again after these seconds, the pause doubled each time up to the longest.
FIRST_POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 5.0

DEADLINE_EXCEEDED = Refusal(StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")


async def until_gone(receive: Receive) -> None:
    """Wait until the client of a call whose request has ended is gone."""
    pause = FIRST_POLL_SECONDS
    while True:
        await asyncio.sleep(pause)
        if (await receive())["type"] == "http.disconnect":
            return
        pause = min(2 * pause, LONGEST_POLL_SECONDS)


class Watch:
    """Cancels the task of a call that waits: at the deadline of the client, and when the client has gone."""

    def __init__(self, context: AsgiContext, receive: Receive | None) -> None:
        """``receive`` is None for a call whose requests are still read: who reads them calls ``client_gone``."""
        self._context = context
        self._call = asyncio.current_task()
        self._gone = False
        self._ended_by: Refusal | None = None
        loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        # Both hold on to the task of the call, to which the event loop itself refers weakly.
        self._listener = None if receive is None else loop.create_task(self._listen(receive))
        try:
            remaining = context.time_remaining()
        except Rejected as error:
            self._end(error.refusal)
            return
        if remaining is not None:
            self._timer = loop.call_later(max(0.0, remaining), self._end, DEADLINE_EXCEEDED)

    async def _listen(self, receive: Receive) -> None:
        await until_gone(receive)
        self.client_gone()

    def client_gone(self) -> None:
        """Cancel the call: nobody waits for it."""
        self.note_gone()
        self._cancel()

    def note_gone(self) -> None:
        """Note that nobody waits for the call, which ends by itself."""
        self._gone = True

    def _end(self, refusal: Refusal) -> None:
        self._ended_by = refusal
        self._cancel()

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def stop(self) -> None:
        """Stop watching: the handler has ended."""
        self._call = None
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()

    def refusal(self, error: BaseException) -> Refusal:
        """Return how a call ends whose handler raised ``error``. Raises Gone when nobody waits."""
        if self._gone:
            raise Gone from error
        if isinstance(error, asyncio.CancelledError) and self._ended_by is not None:
            return self._ended_by
        return refusal_of(error, self._context)
