"""The client passes the caller's trace on, and asks for nothing that the caller does not use."""

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.span import TraceState

from pointsman.rpc.trace_context import trace_metadata

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def span(state: dict[str, str] | None = None) -> NonRecordingSpan:
    known = TraceState(list((state or {}).items()))
    return NonRecordingSpan(SpanContext(int(TRACE, 16), int(SPAN, 16), False, TraceFlags(1), known))


@pytest.mark.parametrize(("state", "more"), [(None, ()), ({"vendor": "opaque"}, (("tracestate", "vendor=opaque"),))])
def test_the_current_span_is_passed_on(state: Any, more: tuple[tuple[str, str], ...]) -> None:
    with trace.use_span(span(state)):
        assert trace_metadata() == (("traceparent", f"00-{TRACE}-{SPAN}-01"), *more)


def test_outside_of_a_span_nothing_is() -> None:
    assert trace_metadata() == ()


def test_a_program_without_opentelemetry_loads_none_by_the_client() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import pointsman\n"
        "from pointsman.rpc.trace_context import trace_metadata\n"
        "print(trace_metadata(), 'opentelemetry.trace' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "() False"
