"""The trace of the caller, passed on with each call (W3C Trace Context)."""

import sys


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Return the context of OpenTelemetry's current span as metadata; nothing where it is not used or has none.

    Instrumentation of gRPC puts that of its own span in its place.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ()
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return ()
    parent = ("traceparent", f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}")
    state = span.trace_state.to_header()
    return (parent, ("tracestate", state)) if state else (parent,)
