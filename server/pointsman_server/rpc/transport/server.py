"""The two gRPC servers to choose from: grpcio, and pygrpc-native, whose HTTP/2 runs outside the GIL."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import grpc

from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.fastpath.fast_path import FastPath
from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor

RESOLVE = f"/{SERVICE}/Resolve"
Transport = Literal["grpcio", "native"]


class TransportUnavailable(Exception):
    """The requested transport is not installed."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The most bytes of a message and of the metadata of a call, and the most concurrent calls of a connection."""

    message_bytes: int = 1 << 20
    metadata_bytes: int = 16 << 10
    streams: int = 1000


@dataclass(frozen=True, slots=True)
class Connections:
    """Timeouts of connections, in seconds; an ``idle`` or ``age`` of 0 is no limit.

    ``pending`` bounds the calls that wait for Python. Above it grpcio cancels some of them, and above twice as many
    all, without a reason. A higher bound lets more calls get the server's own refusal, which has one; but calls that
    their clients have cancelled (rapid reset) wait there too, and each delays those behind it by about 0.1 ms.
    """

    keepalive: float = 60.0
    keepalive_timeout: float = 20.0
    client_ping: float = 10.0
    idle: float = 0.0
    age: float = 0.0
    pending: int = 4000

    def options(self) -> list[tuple[str, int]]:
        """Return the channel options. pygrpc-native 0.5 supports the server's pings, and rejects idle and age."""
        options = [
            ("grpc.keepalive_time_ms", _ms(self.keepalive)),
            ("grpc.keepalive_timeout_ms", _ms(self.keepalive_timeout)),
            ("grpc.http2.ping_timeout_ms", _ms(self.keepalive_timeout)),
            # Without it, a client that has no open call may ping only once in two hours.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _ms(self.client_ping)),
            ("grpc.http2.max_ping_strikes", PING_STRIKES),
            # Without it, grpcio starts 32 calls of a connection before it serves another: rapid reset uses that.
            ("grpc.http2.max_requests_per_read", 1),
            ("grpc.server.max_pending_requests", self.pending),
            ("grpc.server.max_pending_requests_hard_limit", 2 * self.pending),
        ]
        lifetimes = {
            "grpc.max_connection_idle_ms": self.idle,
            "grpc.max_connection_age_ms": self.age,
            # Without it, a call that never ends keeps its connection open.
            "grpc.max_connection_age_grace_ms": self.age and AGE_GRACE_SECONDS,
        }
        return options + [(name, _ms(seconds)) for name, seconds in lifetimes.items() if seconds]


# How many pings may come too early. A message from the server resets the count.
PING_STRIKES = 2
# How long a connection that has reached its ``age`` may finish its calls: longer than any unary call.
AGE_GRACE_SECONDS = 60.0


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def choose(
    wanted: Literal["auto", "grpcio", "native"], *, tls: bool = False, lifetimes: bool = False, exposed: bool = False
) -> Transport:
    """Choose the transport. Raises TransportUnavailable.

    Only grpcio supports ``tls``, closes connections by their ``lifetimes``, and is safe where it is ``exposed`` to
    untrusted clients: pygrpc-native 0.5 reads and decompresses a whole request before it checks its size, so that one
    call of 1 MB can take 2 GB of memory.
    """
    native_here = find_spec("pygrpc_native") is not None
    if wanted == "native" and not native_here:
        raise TransportUnavailable("transport native needs pygrpc-native, which has no wheel here: use grpcio or auto")
    if wanted == "auto":
        return "native" if native_here and not (tls or lifetimes or exposed) else "grpcio"
    return wanted


def sends_pushback(transport: Transport) -> bool:
    """Return whether ``grpc-retry-pushback-ms`` can be sent: pygrpc-native 0.5 rejects the name as reserved."""
    return transport == "grpcio"


def make_server(
    transport: Transport,
    interceptor: Interceptor,
    limits: CallLimits,
    *,
    share_port: bool,
    connections: Connections = Connections(),
    fast_path: FastPath | None = None,
) -> Any:
    """Make a server without services; ``share_port`` lets several workers listen on one port."""
    options = [
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        ("grpc.max_concurrent_streams", limits.streams),
        *connections.options(),
    ]
    if transport == "grpcio":
        return grpc.aio.server(interceptors=[interceptor], options=options)
    # Imported here, because pygrpc-native has no wheel for some platforms.
    from pointsman_server.rpc.transport.native import Server
    from pointsman_server.rpc.transport.native_calls import NativeCalls

    server = Server(interceptors=[interceptor], options=options)
    server.fast = {RESOLVE: NativeCalls(fast_path)} if fast_path else {}
    return server
