"""What operators get by HTTP: metrics for Prometheus, health for people and for load balancers."""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pointsman_server.ops.health_monitor import DependencyState, HealthMonitor
from pointsman_server.ops.readiness import Readiness

# Renders the metrics in the format that an Accept field asks for; returns them and their media type.
RenderMetrics = Callable[[str], tuple[bytes, str]]


class Endpoints:
    """Answers ``/metrics``, ``/health``, ``/health/ready`` and ``/health/live``. ``application`` serves them (ASGI).

    GET and HEAD alone: another method gets 405, another path 404. Responses are compressed for a client that accepts
    gzip.
    """

    def __init__(self, monitor: HealthMonitor, readiness: Readiness, render: RenderMetrics) -> None:
        self._monitor = monitor
        self._readiness = readiness
        self._render = render
        self.application = Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/health", self._ready),
                Route("/health/ready", self._ready),
                Route("/health/live", self._live),
            ],
            middleware=[Middleware(AbsoluteForm), Middleware(GZipMiddleware)],
        )
        self.application.router.redirect_slashes = False

    async def _metrics(self, request: Request) -> Response:
        # Several Accept fields are one list (RFC 9110, 5.3).
        body, media_type = self._render(",".join(request.headers.getlist("accept")))
        return Response(body, headers={"Content-Type": media_type, "Vary": "Accept"})

    async def _ready(self, _request: Request) -> Response:
        readiness, ready = self._readiness, self._readiness.ready
        status = "degraded" if self._monitor.degraded else "ready"
        body: dict[str, object] = {"status": status if ready else "not ready", "draining": readiness.draining}
        if waiting_for := readiness.waiting_for:
            body["waiting_for"] = waiting_for
        body["dependencies"] = {name: _document(state) for name, state in self._monitor.states.items()}
        return JSONResponse(body, 200 if ready else 503)

    async def _live(self, _request: Request) -> Response:
        return JSONResponse({"status": "live"})


class AbsoluteForm:
    """Accepts requests that name their whole URL, as RFC 9112, 3.2.2 requires of every server; uvicorn leaves it."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(("http://", "https://")):
            scope = {**scope, "path": urlsplit(scope["path"]).path or "/"}
        await self._application(scope, receive, send)


def _document(state: DependencyState) -> dict[str, object]:
    since = datetime.fromtimestamp(state.since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "name": state.name,
        "required": state.required,
        "up": state.up,
        "detail": state.detail,
        "since": since if state.since else None,
    }
