"""What operations can ask by HTTP: metrics for Prometheus, health for people and for load balancers."""

import json
from collections.abc import Callable
from http import HTTPStatus

from pointsman_server.ops.health_monitor import DependencyState, HealthMonitor
from pointsman_server.ops.http_server import Answer, HttpPort

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
JSON_TYPE = "application/json; charset=utf-8"


class Operations:
    """Serves ``/metrics``, ``/health``, ``/health/ready`` and ``/health/live``."""

    def __init__(self, monitor: HealthMonitor, render: Callable[[], bytes], draining: Callable[[], bool]) -> None:
        self._monitor = monitor
        self._render = render
        self._draining = draining
        self._port = HttpPort(
            {
                "/metrics": self._metrics,
                "/health": self._ready,
                "/health/ready": self._ready,
                "/health/live": self._live,
            }
        )

    async def start(self, host: str, port: int, *, share: bool) -> int:
        """Listen; ``share`` lets several workers listen on one port. Returns the port. Raises OSError."""
        return await self._port.start(host, port, share=share)

    async def stop(self) -> None:
        """Stop listening."""
        await self._port.stop()

    def _metrics(self) -> Answer:
        return Answer(self._render(), METRICS_TYPE)

    def _ready(self) -> Answer:
        ready = self._monitor.ready and not self._draining()
        status = "degraded" if self._monitor.degraded else "ready"
        body = {
            "status": status if ready else "not ready",
            "draining": self._draining(),
            "dependencies": {name: _document(state) for name, state in self._monitor.states.items()},
        }
        return _json(body, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    def _live(self) -> Answer:
        return _json({"status": "live"})


def _json(document: object, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(json.dumps(document).encode(), JSON_TYPE, status)


def _document(state: DependencyState) -> dict[str, object]:
    return {"name": state.name, "required": state.required, "up": state.up, "detail": state.detail}
