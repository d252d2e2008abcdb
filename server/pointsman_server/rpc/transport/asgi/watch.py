"""Ends a call that waits: at the deadline, or when the client has gone."""

import asyncio

from grpc import StatusCode
from starlette.types import Receive

from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport.asgi.context import AsgiContext
from pointsman_server.rpc.transport.asgi.departures import Departure, Departures
from pointsman_server.rpc.transport.asgi.ending import Gone, refusal_of
from pointsman_server.rpc.transport.asgi.headers import Rejected

DEADLINE_EXCEEDED = Refusal(StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")


class Watch:
    """Cancels the task of a call that waits: at the deadline of the client, and when the client has gone."""

    __slots__ = ("_call", "_context", "_departure", "_ended_by", "_gone", "_timer")

    def __init__(self, context: AsgiContext) -> None:
        self._context = context
        self._call = asyncio.current_task()
        self._gone = False
        self._ended_by: Refusal | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._departure: Departure | None = None
        try:
            remaining = context.time_remaining()
        except Rejected as error:
            self._end(error.refusal)
            return
        if remaining is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, remaining), self._end, DEADLINE_EXCEEDED)

    def until_gone(self, departures: Departures, receive: Receive) -> None:
        """Cancel the call when the client has gone. Once, when its request has ended.

        Until ``stop``, ``departures`` refers to the task of the call, to which the event loop itself refers weakly.
        """
        if self._call is not None:
            self._departure = departures.watch(receive, self.client_gone)

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
        if self._departure is not None:
            self._departure.forget()

    def refusal(self, error: BaseException) -> Refusal:
        """Return how a call ends whose handler raised ``error``. Raises Gone when nobody waits."""
        if self._gone:
            raise Gone from error
        if isinstance(error, asyncio.CancelledError) and self._ended_by is not None:
            return self._ended_by
        return refusal_of(error, self._context)
