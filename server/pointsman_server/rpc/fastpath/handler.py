"""The short way (``warm``) put before the long way of the methods that have one."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pointsman_server.domain.errors import Overloaded
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.fastpath.hits import WarmAnswers
from pointsman_server.rpc.interceptors.authentication import host_of
from pointsman_server.rpc.interceptors.bulk_limit import Bulk
from pointsman_server.rpc.interceptors.stage import Handler, Method

RESOLVE = Method(SERVICE, "Resolve")
BATCH_RESOLVE = Method(SERVICE, "BatchResolve")
# Bytes from which on a request waits for its turn: a hundred keys or so, a third of a millisecond.
LARGE_REQUEST = 4096


@dataclass(frozen=True, slots=True)
class Shortcut:
    """``answer`` by bytes, or not; ``turn`` is waited for before a large request."""

    answer: Callable[[bytes, Context], bytes | None]
    turn: Callable[[], Awaitable[None]]

    def before(self, proceed: Handler, parse: Callable[[bytes], Any], encode: Callable[[Any], bytes]) -> Handler:
        """Make a handler of bytes that tries the short way first."""
        answer, turn = self.answer, self.turn

        async def handle(wire: bytes, context: Context) -> bytes:
            if len(wire) > LARGE_REQUEST:
                await turn()
            short = answer(wire, context)
            if short is not None:
                return short
            return encode(await proceed(parse(wire), context))

        return handle


def shortcuts(warm: WarmAnswers, bulk: Bulk) -> Mapping[Method, Shortcut]:
    """Return the methods that have a short way; ``bulk`` bounds large answers on this one too."""

    def resolve(wire: bytes, context: Context) -> bytes | None:
        return warm.resolve(wire, context.invocation_metadata)

    def batch_resolve(wire: bytes, context: Context) -> bytes | None:
        return warm.batch_resolve(wire, context.invocation_metadata, lambda routes: _carry(bulk, context, routes))

    return {
        RESOLVE: Shortcut(resolve, bulk.turn),
        BATCH_RESOLVE: Shortcut(batch_resolve, bulk.turn),
    }


def _carry(bulk: Bulk, context: Context, routes: int) -> bool:
    """Count a large answer until it is over, and have its client disconnected if it is not read."""
    host = host_of(context.peer())
    try:
        bulk.enter(host, routes)
    except Overloaded:
        return False
    context.add_done_callback(lambda _: bulk.leave(host, routes))  # type: ignore[arg-type]  # its stub wants a class
    bulk.answered(context)
    return True
