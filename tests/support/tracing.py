"""Spans in memory, and who is whose child."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.opentelemetry import OpenTelemetryTracer
from tests.support.waiting import eventually

NEVER = ParentBased(TraceIdRatioBased(0))
"""Samples what callers sample alone."""


class Collected:
    """The spans that have ended."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def __call__(self, trace_id: str = "") -> list[ReadableSpan]:
        """Return the spans, those of one trace if it is given, in the order in which they began."""
        found = [span for span in self._exporter.get_finished_spans() if not trace_id or trace_of(span) == trace_id]
        return sorted(found, key=lambda span: span.start_time or 0)

    def named(self, name: str, trace_id: str = "") -> ReadableSpan:
        """Wait for the span of a name, and return it."""
        assert eventually(lambda: any(span.name == name for span in self(trace_id)), 30), self.tree(trace_id)
        return next(span for span in self(trace_id) if span.name == name)

    def tree(self, trace_id: str = "") -> list[str]:
        """Return the names of spans, each under its parent."""
        found = self(trace_id)
        known = {id_of(span) for span in found}
        roots = [span for span in found if parent_of(span) not in known]
        return [line for root in roots for line in _lines(root, found, 0)]

    def clear(self) -> None:
        self._exporter.clear()


def _lines(span: ReadableSpan, among: Sequence[ReadableSpan], depth: int) -> Iterator[str]:
    yield "  " * depth + span.name
    for child in among:
        if parent_of(child) == id_of(span):
            yield from _lines(child, among, depth + 1)


def trace_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    return f"{context.trace_id:032x}" if context else ""


def id_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    return f"{context.span_id:016x}" if context else ""


def parent_of(span: ReadableSpan) -> str:
    """Return the id of the parent; empty without one."""
    return f"{span.parent.span_id:016x}" if span.parent else ""


def links_of(span: ReadableSpan) -> list[str]:
    """Return the ids of the spans that a span links to."""
    return [f"{link.context.span_id:016x}" for link in span.links]


@contextmanager
def tracing(sampler: Sampler = NEVER) -> Iterator[Collected]:
    """Trace what is made in the block, into memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans.use(OpenTelemetryTracer(provider))
    try:
        yield Collected(exporter)
    finally:
        spans.use(None)
