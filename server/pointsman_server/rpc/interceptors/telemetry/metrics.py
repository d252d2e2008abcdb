"""Counts and times calls and their messages, by the names of go-grpc-middleware."""

import time
from collections.abc import Awaitable
from typing import Any

from grpc import StatusCode

from pointsman_server.rpc import statuses
from pointsman_server.rpc.call import Context, code_of
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, Stage
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.tracing.spans import exemplar


def measure(metrics: Metrics) -> Stage:
    """Count and time calls, with the labels bound once per method."""

    def stage(method: Method, proceed: CallHandler) -> CallHandler:
        labels = (method.grpc_type, method.service, method.name)
        started = metrics.rpc_started.labels(*labels)
        seconds = metrics.rpc_seconds.labels(*labels)
        # Bound up front: a code that has not occurred yet is a zero, not a gap.
        handled = {code: metrics.rpc_handled.labels(*labels, statuses.name_of(code)) for code in StatusCode}
        work = _count_messages(metrics, method, proceed)

        async def handle(request: Any, context: Context) -> Any:
            started.inc()
            begun = time.perf_counter()
            code = StatusCode.OK
            try:
                return await work(request, context)
            except BaseException as error:
                code = code_of(error, context)
                raise
            finally:
                seconds.observe(time.perf_counter() - begun, exemplar())
                handled[code].inc()

        return handle

    return stage


def _count_messages(metrics: Metrics, method: Method, proceed: CallHandler) -> CallHandler:
    labels = (method.grpc_type, method.service, method.name)
    received, sent = metrics.rpc_received.labels(*labels), metrics.rpc_sent.labels(*labels)

    async def handle(request: Any, context: Context) -> Any:
        received.inc()
        response = await proceed(request, context)
        sent.inc()
        return response

    def count_request(_request: Any, _context: Any) -> None:
        received.inc()

    async def handle_requests(requests: Any, context: Any) -> Any:
        context.received.append(count_request)
        response = await proceed(requests, context)
        sent.inc()
        return response

    # No coroutine of its own, which would be kept as long as the stream.
    def handle_responses(request: Any, context: Any) -> Awaitable[Any]:
        if method.request_streaming:
            context.received.append(count_request)
        else:
            received.inc()
        context.sent.append(sent.inc)
        return proceed(request, context)

    if method.response_streaming:
        return handle_responses
    return handle_requests if method.request_streaming else handle
