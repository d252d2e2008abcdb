"""Reads the only request of a call, and bounds how long it may take to arrive."""

import asyncio

from grpc import StatusCode
from starlette.types import Message, Receive

from pointsman_server.rpc.transport.asgi.compression import Unpacker
from pointsman_server.rpc.transport.asgi.context import AsgiContext
from pointsman_server.rpc.transport.asgi.ending import Gone
from pointsman_server.rpc.transport.asgi.framing import Deframer, whole_message
from pointsman_server.rpc.transport.asgi.headers import Rejected

# How often calls are looked at, as a share of their patience.
SHARE = 0.1
ONE_REQUEST = "the method takes exactly one request"


def late() -> Rejected:
    """Say that a request did not arrive in time."""
    return Rejected(StatusCode.DEADLINE_EXCEEDED, "the request did not arrive in time")


class Arrivals:
    """Receives requests of at most ``most`` bytes: within ``patience`` seconds each, and within their deadlines.

    A timer for each call would cost more than the rest of a cache hit: one timer serves all that wait for their first
    bytes, which most often are all.
    """

    def __init__(self, most: int, patience: float) -> None:
        self._most = most
        self._patience = patience
        self._unpacker = Unpacker(most)
        self._waiting: dict[asyncio.Task[None] | None, AsgiContext] = {}
        self._late: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def request(self, receive: Receive, context: AsgiContext) -> bytes:
        """Receive the only request of a call. Raises Rejected and Gone."""
        task = asyncio.current_task()
        self._waiting[task] = context
        if self._timer is None:
            self._arm()
        try:
            event = await receive()
        except asyncio.CancelledError:
            if task in self._late:
                raise late() from None
            raise
        finally:
            del self._waiting[task]
            if self._late:
                self._late.discard(task)
        request = None if event.get("more_body", True) else whole_message(event["body"], self._most)
        return await self._rest(event, context, receive) if request is None else request

    async def _rest(self, event: Message, context: AsgiContext, receive: Receive) -> bytes:
        """Read a request that did not arrive whole with its first ``event``, or is compressed."""
        remaining = context.time_remaining()
        try:
            async with asyncio.timeout(self._patience if remaining is None else min(remaining, self._patience)):
                return await _read_one(event, Deframer(context.headers, self._unpacker), receive)
        except TimeoutError:
            raise late() from None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SHARE * self._patience, self._look)

    def _look(self) -> None:
        self._timer = None
        for task, context in self._waiting.items():
            if task is not None and task not in self._late and self._is_late(context):
                self._late.add(task)
                task.cancel()
        if self._waiting:
            self._arm()

    def _is_late(self, context: AsgiContext) -> bool:
        try:
            remaining = context.time_remaining()
        except Rejected:
            return True
        return context.elapsed() > self._patience or (remaining is not None and remaining <= 0)


async def _read_one(event: Message, deframer: Deframer, receive: Receive) -> bytes:
    request = None
    while True:
        if event["type"] == "http.disconnect":
            raise Gone
        deframer.feed(event["body"])
        while (message := await deframer.next()) is not None:
            if request is not None:
                raise Rejected(StatusCode.UNIMPLEMENTED, ONE_REQUEST)
            request = message
        if not event.get("more_body", False):
            break
        event = await receive()
    deframer.end()
    if request is None:
        raise Rejected(StatusCode.UNIMPLEMENTED, ONE_REQUEST)
    return request
