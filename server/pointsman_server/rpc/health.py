"""The standard health service (grpc.health.v1), as Kubernetes and grpc_health_probe ask it.

``""``, ``pointsman.v1.RouteService`` and ``readiness`` say whether this server can answer reads; ``liveness`` says
that the process answers at all, so that nobody restarts a server because its database is down.
"""

from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pointsman_server.rpc import SERVICE

READY = ("", SERVICE, "readiness")
LIVE = "liveness"


class Health:
    """The health of this server, as told by ``ready`` and ``drain``."""

    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()
        self._draining = False

    def register(self, server: Any) -> None:
        """Add the service to a gRPC server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def ready(self, is_ready: bool) -> None:
        """Take over whether reads can be answered; without effect once draining."""
        if self._draining:
            return
        await self._servicer.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        for name in READY:
            await self._servicer.set(name, _status(is_ready))

    async def drain(self) -> None:
        """Say NOT_SERVING for everything but liveness, for good."""
        self._draining = True
        for name in READY:
            await self._servicer.set(name, _status(False))


def _status(serving: bool) -> Any:
    response = health_pb2.HealthCheckResponse
    return response.SERVING if serving else response.NOT_SERVING
