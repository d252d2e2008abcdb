"""A server sends its spans to a collector, as the variables of OpenTelemetry say, under those of its caller."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from pointsman import AsyncClient, Client, RouteNotFound
from tests.support.processes import ServerProcess, serve
from tests.support.waiting import eventually

TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
KEY = "team-a/payments/prod/v1"
RESOLVE = "pointsman.v1.RouteService/Resolve"


class Collector:
    """Takes OTLP by HTTP, and keeps the spans by service and name."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.spans: list[tuple[str, str, str, str]] = []

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [
                    (names["service.name"], span.name, span.trace_id.hex(), span.parent_span_id.hex())
                    for span in scope.spans
                ]


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def caller() -> NonRecordingSpan:
    return NonRecordingSpan(SpanContext(TRACE, SPAN, False, TraceFlags(1)))


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
async def test_spans_reach_the_collector_under_those_of_the_caller(
    transport: str, database_url: str, redis_url: str
) -> None:
    environ = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "POINTSMAN_ROLES": "api",
        "POINTSMAN_LOG_LEVEL": "debug",
        "POINTSMAN_TRACING": "true",
        "OTEL_SERVICE_NAME": "routes",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with collecting() as collector:
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
        with serve("--transport", transport, **environ) as (process, address, _):
            with Client(address) as client:
                with pytest.raises(RouteNotFound):
                    client.resolve("team-a/not/sampled/v1")
                with trace.use_span(caller()), pytest.raises(RouteNotFound):
                    client.resolve(KEY)
            async with AsyncClient(address) as client:
                with trace.use_span(caller()), pytest.raises(RouteNotFound):
                    await client.resolve(KEY)
            wanted = ("routes", RESOLVE, f"{TRACE:032x}", f"{SPAN:016x}")
            assert eventually(lambda: collector.spans.count(wanted) == 2), (collector.spans, process.errors)
            assert {span[2] for span in collector.spans} == {f"{TRACE:032x}"}
            assert lines_of_trace(process)
            assert process.stop() == 0


def lines_of_trace(process: ServerProcess) -> list[str]:
    """Return the events of the lines that name the trace."""
    return [line["event"] for line in process.log_lines() if line.get("trace_id") == f"{TRACE:032x}"]


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_a_collector_that_is_away_holds_nothing_up(transport: str, database_url: str, redis_url: str) -> None:
    environ = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "POINTSMAN_ROLES": "api"}
    environ |= {"POINTSMAN_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    with serve("--transport", transport, **environ) as (process, address, _), Client(address) as client:
        for _ in range(20):
            with pytest.raises(RouteNotFound):
                client.resolve(KEY)
        assert process.stop() == 0
