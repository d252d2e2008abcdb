"""Spans while tracing is off: nothing happens, and nothing of OpenTelemetry is loaded."""

import subprocess
import sys

import pytest

from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.spans import NO_SPAN, Kind
from pointsman_server.telemetry.tracing.trace_context import NO_TRACE, TraceContext
from tests.support.tracing import tracing

SAMPLED = TraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "")


class Change:
    traceparent, tracestate = SAMPLED


def test_while_it_is_off_every_span_is_the_one_that_keeps_nothing() -> None:
    assert not spans.is_on()
    made = [
        spans.server("a", SAMPLED, {}),
        spans.span("a"),
        spans.of_many("a", Kind.INTERNAL, [SAMPLED]),
        spans.of_changes("a", Kind.PRODUCER, [Change()]),
    ]
    assert made == [NO_SPAN] * 4
    assert (spans.current(), spans.ids(), spans.exemplar()) == (None, None, None)
    with spans.resumed(NO_SPAN), NO_SPAN as span:
        span.set({"a": 1})
        span.link(SAMPLED)
        span.fail("why")
    assert (span.recording, span.context) == (False, NO_TRACE)


def test_an_error_leaves_the_block_of_a_span_that_keeps_nothing() -> None:
    with pytest.raises(LookupError), spans.span("a"):
        raise LookupError


def test_while_it_is_on_spans_of_changes_are_under_what_caused_the_change() -> None:
    with tracing() as collected:
        with spans.of_changes("a", Kind.PRODUCER, [Change()]):
            pass
        (span,) = collected()
    assert span.parent
    assert f"{span.parent.trace_id:032x}" in SAMPLED.traceparent


def test_a_server_that_does_not_trace_needs_nothing_of_opentelemetry() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import pointsman_server.app.application; print('loaded')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "loaded"
