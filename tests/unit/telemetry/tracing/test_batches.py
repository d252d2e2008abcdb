"""The span of a batch is under the first caller, and links lead to and from the others."""

from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.batches import BatchSpans
from pointsman_server.telemetry.tracing.spans import Kind, Span
from pointsman_server.telemetry.tracing.trace_context import TraceContext
from tests.support.tracing import id_of, links_of, parent_of, tracing

BATCHES = BatchSpans("commit")


def caller(number: int) -> Span:
    """Begin a span in a trace of its own, and return what the batch knows of it."""
    parent = TraceContext(f"00-{number:032x}-{number:016x}-01")
    span = spans.server(f"call {number}", parent, {})
    span.__enter__()
    found = BATCHES.caller()
    assert found is not None
    return found


def test_one_caller_is_the_parent() -> None:
    with tracing() as collected:
        only = caller(1)
        with BATCHES.running([only, only], 2):
            pass
        (batch,) = collected()
    assert parent_of(batch) in only.context.traceparent
    assert links_of(batch) == []
    assert dict(batch.attributes or {}) == {"pointsman.batch.size": 2}


def test_several_callers_are_linked_and_link_back() -> None:
    with tracing() as collected:
        callers = [caller(number) for number in (1, 2, 3)]
        with BATCHES.running(callers, 3):
            pass
        for each in callers:
            each.__exit__(None, None, None) if hasattr(each, "_token") else each.of_opentelemetry.end()  # type: ignore[attr-defined]
        batch, *calls = sorted(collected(), key=lambda span: span.name != "commit")
    assert sorted(links_of(batch)) == sorted(map(id_of, calls))
    by_name = {span.name: span for span in calls}
    assert parent_of(batch) == id_of(by_name["call 1"])
    assert links_of(by_name["call 1"]) == []
    assert links_of(by_name["call 2"]) == links_of(by_name["call 3"]) == [id_of(batch)]


def test_who_is_not_sampled_is_not_known() -> None:
    assert BATCHES.caller() is None
    with tracing():
        unsampled = TraceContext(f"00-{1:032x}-{1:016x}-00")
        with spans.server("call", unsampled, {}):
            assert BATCHES.caller() is None
        assert not spans.of_many("commit", Kind.INTERNAL, [unsampled]).recording
