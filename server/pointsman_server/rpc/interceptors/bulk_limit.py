"""Bounds the memory of large calls: how much there is at once, and for how long.

A BatchResolve or a page of a thousand routes takes a megabyte or more, and on grpcio keeps it until the client has
read the response. So the routes of all calls in progress together are bounded, and those of one host to half of that;
only large calls are refused. A client that does not read its responses is disconnected, also from a stream.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from pointsman_server.domain.errors import Overloaded
from pointsman_server.rpc import SERVICE, pages
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.interceptors.authentication import host_of
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, Stage, StreamContext
from pointsman_server.rpc.transport.disconnect import disconnect
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)

# Twenty of the largest calls.
ROUTES = 20_000
UNREAD_SECONDS = 10.0


def _page(request: Any) -> int:
    size = getattr(request, "page_size", 0) or pages.DEFAULT_SIZE
    return min(max(size, 0), pages.MAX_SIZE)


SIZES: dict[str, Callable[[Any], int]] = {
    "BatchResolve": lambda request: len(getattr(request, "keys", ())),
    # Half of what others take, because its response is a few numbers: so one host can have several in progress.
    "Import": lambda request: (len(getattr(request, "routes", ())) + 1) // 2,
    "BatchSelect": lambda request: len(getattr(request, "selections", ())),
    # Its response has the routes before and after each change.
    "Commit": lambda request: 2 * len(getattr(request, "mutations", ())),
    "Revert": lambda _request: 2 * pages.MAX_SIZE,
    "List": _page,
    "ListTraffic": _page,
    "ListChanges": _page,
}


class Bulk:
    """Counts the routes of large calls in progress; ``most`` are admitted, half of them for one host.

    A call is admitted, however large, when there is no other.

    A client that has not taken a response ``unread_seconds`` after it was ready is disconnected: ``disconnect`` gets
    its address.
    """

    def __init__(
        self,
        *,
        most: int = ROUTES,
        unread_seconds: float = UNREAD_SECONDS,
        disconnect: Callable[[str], bool] = disconnect,
        fair_share: FairShare | None = None,
    ) -> None:
        self._most = most
        self._unread_seconds = unread_seconds
        self._disconnect = disconnect
        self._fair_share = fair_share or FairShare()
        self._routes = 0
        self._of_hosts: Counter[str] = Counter()
        self._disconnecting: set[asyncio.Future[bool]] = set()

    def enter(self, host: str, routes: int) -> None:
        """Count a call that begins. Raises Overloaded."""
        taken = self._of_hosts[host]
        if (self._routes and self._routes + routes > self._most) or (taken and taken + routes > self._most // 2):
            raise Overloaded("bulk_routes")
        self._routes += routes
        self._of_hosts[host] += routes

    async def turn(self) -> None:
        """Wait for a turn to work on a large call."""
        await self._fair_share.take()

    def leave(self, host: str, routes: int) -> None:
        """Count a call that is over, its response on the wire."""
        self._routes -= routes
        self._of_hosts[host] -= routes
        if not self._of_hosts[host]:
            del self._of_hosts[host]

    def answered(self, context: Context) -> None:
        """Disconnect the client unless it takes in time the response that is ready."""
        _when_over(context, self._start_timer(context).cancel)

    def watch(self, context: StreamContext) -> None:
        """Disconnect the client of a stream if it does not take a response in time."""
        reading = _Reading(self._unread_seconds, self._disconnect_peer, context)
        context.sending.append(reading.begin)
        context.sent.append(reading.end)
        context.add_done_callback(reading.stop)

    def _start_timer(self, context: Context) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._unread_seconds, self._disconnect_peer, context.peer())

    def _disconnect_peer(self, peer: str) -> None:
        log.warning("a client does not read its responses: disconnecting it", peer=peer)
        work = asyncio.get_running_loop().run_in_executor(None, self._disconnect, peer)
        self._disconnecting.add(work)
        work.add_done_callback(self._disconnecting.discard)


class _Reading:
    """Calls ``on_unread`` with the peer when a response of a stream has waited for ``seconds``.

    One timer for many responses, which looks once in ``seconds``: one for each would cost more than writing it.
    """

    __slots__ = ("_begun", "_context", "_on_unread", "_seconds", "_timer")

    def __init__(self, seconds: float, on_unread: Callable[[str], None], context: StreamContext) -> None:
        self._seconds = seconds
        self._on_unread = on_unread
        self._context = context
        self._begun: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._begun = time.monotonic()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)

    def end(self) -> None:
        self._begun = None

    def stop(self, _context: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._begun is None:
            return
        remaining = self._begun + self._seconds - time.monotonic()
        if remaining > 0:
            self._timer = asyncio.get_running_loop().call_later(remaining, self._look)
        else:
            self._on_unread(self._context.peer())


def bound_bulk(bulk: Bulk) -> Stage:
    """Refuse large calls beyond the limit, and disconnect clients that do not read their responses."""

    def stage(method: Method, proceed: CallHandler) -> CallHandler:
        size = SIZES.get(method.name) if method.service == SERVICE else None
        if method.response_streaming:
            proceed = _watched(bulk, proceed)
        if size is None or method.request_streaming:
            return proceed

        async def handle(request: Any, context: Context) -> Any:
            routes = size(request)
            host = host_of(context.peer())
            bulk.enter(host, routes)
            _when_over(context, lambda: bulk.leave(host, routes))
            # The work before the first slice takes as long as a slice, so concurrent large calls start one at a time.
            await bulk.turn()
            response = await proceed(request, context)
            bulk.answered(context)
            return response

        return handle

    return stage


def _watched(bulk: Bulk, proceed: CallHandler) -> CallHandler:
    # No coroutine of its own, which would be kept as long as the stream.
    def handle(request: Any, context: Any) -> Awaitable[Any]:
        bulk.watch(context)
        return proceed(request, context)

    return handle


def _when_over(context: Context, do: Callable[[], None]) -> None:
    def over(_context: Any) -> None:
        do()

    context.add_done_callback(over)  # type: ignore[arg-type]  # its stub requires a class
