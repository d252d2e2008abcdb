"""Where spans go, by OpenTelemetry's own variables."""

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from pointsman_server.telemetry.tracing import exporting
from pointsman_server.telemetry.tracing.exporting import TracingUnavailable, make_provider


@pytest.fixture(autouse=True)
def _nothing_global(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting.trace, "set_tracer_provider", lambda _provider: None)


def exporter(environ: dict[str, str]) -> Any:
    return exporting._exporter(environ)


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, OTLPSpanExporter),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, OTLPSpanExporter),
        ({"OTEL_TRACES_EXPORTER": "console"}, ConsoleSpanExporter),
        ({"OTEL_TRACES_EXPORTER": "none"}, type(None)),
    ],
)
def test_spans_go_where_the_environment_says(environ: dict[str, str], kind: type) -> None:
    made = exporter(environ)
    assert isinstance(made, kind)
    if made is not None:
        made.shutdown()


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER must be otlp, console or none, not zipkin"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, not grpc"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "must be http/protobuf, not grpc"),
    ],
)
def test_what_there_is_no_exporter_for_is_refused_in_words(environ: dict[str, str], text: str) -> None:
    with pytest.raises(TracingUnavailable, match=text):
        exporter(environ)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "pointsman-server"),
        ({"OTEL_SERVICE_NAME": "routes"}, "routes"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=routes"}, "routes"),
    ],
)
def test_the_service_has_its_name_unless_the_environment_has_another(
    environ: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    provider = make_provider(environ | {"OTEL_TRACES_EXPORTER": "none"}, "1.2.3")
    assert provider.resource.attributes["service.name"] == name
    assert provider.resource.attributes["service.version"] == "1.2.3"
