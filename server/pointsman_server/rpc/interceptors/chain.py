"""The interceptor chain: what each call passes, unary or stream, and why in this order."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from inspect import isasyncgenfunction
from typing import Any

from pointsman_server.auth.permissions import Permissions
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.interceptors.admission import Admission, admit, count_open
from pointsman_server.rpc.interceptors.authorization import authorize
from pointsman_server.rpc.interceptors.bulk_limit import Bulk, bound_bulk
from pointsman_server.rpc.interceptors.deadline import limit
from pointsman_server.rpc.interceptors.errors import translate
from pointsman_server.rpc.interceptors.rate_limiting import Throttling, throttle_callers, throttle_tenants
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, Requests, Stage, StreamContext
from pointsman_server.rpc.interceptors.telemetry.access_log import record
from pointsman_server.rpc.interceptors.telemetry.identification import identify
from pointsman_server.rpc.interceptors.telemetry.metrics import measure
from pointsman_server.rpc.interceptors.telemetry.tracing import trace
from pointsman_server.rpc.interceptors.validation import validate
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.tracing import spans


def stages(
    metrics: Metrics,
    admission: Admission,
    *,
    access: tuple[Stage, ...] = (),
    permissions: Permissions | None = None,
    deadline: float,
    access_log_sample: float,
    throttling: Throttling | None = None,
    bulk: Bulk | None = None,
    identify: Stage = identify,
) -> tuple[Stage, ...]:
    """Return the stages, outermost first.

    ``identify`` begins calls. ``access`` authenticates callers; without it they are anonymous. Without ``permissions``
    all calls are permitted.
    """
    bulk = bulk or Bulk()
    return (
        # Around all others: a call is open until nothing more is done for it, and a drain waits for that.
        count_open(admission),
        # Before everything that may log, because logs carry the request id.
        identify,
        # Before the metrics, which name its span as an example, and outside of what refuses calls.
        *([trace()] if spans.is_on() else []),
        # Outside of what refuses calls, so that refusals are counted too.
        measure(metrics),
        # Outside of the statuses, so that it sees the code that the caller gets.
        record(access_log_sample),
        # Around everything that raises domain errors, so that no text of any other error reaches the caller.
        translate(),
        # Before any work is done for the call.
        admit(admission, bulk.turn),
        # Around everything that may wait, also for the keys that callers are verified by.
        limit(deadline),
        # Before the stages that cost more, and before those that need the identity.
        *access,
        # Before what costs more than it does, and before any I/O.
        *([throttle_callers(throttling)] if throttling else []),
        # Before the work, whose memory it bounds.
        bound_bulk(bulk),
        # After what refuses calls more cheaply; before any I/O.
        validate(),
        # After validation, because the permission depends on the keys in the request. Before any look-up, so that a
        # denial does not show whether a route exists.
        *([authorize(permissions, metrics.denied)] if permissions else []),
        # Last, when the caller is known to have permission for the tenant: no caller uses up the rate of other tenants.
        *([throttle_tenants(throttling)] if throttling else []),
    )


def through(stages: Iterable[Stage], method: Method, handler: CallHandler) -> CallHandler:
    """Wrap ``handler`` in the stages, the first outermost."""
    for stage in reversed(tuple(stages)):
        handler = stage(method, handler)
    return handler


def stream_through(stages: Iterable[Stage], method: Method, behaviour: Callable[..., Any]) -> CallHandler:
    """Wrap a streaming ``behaviour`` in the stages: an async generator of responses, or a coroutine that writes them.

    The handler takes the request, or an async iterator of requests, and returns the response, or writes responses to
    the context.
    """
    work = through(stages, method, _written(behaviour) if isasyncgenfunction(behaviour) else behaviour)

    async def handle(request: Any, context: Context) -> Any:
        stream: Any = StreamContext(context)
        try:
            return await work(Requests(stream) if method.request_streaming else request, stream)
        finally:
            stream.end()

    return handle


def _written(behaviour: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any], Awaitable[None]]:
    async def handle(request: Any, context: Any) -> None:
        # Close it here: after a cancellation, a generator left open is closed only when it is collected.
        async with aclosing(behaviour(request, context)) as responses:  # type: ignore[type-var]
            async for response in responses:
                await context.write(response)

    return handle
