"""The span of a call, by the semantic conventions of OpenTelemetry for gRPC servers.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
"""

from typing import Any

from grpc import StatusCode

from pointsman_server.rpc.call import Call, Context, begin_call, code_of, current_call
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, Stage
from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.spans import Span

# Probes ask for health every few seconds.
UNTRACED = frozenset({"grpc.health.v1.Health"})
# Of what a server sends, these are its own faults.
FAULTS = frozenset(
    {
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.UNIMPLEMENTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)


def trace() -> Stage:
    """Record each call under the span of its caller. What the call causes is recorded under its own."""

    def stage(method: Method, proceed: CallHandler) -> CallHandler:
        if method.service in UNTRACED:
            return proceed

        async def handle(request: Any, context: Context) -> Any:
            call = current_call()
            with call.span or begin_span(method, call) as span:
                code = StatusCode.OK
                try:
                    return await proceed(request, context)
                except BaseException as error:
                    code = code_of(error, context)
                    raise
                finally:
                    _end(span, code)

        return handle

    return stage


def begin_span(method: Method, call: Call) -> Span:
    """Begin the span of ``call``, which from now on passes it on instead of its caller's."""
    attributes = {
        "rpc.system": "grpc",
        "rpc.service": method.service,
        "rpc.method": method.name,
        "pointsman.request_id": call.request_id,
    }
    call.span = span = spans.server(f"{method.service}/{method.name}", call.trace, attributes)
    return span


def is_sampled(method: Method, context: Context) -> bool:
    """Begin a call that the fast path would serve, and its span; say whether that is recorded, so the chain serves it.

    The chain has more to record. Of other calls nothing is.
    """
    call = begin_call(context)
    return begin_span(method, call).recording


def _end(span: Span, code: StatusCode) -> None:
    span.set({"rpc.grpc.status_code": code.value[0]})
    if code in FAULTS:
        span.fail(code.name)
