"""The short way (``warm``) put before the long way of the methods that have one."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pointsman_server.errors import Overloaded
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.access import host_of
from pointsman_server.rpc.bulk import Bulk
from pointsman_server.rpc.calls import Context
from pointsman_server.rpc.stage import Handler, Method
from pointsman_server.rpc.warm import WarmAnswers

RESOLVE = Method(SERVICE, "Resolve")
BATCH_RESOLVE = Method(SERVICE, "BatchResolve")
# Bytes from which on a request waits for its turn: a hundred keys or so, a third of a millisecond.
LARGE_REQUEST = 4096


@dataclass(frozen=True, slots=True)
class Shortcut:
    """``answer`` by bytes, or not; and ``keys`` that may be learned from a call that the long way has answered."""

    answer: Callable[[bytes, Context], bytes | None]
    keys: Callable[[Any], Iterable[Any]]
    learn: Callable[[Any], None]
    turn: Callable[[], Awaitable[None]]

    def before(self, proceed: Handler, parse: Callable[[bytes], Any], encode: Callable[[Any], bytes]) -> Handler:
        """Make a handler of bytes that tries the short way first."""
        answer, keys, learn, turn = self.answer, self.keys, self.learn, self.turn

        async def handle(wire: bytes, context: Context) -> bytes:
            if len(wire) > LARGE_REQUEST:
                await turn()
            short = answer(wire, context)
            if short is not None:
                return short
            request = parse(wire)
            response = await proceed(request, context)
            for key in keys(request):
                learn(key)
            return encode(response)

        return handle


def shortcuts(warm: WarmAnswers, bulk: Bulk) -> Mapping[Method, Shortcut]:
    """Return the methods that have a short way; ``bulk`` bounds large answers on this one too."""

    def resolve(wire: bytes, context: Context) -> bytes | None:
        return warm.resolve(wire, context.invocation_metadata)

    def batch_resolve(wire: bytes, context: Context) -> bytes | None:
        return warm.batch_resolve(wire, context.invocation_metadata, lambda routes: _carry(bulk, context, routes))

    return {
        RESOLVE: Shortcut(resolve, lambda request: (request.key,), warm.learn, bulk.turn),
        BATCH_RESOLVE: Shortcut(batch_resolve, lambda request: request.keys, warm.learn, bulk.turn),
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
