"""Turns tracing on for a process, where the settings say so."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from importlib.util import find_spec

from pointsman_server.config.settings import Settings
from pointsman_server.telemetry.tracing import spans

NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
INSTALL = "POINTSMAN_TRACING is on, and OpenTelemetry is not installed: pip install 'pointsman-server[tracing]'"


class TracingMissing(Exception):
    """OpenTelemetry is not installed."""


def require_tracing(settings: Settings) -> None:
    """Raise TracingMissing where tracing is on and cannot be."""
    if settings.tracing and not all(map(_is_installed, NEEDED)):
        raise TracingMissing(INSTALL)


def begin_tracing(settings: Settings) -> Callable[[], Awaitable[None]] | None:
    """Turn tracing on; return what ends it and exports what is left. None where it is off.

    Raises TracingMissing, and TracingUnavailable as a TracingMissing.
    """
    if not settings.tracing:
        return None
    require_tracing(settings)
    from pointsman_server.telemetry.tracing.exporting import TracingUnavailable, make_provider
    from pointsman_server.telemetry.tracing.opentelemetry import OpenTelemetryTracer

    try:
        provider = make_provider(os.environ, version("pointsman-server"))
    except TracingUnavailable as error:
        raise TracingMissing(str(error)) from error
    spans.use(OpenTelemetryTracer(provider))

    async def end() -> None:
        spans.use(None)
        await asyncio.to_thread(provider.shutdown)

    return end


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
