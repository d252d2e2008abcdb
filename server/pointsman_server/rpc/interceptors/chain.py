"""What every call passes through, outermost first: see ``stages`` for the order and the reasons.

grpcio asks interceptors anew for each call. Ours is one interceptor that wraps each method once, in all stages, and
remembers the result: the stages cost their own work and nothing else.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from grpc import StatusCode

from pointsman_server.auth.permissions import Permissions
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.rpc import SERVICE, statuses
from pointsman_server.rpc import call as calls
from pointsman_server.rpc import refusal as refusals
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.fastpath.handler import Shortcut
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.authorization import authorize
from pointsman_server.rpc.interceptors.bulk_limit import Bulk, bound_bulk
from pointsman_server.rpc.interceptors.rate_limiting import Throttling, throttle_callers, throttle_tenants
from pointsman_server.rpc.interceptors.stage import Handler, Method, Stage
from pointsman_server.rpc.interceptors.validation import tolerant, validate
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.telemetry.logs import get_logger
from pointsman_server.telemetry.metrics import Metrics

log = get_logger(__name__)


def stages(
    metrics: Metrics,
    admission: Admission,
    *,
    access: tuple[Stage, ...] = (),
    permissions: Permissions | None = None,
    deadline: float,
    access_log_sample: float,
    pushback: bool,
    throttling: Throttling | None = None,
    bulk: Bulk | None = None,
) -> tuple[Stage, ...]:
    """Return the stages, outermost first. ``pushback``: whether the transport can send ``grpc-retry-pushback-ms``.

    ``access`` finds out who calls; it is empty where nobody asks. Without ``permissions`` everybody may do everything.
    """
    return (
        # Around all the others: a call is open until nothing more is done for it.
        count_open(admission),
        # Before whatever may log, because logs carry the request id.
        identify,
        # Outside of what refuses calls, so that refusals are counted too.
        measure(metrics),
        # Outside of the statuses, so that it sees the code that the caller got.
        record(access_log_sample),
        # Around everything that raises errors of the domain, so that nothing else ever reaches the caller.
        translate(pushback=pushback),
        # Before any work is done for the call.
        admit(admission),
        # Around everything that may wait: for keys to check a caller by, too.
        limit(deadline),
        # Before anything that costs, and before whatever depends on who calls.
        *access,
        # Before what costs more than it does, and before any I/O. Without a limit there is no such stage.
        *([throttle_callers(throttling)] if throttling else []),
        # Before the work, whose memory it bounds.
        bound_bulk(bulk or Bulk()),
        # After what refuses calls for less, so that it costs nothing for them; before any I/O.
        validate(),
        # After validation, because what may be done depends on the keys in the request, and a malformed one is none.
        # Before anything is looked up, so that nobody learns from a denial what there is.
        *([authorize(permissions, metrics.denied)] if permissions else []),
        # Only now is the tenant known to be one, and one of the caller's: nobody uses up what others are allowed.
        *([throttle_tenants(throttling)] if throttling else []),
    )


def opening(access: tuple[Stage, ...], *, pushback: bool) -> tuple[Stage, ...]:
    """Return the stages that a stream passes before it begins, outermost first; none where nobody asks who calls."""
    return (identify, translate(pushback=pushback), *access) if access else ()


class Interceptor(grpc.aio.ServerInterceptor):
    """Applies ``stages`` to unary methods, and ``opening`` to the others, before they begin.

    What ``shortcuts`` answer goes past the stages.
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        opening: tuple[Stage, ...] = (),
        shortcuts: Mapping[Method, Shortcut] | None = None,
    ) -> None:
        self._stages = stages
        self._opening = opening
        self._shortcuts = shortcuts or {}
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the method's handler, wrapped in every stage."""
        path = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        streams = handler is not None and (handler.request_streaming or handler.response_streaming)
        if handler is None or (streams and not self._opening):
            return handler
        wrap = self._wrap_stream if streams else self._wrap
        wrapped = self._wrapped[path] = wrap(Method.parse(path), handler)
        return wrapped

    def _wrap(self, method: Method, handler: Any) -> Any:
        behaviour = _through(self._stages, method, handler.unary_unary)
        parse, encode = tolerant(handler.request_deserializer), handler.response_serializer
        shortcut = self._shortcuts.get(method)
        if shortcut:
            return grpc.unary_unary_rpc_method_handler(shortcut.before(behaviour, parse, encode))
        return grpc.unary_unary_rpc_method_handler(behaviour, parse, encode)

    def _wrap_stream(self, method: Method, handler: Any) -> Any:
        kind = f"{_cardinality(handler.request_streaming)}_{_cardinality(handler.response_streaming)}"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        behaviour = _opened(_through(self._opening, method, _nothing), getattr(handler, kind))
        return make(behaviour, handler.request_deserializer, handler.response_serializer)


def _through(stages: tuple[Stage, ...], method: Method, handler: Handler) -> Handler:
    for stage in reversed(stages):
        handler = stage(method, handler)
    return handler


def _cardinality(streaming: bool) -> str:
    return "stream" if streaming else "unary"


