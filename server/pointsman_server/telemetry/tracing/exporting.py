"""Where spans go, by OpenTelemetry's own variables (``OTEL_*``): the SDK reads them, and here is what it leaves.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor, SpanExporter

SERVICE = "pointsman-server"
PROTOCOL = "http/protobuf"


class TracingUnavailable(Exception):
    """Traces cannot be exported as the settings say; the text says what to do."""


def make_provider(environ: Mapping[str, str], version: str) -> TracerProvider:
    """Make the provider that the environment asks for. Raises TracingUnavailable."""
    provider = TracerProvider(resource=_resource(environ, version))
    if exporter := _exporter(environ):
        is_console = isinstance(exporter, ConsoleSpanExporter)
        provider.add_span_processor(SimpleSpanProcessor(exporter) if is_console else BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


def _resource(environ: Mapping[str, str], version: str) -> Resource:
    """Name the service, unless the environment does."""
    ours = {SERVICE_VERSION: version}
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        ours[SERVICE_NAME] = SERVICE
    return Resource.create(ours)


def _exporter(environ: Mapping[str, str]) -> SpanExporter | None:
    name = environ.get("OTEL_TRACES_EXPORTER", "") or "otlp"
    if name == "none":
        return None
    if name == "console":
        return ConsoleSpanExporter()
    if name != "otlp":
        raise TracingUnavailable(f"OTEL_TRACES_EXPORTER must be otlp, console or none, not {name}")
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", PROTOCOL):
        raise TracingUnavailable(
            f"OTEL_EXPORTER_OTLP_PROTOCOL must be {PROTOCOL}, not {protocol}: collectors take it at port 4318"
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
