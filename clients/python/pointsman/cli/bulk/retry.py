"""What commands that change many routes have in common: several calls at once, and patience."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from pointsman.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from pointsman.rpc import convert
from pointsman.v1 import route_service_pb2

T = TypeVar("T")

_MOST_WAITS = 20
_MOST_TRIES = 8
_LONGEST_WAIT = 30.0
"""Seconds."""
_FIRST_PAUSE = 0.25
"""Seconds; doubled with each try: some half a minute in all, in which a server has started again."""


async def at_once(calls: Iterable[Coroutine[Any, Any, None]], most: int) -> None:
    """Run ``calls``, ``most`` of them under way at once; each is taken no earlier than it can begin.

    After one that failed none begins, and its error is raised once those that are under way have ended.
    """
    under_way: set[asyncio.Task[None]] = set()
    try:
        for call in calls:
            under_way.add(asyncio.create_task(call))
            # At least one turn of the loop, in which the call goes out, before the next one is made.
            await asyncio.sleep(0)
            if len(under_way) >= most:
                ended, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.gather(*ended)
        await asyncio.gather(*under_way)
    except Exception:
        await asyncio.gather(*under_way, return_exceptions=True)
        raise


class Patience:
    """Retries calls after the wait that the server asks for: large changes may use up a quota.

    An unavailable server may come back; the request id then makes a repeated call harmless. Once the retries of one
    call are used up, other calls do not wait for the server either.
    """

    def __init__(self) -> None:
        self._given_up = False

    async def of(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call until it is answered. It must have the same request id each time."""
        waits, tries, pause = 0, 0, _FIRST_PAUSE
        while True:
            try:
                return await call()
            except ResourceExhausted as error:
                waits += 1
                if error.retry_delay is None or waits > _MOST_WAITS:
                    raise
                await asyncio.sleep(min(error.retry_delay.total_seconds(), _LONGEST_WAIT))
            except (Unavailable, DeadlineExceeded):
                tries += 1
                if self._given_up or tries >= _MOST_TRIES:
                    self._given_up = True
                    raise
                await asyncio.sleep(pause)
                pause *= 2


def key_of(message: route_service_pb2.ImportedRoute) -> str:
    """Return the key of a route that is sent, as text."""
    return str(convert.key_of(message.key))