async def _nothing(_request: Any, _context: Context) -> None:
    """Stand for the stream that begins after the stages."""


def _opened(open_: Handler, behaviour: Any) -> Any:
    """Make ``behaviour``, of either of the two forms that grpc.aio knows, begin with ``open_``."""

    async def generator(request: Any, context: Context) -> AsyncIterator[Any]:
        await open_(request, context)
        async for response in behaviour(request, context):
            yield response

    async def coroutine(request: Any, context: Context) -> Any:
        await open_(request, context)
        return await behaviour(request, context)

    return generator if inspect.isasyncgenfunction(behaviour) else coroutine


def count_open(admission: Admission) -> Stage:
    """Tell the admission of every call that begins and ends."""

    def stage(_method: Method, proceed: Handler) -> Handler:
        async def handle(request: Any, context: Context) -> Any:
            admission.enter()
            try:
                return await proceed(request, context)
            finally:
                admission.leave()

        return handle

    return stage


def admit(admission: Admission) -> Stage:
    """Refuse calls of ours that are too many, or come while the server drains; health goes on answering."""

    def stage(method: Method, proceed: Handler) -> Handler:
        if method.service != SERVICE:
            return proceed

        async def handle(request: Any, context: Context) -> Any:
            admission.check()
            return await proceed(request, context)

        return handle

    return stage


def identify(_method: Method, proceed: Handler) -> Handler:
    """Make the call known to ``calls.current``."""

    async def handle(request: Any, context: Context) -> Any:
        calls.begin(context)
        return await proceed(request, context)

    return handle


def measure(metrics: Metrics) -> Stage:
    """Count and time calls, with the labels bound once per method."""

    def stage(method: Method, proceed: Handler) -> Handler:
        labels = ("unary", method.service, method.name)
        started = metrics.rpc_started.labels(*labels)
        received = metrics.rpc_received.labels(*labels)
        sent = metrics.rpc_sent.labels(*labels)
        seconds = metrics.rpc_seconds.labels(*labels)
        # Bound up front: a code that never came yet is a zero, not a gap.
        handled = {code: metrics.rpc_handled.labels(*labels, statuses.name_of(code)) for code in StatusCode}

        async def handle(request: Any, context: Context) -> Any:
            started.inc()
            received.inc()
            begun = time.perf_counter()
            code = StatusCode.OK
            try:
                response = await proceed(request, context)
            except BaseException as error:
                code = _code(error, context)
                raise
            else:
                sent.inc()
                return response
            finally:
                seconds.observe(time.perf_counter() - begun)
                handled[code].inc()

        return handle

    return stage


def record(sample: float) -> Stage:
    """Log calls, by the rules of ``AccessLog``."""
    access_log = AccessLog(sample)

    def stage(method: Method, proceed: Handler) -> Handler:
        async def handle(request: Any, context: Context) -> Any:
            begun = time.perf_counter()
            code = StatusCode.OK
            try:
                return await proceed(request, context)
            except BaseException as error:
                code = _code(error, context)
                raise
            finally:
                access_log.record(method.name, code, begun, calls.current())

        return handle

    return stage


def translate(*, pushback: bool) -> Stage:
    """Turn errors of the domain into their status, and everything else into INTERNAL with a fixed text."""

    def stage(_method: Method, proceed: Handler) -> Handler:
        async def handle(request: Any, context: Context) -> Any:
            try:
                return await proceed(request, context)
            except PointsmanError as error:
                await _abort(context, refusals.of_error(error, calls.current().request_id, pushback=pushback))
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except Exception:  # the boundary: no cause goes to the caller
                request_id = calls.current().request_id
                log.exception("a bug", request_id=request_id)
                await _abort(context, refusals.of_bug(request_id))

        return handle

    return stage


def limit(deadline: float) -> Stage:
    """Give calls without a deadline ours, in seconds."""

    def stage(_method: Method, proceed: Handler) -> Handler:
        async def handle(request: Any, context: Context) -> Any:
            remaining = context.time_remaining()
            if remaining is not None and remaining < calls.FOREVER:
                return await proceed(request, context)
            try:
                async with asyncio.timeout(deadline):
                    return await proceed(request, context)
            except TimeoutError:
                await _abort(context, refusals.of_deadline(deadline))

        return handle

    return stage


async def _abort(context: Context, refusal: Refusal) -> None:
    # Everything in one call, then abort: abort_with_status drops trailers that were set before it.
    context.set_trailing_metadata(refusal.trailers)
    await context.abort(refusal.code, refusal.text)


def _code(error: BaseException, context: Context) -> StatusCode:
    if isinstance(error, asyncio.CancelledError):
        remaining = context.time_remaining()
        return StatusCode.DEADLINE_EXCEEDED if remaining is not None and remaining <= 0 else StatusCode.CANCELLED
    code: Any = context.code()
    if isinstance(code, StatusCode):
        return code
    return _BY_NUMBER.get(code, StatusCode.UNKNOWN) if isinstance(code, int) and code else StatusCode.UNKNOWN


_BY_NUMBER = {code.value[0]: code for code in StatusCode}
