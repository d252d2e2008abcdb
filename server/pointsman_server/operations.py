"""The HTTP port for operations: metrics for Prometheus, health for people and for load balancers."""

from collections.abc import Callable

from aiohttp import web

from pointsman_server.monitoring import Monitor, State

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Operations:
    """Serves ``/metrics``, ``/health``, ``/health/ready`` and ``/health/live``."""

    def __init__(self, monitor: Monitor, render: Callable[[], bytes], draining: Callable[[], bool]) -> None:
        self._monitor = monitor
        self._render = render
        self._draining = draining
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/health", self._ready)
        application.router.add_get("/health/ready", self._ready)
        application.router.add_get("/health/live", self._live)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self, host: str, port: int, *, share: bool) -> int:
        """Listen; ``share`` lets several workers listen on one port. Returns the port. Raises OSError."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, reuse_port=share or None).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._render(), headers={"Content-Type": METRICS_TYPE})

    async def _ready(self, _request: web.Request) -> web.Response:
        ready = self._monitor.ready and not self._draining()
        status = "degraded" if self._monitor.degraded else "ready"
        body = {
            "status": status if ready else "not ready",
            "draining": self._draining(),
            "dependencies": {name: _document(state) for name, state in self._monitor.states.items()},
        }
        return web.json_response(body, status=200 if ready else 503)

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "live"})


def _document(state: State) -> dict[str, object]:
    return {"name": state.name, "required": state.required, "up": state.up, "detail": state.detail}
