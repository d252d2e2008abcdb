"""The floor: a bare server of one transport, whose Resolve returns a prepared answer and does nothing else.

``python -m tests.bench.noop grpcio`` serves until SIGTERM, and says on stderr at which port.
"""

import asyncio
import json
import signal
import sys
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceServicer, add_RouteServiceServicer_to_server
from pointsman_server.cli import demo_routes
from pointsman_server.domain.codec import route_to_message
from pointsman_server.domain.routes import Route
from pointsman_server.runtime import event_loop

REVISION = 1234


def route() -> Route:
    """Make the first route of the table, as the store would give it."""
    command = next(demo_routes.routes(1))
    now = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
    return Route(command.key, command.url, command.active, command.labels, REVISION, now, now)


def answer() -> pb.ResolveResponse:
    """Make an answer such as a server gives."""
    age = Duration(seconds=12, nanos=345678901)
    provenance = pb.Provenance(source=pb.Provenance.SOURCE_LOCAL, age=age, as_of_revision=REVISION)
    return pb.ResolveResponse(route=route_to_message(route()), provenance=provenance)


class Noop(RouteServiceServicer):
    """Answers everybody the same."""

    def __init__(self) -> None:
        self._answer = answer()

    async def Resolve(self, request: pb.ResolveRequest, context: Any) -> pb.ResolveResponse:  # noqa: N802
        return self._answer


async def serve(servicer: RouteServiceServicer, interceptor: grpc.aio.ServerInterceptor | None = None) -> None:
    """Serve by grpcio until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server(interceptors=[interceptor] if interceptor else [], options=[("grpc.so_reuseport", 0)])
    add_RouteServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say_port(port)
    await stop.wait()
    await server.stop(0)


def say_port(port: int) -> None:
    """Say on stderr that the server serves."""
    print(json.dumps({"event": "serving", "grpc_port": port}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "envoy":
        from tests.bench import noop_envoy

        noop_envoy.become()
    else:
        event_loop.run(serve(Noop()))
