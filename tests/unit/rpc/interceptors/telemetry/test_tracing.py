"""The span of a call: its name, its end, and what is left untraced."""

from collections.abc import Iterator
from typing import Any, cast

import grpc
import pytest

from pointsman_server.rpc.call import begin_call, current_call
from pointsman_server.rpc.fastpath.handler import RESOLVE, FastMethod
from pointsman_server.rpc.interceptors.bulk_limit import Bulk
from pointsman_server.rpc.interceptors.chain import identify, through
from pointsman_server.rpc.interceptors.stage import Method
from pointsman_server.rpc.interceptors.telemetry.tracing import trace
from tests.support.call_context import CallContext
from tests.support.tracing import Collected, parent_of, trace_of, tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("x-request-id", "mine"))
UNSAMPLED = (("traceparent", f"00-{TRACE}-{SPAN}-00"),)


@pytest.fixture
def collected() -> Iterator[Collected]:
    with tracing() as found:
        yield found


async def call(method: Method, handler: Any, *metadata: tuple[str, str], remaining: float = 60.0) -> Any:
    context = cast("Any", CallContext(*metadata, remaining=remaining))
    return await through([identify, trace()], method, handler)(b"", context)


async def passed_on(_request: Any, _context: Any) -> str:
    return current_call().trace.traceparent


def refuse(code: grpc.StatusCode) -> Any:
    async def handler(_request: Any, context: Any) -> None:
        await context.abort(code, "canary")

    return handler


async def test_a_call_has_a_span_by_the_conventions_and_passes_it_on(collected: Collected) -> None:
    passed = await call(Method("s.Service", "M"), passed_on, *SAMPLED)

    (span,) = collected()
    assert (span.name, span.kind.name, trace_of(span), parent_of(span)) == ("s.Service/M", "SERVER", TRACE, SPAN)
    assert passed == f"00-{TRACE}-{span.get_span_context().span_id:016x}-01"
    assert dict(span.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "s.Service",
        "rpc.method": "M",
        "rpc.grpc.status_code": 0,
        "pointsman.request_id": "mine",
    }


@pytest.mark.parametrize(
    ("code", "failed"),
    [
        (grpc.StatusCode.NOT_FOUND, False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
        (grpc.StatusCode.UNAVAILABLE, True),
        (grpc.StatusCode.INTERNAL, True),
    ],
)
async def test_faults_of_the_server_alone_mark_the_span(
    collected: Collected, code: grpc.StatusCode, failed: bool
) -> None:
    with pytest.raises(grpc.aio.AbortError):
        await call(Method("s", "M"), refuse(code), *SAMPLED)

    (span,) = collected()
    assert (span.attributes or {})["rpc.grpc.status_code"] == code.value[0]
    assert (span.status.description == code.name) is failed
    assert "canary" not in span.to_json()


async def test_probes_are_not_traced(collected: Collected) -> None:
    await call(Method("grpc.health.v1.Health", "Check"), passed_on, *SAMPLED)
    assert collected() == []


@pytest.mark.parametrize(("metadata", "way", "names"), [(SAMPLED, b"chain", ["x/Resolve"]), (UNSAMPLED, b"fast", [])])
async def test_the_chain_serves_what_is_recorded_and_the_fast_path_the_rest(
    collected: Collected, metadata: Any, way: bytes, names: list[str]
) -> None:
    method = Method("x", "Resolve")
    fast = FastMethod(method, lambda _request, _context: b"fast", Bulk())

    async def by_chain(_request: Any, _context: Any) -> bytes:
        return b"chain"

    chain = through([identify, trace()], method, by_chain)
    handle = fast.before(chain, lambda request: request, lambda response: response)
    assert await handle(b"", cast("Any", CallContext(*metadata))) == way
    assert [span.name for span in collected()] == names


async def test_while_tracing_is_off_the_fast_path_looks_at_no_metadata() -> None:
    class NoMetadata(CallContext):
        def invocation_metadata(self) -> Any:
            raise AssertionError("it costs time")

    fast = FastMethod(RESOLVE, lambda _request, _context: b"fast", Bulk())
    handle = fast.before(passed_on, lambda request: request, lambda response: response)
    assert await handle(b"", cast("Any", NoMetadata())) == b"fast"


def test_a_call_without_a_span_passes_the_callers_context_on() -> None:
    context = cast("Any", CallContext(*UNSAMPLED, ("tracestate", "vendor=1")))
    assert begin_call(context).trace == (UNSAMPLED[0][1], "vendor=1")
