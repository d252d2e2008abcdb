"""The fast path as handlers of grpcio, put before the interceptor chain of the methods that have one."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.fastpath import declined
from pointsman_server.rpc.fastpath.declined import Declined, Outcome
from pointsman_server.rpc.fastpath.fast_path import FastPath
from pointsman_server.rpc.interceptors.authentication import host_of
from pointsman_server.rpc.interceptors.bulk_limit import Bulk
from pointsman_server.rpc.interceptors.stage import CallHandler, Method
from pointsman_server.rpc.interceptors.telemetry.tracing import is_sampled
from pointsman_server.rpc.refusal import Refusal, abort
from pointsman_server.telemetry.tracing import spans

RESOLVE = Method(SERVICE, "Resolve")
BATCH_RESOLVE = Method(SERVICE, "BatchResolve")
SELECT = Method(SERVICE, "Select")
BATCH_SELECT = Method(SERVICE, "BatchSelect")
# Bytes of a request above which it waits for its share of the event loop: some hundred keys, a third of a millisecond.
LARGE_REQUEST = 4096

Serve = Callable[[bytes, Context], Outcome | Awaitable[bytes | Refusal]]


class FastMethod:
    """One method of the fast path; ``bulk`` bounds its large calls, ``begin`` is called with each context first.

    While tracing is on, the chain serves the calls that are recorded.
    """

    def __init__(
        self, method: Method, serve: Serve, bulk: Bulk, begin: Callable[[Context], object] | None = None
    ) -> None:
        self._method = method
        self._serve = serve
        self._bulk = bulk
        self._begin = begin

    def before(
        self, proceed: CallHandler, parse: Callable[[bytes], Any], encode: Callable[[Any], bytes]
    ) -> CallHandler:
        """Make a handler of bytes that goes on to ``proceed``, the chain, with what the fast path declines."""
        serve, turn, begin = self._serve, self._bulk.turn, self._begin

        async def handle(request: bytes, context: Context) -> bytes:
            if begin is not None:
                begin(context)
            if len(request) > LARGE_REQUEST:
                await turn()
            outcome = serve(request, context)
            if isinstance(outcome, bytes):
                return outcome
            if not isinstance(outcome, Refusal | Declined):
                outcome = await outcome
                if isinstance(outcome, bytes):
                    return outcome
            if isinstance(outcome, Refusal):
                await abort(context, outcome)
            else:
                declined.set_lookup_of_call(outcome.lookup)
            return encode(await proceed(parse(request), context))

        return self._untraced(handle, proceed, parse, encode) if spans.is_on() else handle

    def _untraced(
        self, handle: CallHandler, proceed: CallHandler, parse: Callable[[bytes], Any], encode: Callable[[Any], bytes]
    ) -> CallHandler:
        async def handle_sampled(request: bytes, context: Context) -> bytes:
            if is_sampled(self._method, context):
                return encode(await proceed(parse(request), context))
            return await handle(request, context)  # type: ignore[no-any-return]

        return handle_sampled


def fast_methods(
    path: FastPath, bulk: Bulk, begin: Callable[[Context], object] | None = None
) -> Mapping[Method, FastMethod]:
    """Return the methods that the fast path serves; see ``FastMethod``."""

    def batch_resolve(request: bytes, context: Context) -> Outcome:
        return path.batch_resolve(request, context, lambda routes: _admit(bulk, context, routes))

    def batch_select(request: bytes, context: Context) -> Outcome:
        return path.selects.batch_select(request, context, lambda routes: _admit(bulk, context, routes))

    return {
        SELECT: FastMethod(SELECT, path.selects.select, bulk, begin),
        BATCH_SELECT: FastMethod(BATCH_SELECT, batch_select, bulk, begin),
        RESOLVE: FastMethod(RESOLVE, path.resolve, bulk, begin),
        BATCH_RESOLVE: FastMethod(BATCH_RESOLVE, batch_resolve, bulk, begin),
    }


def _admit(bulk: Bulk, context: Context, routes: int) -> None:
    """Count a large answer until it is sent, and disconnect its client if it does not read it. Raises Overloaded."""
    host = host_of(context.peer())
    bulk.enter(host, routes)
    context.add_done_callback(lambda _: bulk.leave(host, routes))  # type: ignore[arg-type]  # its stub requires a class
    bulk.answered(context)
