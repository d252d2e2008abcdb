"""Spans by OpenTelemetry. Loaded only when tracing is on: the extra ``tracing`` brings what it imports."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Self

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from pointsman_server.telemetry.tracing.spans import NO_SPAN, Attributes, Kind, Span
from pointsman_server.telemetry.tracing.trace_context import NO_TRACE, TraceContext

SCOPE = "pointsman_server"
_KINDS = {kind: SpanKind[kind] for kind in Kind}


class OpenTelemetryTracer:
    """``spans.Tracer`` on a provider of OpenTelemetry's SDK."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(SCOPE)
        # By default, a call that its caller does not sample needs no sampler.
        self._follows_parent = isinstance(provider.sampler, ParentBased)

    def current(self) -> Span | None:
        current = trace.get_current_span()
        return OpenTelemetrySpan(current) if current.is_recording() else None

    def server(self, name: str, parent: TraceContext, attributes: Attributes) -> Span:
        if not parent.traceparent:
            begun = self._tracer.start_span(name, Context(), SpanKind.SERVER, attributes)
        elif self._follows_parent and not parent.sampled:
            begun = NonRecordingSpan(to_span_context(parent))
        else:
            begun = self._tracer.start_span(name, _under(parent), SpanKind.SERVER, attributes)
        return OpenTelemetrySpan(begun, marks_errors=False)

    def child(self, name: str, kind: Kind, attributes: Attributes) -> Span:
        if not trace.get_current_span().is_recording():
            return NO_SPAN
        return OpenTelemetrySpan(self._tracer.start_span(name, None, _KINDS[kind], attributes))

    def of_many(self, name: str, kind: Kind, causes: Sequence[TraceContext], attributes: Attributes) -> Span:
        sampled = list(dict.fromkeys(cause for cause in causes if cause.sampled))
        if not sampled:
            return NO_SPAN
        links = [Link(to_span_context(cause)) for cause in sampled] if len(sampled) > 1 else []
        return OpenTelemetrySpan(self._tracer.start_span(name, _under(sampled[0]), _KINDS[kind], attributes, links))

    def resumed(self, span: Span) -> AbstractContextManager[object]:
        return _resumed(span.of_opentelemetry) if isinstance(span, OpenTelemetrySpan) else NO_SPAN

    def ids(self) -> tuple[str, str] | None:
        current = trace.get_current_span().get_span_context()
        return (f"{current.trace_id:032x}", f"{current.span_id:016x}") if current.is_valid else None


class OpenTelemetrySpan:
    """``spans.Span`` on one of OpenTelemetry; ``marks_errors``: whether an error that leaves the block marks it.

    Of an error it keeps the type alone: texts may quote what callers sent.
    """

    __slots__ = ("_marks_errors", "_token", "of_opentelemetry")

    def __init__(self, of_opentelemetry: trace.Span, *, marks_errors: bool = True) -> None:
        self.of_opentelemetry = of_opentelemetry
        self._marks_errors = marks_errors

    @property
    def recording(self) -> bool:
        return self.of_opentelemetry.is_recording()

    @property
    def context(self) -> TraceContext:
        known = self.of_opentelemetry.get_span_context()
        if not known.is_valid:
            return NO_TRACE
        parent = f"00-{known.trace_id:032x}-{known.span_id:016x}-{known.trace_flags:02x}"
        return TraceContext(parent, known.trace_state.to_header())

    def set(self, attributes: Attributes) -> None:
        self.of_opentelemetry.set_attributes(attributes)

    def link(self, context: TraceContext) -> None:
        if context.traceparent:
            self.of_opentelemetry.add_link(to_span_context(context))

    def fail(self, description: str) -> None:
        self.of_opentelemetry.set_status(Status(StatusCode.ERROR, description))

    def __enter__(self) -> Self:
        self._token = contexts.attach(trace.set_span_in_context(self.of_opentelemetry))
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None and self._marks_errors:
            self.set({"error.type": type(error).__qualname__})
            if not isinstance(error, asyncio.CancelledError):
                self.fail(type(error).__qualname__)
        contexts.detach(self._token)
        self.of_opentelemetry.end()


@contextmanager
def _resumed(span: trace.Span) -> Iterator[None]:
    with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
        yield


def to_span_context(context: TraceContext) -> SpanContext:
    """Convert the context of a span of another process, which is valid."""
    _, trace_id, span_id, flags = context.traceparent.split("-")
    state = TraceState.from_header([context.tracestate]) if context.tracestate else None
    return SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=state,
    )


def _under(parent: TraceContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(to_span_context(parent)), Context())
