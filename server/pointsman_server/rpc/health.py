"""The standard health service (grpc.health.v1), for Kubernetes, grpc_health_probe and balancers.

``""``, ``pointsman.v1.RouteService`` and ``readiness`` say whether this server can answer reads; ``liveness`` says
that the process answers at all, so that a server is not restarted because its database is down.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from pointsman_server.rpc import SERVICE

LIVE = "liveness"

SERVING = pb.HealthCheckResponse.SERVING
NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no stubs
    """The health of this server, set by ``ready`` and ``drain``: NOT_SERVING until the first of them.

    ``service`` is what is served on the port.
    """

    def __init__(self, service: str = SERVICE) -> None:
        self._ready = ("", service, "readiness")
        self._statuses = {LIVE: SERVING} | dict.fromkeys(self._ready, NOT_SERVING)
        # Set at a change, and replaced by another for the next one.
        self._changed = asyncio.Event()
        self._draining = False

    def register(self, server: Any) -> None:
        """Add the service to a gRPC server."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    async def ready(self, is_ready: bool) -> None:
        """Set whether reads can be answered; without effect once draining."""
        if not self._draining:
            self._set_ready(is_ready)

    async def drain(self) -> None:
        """Set NOT_SERVING for everything but liveness; ``ready`` has no effect from then on."""
        self._draining = True
        self._set_ready(False)

    async def Check(self, request: pb.HealthCheckRequest, context: Any) -> pb.HealthCheckResponse:
        """Return the status of one service; NOT_FOUND for an unknown one."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return pb.HealthCheckResponse(status=status)

    async def List(self, request: pb.HealthListRequest, context: Any) -> pb.HealthListResponse:
        """Return the status of every service."""
        listed = {name: pb.HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        return pb.HealthListResponse(statuses=listed)

    async def Watch(self, request: pb.HealthCheckRequest, context: Any) -> AsyncIterator[pb.HealthCheckResponse]:
        """Send the status of one service, and again when it has changed; SERVICE_UNKNOWN for an unknown one."""
        sent = None
        while True:
            while (status := self._status(request.service)) == sent:
                await self._changed.wait()
            sent = status
            yield pb.HealthCheckResponse(status=status)

    def _status(self, service: str) -> Any:
        return self._statuses.get(service, SERVICE_UNKNOWN)

    def _set_ready(self, is_ready: bool) -> None:
        statuses = self._statuses | dict.fromkeys(self._ready, SERVING if is_ready else NOT_SERVING)
        # Set every second: thousands of watchers must not wake for nothing.
        if statuses != self._statuses:
            self._statuses = statuses
            self._changed.set()
            self._changed = asyncio.Event()
