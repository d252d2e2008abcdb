"""Spans of OpenTelemetry: who decides what is recorded, what is passed on, and what is left out."""

import asyncio

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import StatusCode

from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.opentelemetry import to_span_context
from pointsman_server.telemetry.tracing.spans import NO_SPAN, Kind
from pointsman_server.telemetry.tracing.trace_context import NO_TRACE, TraceContext
from tests.support.tracing import id_of, parent_of, trace_of, tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = TraceContext(f"00-{TRACE}-{SPAN}-01", "vendor=opaque")
UNSAMPLED = TraceContext(f"00-{TRACE}-{SPAN}-00", "vendor=opaque")


def test_a_call_is_recorded_as_its_caller_is_and_passes_its_own_span_on() -> None:
    with tracing() as collected:
        with spans.server("call", SAMPLED, {"a": 1}) as span:
            passed = span.context
        (found,) = collected()
    assert (trace_of(found), parent_of(found)) == (TRACE, SPAN)
    assert passed == (f"00-{TRACE}-{id_of(found)}-01", "vendor=opaque")


def test_a_call_that_its_caller_does_not_record_passes_the_callers_context_on() -> None:
    with tracing() as collected:
        with spans.server("call", UNSAMPLED, {}) as span:
            assert span.context == UNSAMPLED
            assert spans.span("work") is NO_SPAN
            assert spans.ids() == (TRACE, SPAN)
            assert spans.exemplar() is spans.current() is None
        assert collected() == []


def test_another_sampler_than_the_parents_decides_by_itself() -> None:
    with tracing(ALWAYS_ON) as collected:
        with spans.server("call", UNSAMPLED, {}):
            pass
        assert [span.name for span in collected()] == ["call"]


@pytest.mark.parametrize(("sampler", "names"), [(None, []), (ParentBased(ALWAYS_ON), ["call"])])
def test_without_a_callers_trace_the_sampler_decides(sampler, names: list[str]) -> None:  # type: ignore[no-untyped-def]
    with tracing(sampler) if sampler else tracing() as collected:
        with spans.server("call", NO_TRACE, {}):
            pass
        assert [span.name for span in collected()] == names


def test_spans_are_nested_and_metrics_name_the_current_one() -> None:
    with tracing() as collected:
        with spans.server("call", SAMPLED, {}), spans.span("work", Kind.CLIENT, {"a": "b"}):
            example = spans.exemplar()
        assert collected.tree() == ["call", "  work"]
        work = collected.named("work")
    assert example == {"trace_id": TRACE, "span_id": id_of(work)}
    assert (work.kind.name, dict(work.attributes or {})) == ("CLIENT", {"a": "b"})


def test_an_error_marks_a_span_by_its_type_and_its_text_is_left_out() -> None:
    with tracing() as collected:
        with pytest.raises(LookupError), spans.server("call", SAMPLED, {}), spans.span("work"):
            raise LookupError("canary")
        work, call = collected.named("work"), collected.named("call")
    assert (work.status.status_code, work.status.description) == (StatusCode.ERROR, "LookupError")
    assert dict(work.attributes or {}) == {"error.type": "LookupError"}
    assert "canary" not in work.to_json()
    # Of a call, the status decides.
    assert call.status.is_unset


def test_a_cancellation_is_no_failure() -> None:
    with tracing() as collected:
        with pytest.raises(asyncio.CancelledError), spans.server("call", SAMPLED, {}), spans.span("work"):
            raise asyncio.CancelledError
        assert collected.named("work").status.is_unset


def test_work_of_another_task_goes_on_under_a_span_that_it_did_not_begin() -> None:
    with tracing() as collected:
        with spans.server("call", SAMPLED, {}):
            load = spans.current()
        assert spans.span("outside") is NO_SPAN
        with spans.server("other", SAMPLED, {}) as other, spans.resumed(other), spans.span("work"):
            pass
        with spans.resumed(None):
            assert spans.current() is None
        assert collected.tree() == ["call", "other", "  work"]
    assert load is not None


def test_a_context_is_read_as_one_of_another_process() -> None:
    found = to_span_context(SAMPLED)
    assert (found.is_remote, found.trace_flags.sampled) == (True, True)
    assert found.trace_state.to_header() == "vendor=opaque"
