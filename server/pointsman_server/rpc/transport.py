"""The two gRPC servers behind one setting: grpcio, and pygrpc-native, whose HTTP/2 runs outside the GIL."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import grpc
from grpc_health.v1.health_pb2 import DESCRIPTOR as HEALTH
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.interceptors import Interceptor

Transport = Literal["grpcio", "native"]


class TransportUnavailable(Exception):
    """The transport that was asked for is not installed here."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call and one connection may be: bytes of a message, bytes of metadata, calls at once."""

    message_bytes: int = 1 << 20
    metadata_bytes: int = 16 << 10
    streams: int = 1000
    # Seconds that a connection lives, give or take a tenth; 0 for as long as it likes. grpcio alone has it.
    connection_age: int = 0


def choose(wanted: Literal["auto", "grpcio", "native"], *, tls: bool = False) -> Transport:
    """Pick the transport; only grpcio has ``tls``. Raises TransportUnavailable."""
    native_here = find_spec("pygrpc_native") is not None
    if wanted == "native" and not native_here:
        raise TransportUnavailable("transport native needs pygrpc-native, which has no wheel here: use grpcio or auto")
    if wanted == "auto":
        return "native" if native_here and not tls else "grpcio"
    return wanted


def sends_pushback(transport: Transport) -> bool:
    """Say whether ``grpc-retry-pushback-ms`` can be sent: pygrpc-native 0.5 refuses the name as reserved."""
    return transport == "grpcio"


def make_server(transport: Transport, interceptor: Interceptor, limits: Limits, *, share_port: bool) -> Any:
    """Make a server without services; ``share_port`` lets several workers listen on one port."""
    options = [
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        ("grpc.max_concurrent_streams", limits.streams),
    ]
    if limits.connection_age:
        # A call that runs has as long again to finish.
        options += [(f"grpc.max_connection_age{end}_ms", limits.connection_age * 1000) for end in ("", "_grace")]
    if transport == "grpcio":
        return grpc.aio.server(interceptors=[interceptor], options=options)
    # Not there on every platform. ("from pygrpc_native import aio" recurses in 0.5.0.)
    import pygrpc_native.aio

    return pygrpc_native.aio.server(interceptors=[interceptor], options=options)


def add_reflection(server: Any) -> None:
    """Let ``grpcurl list`` and its like work (grpc.reflection.v1alpha)."""
    names = (SERVICE, HEALTH.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(names)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
