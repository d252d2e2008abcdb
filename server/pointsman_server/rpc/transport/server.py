"""The two gRPC servers behind one setting: grpcio, and pygrpc-native, whose HTTP/2 runs outside the GIL."""

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
    """The transport that was asked for is not installed here."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one call and one connection may be: bytes of a message, bytes of metadata, calls at once."""

    message_bytes: int = 1 << 20
    metadata_bytes: int = 16 << 10
    streams: int = 1000


@dataclass(frozen=True, slots=True)
class Connections:
    """What the server asks of connections, in seconds; an idle time or an age of 0 is no limit.

    ``pending`` is how many calls may wait for Python. From there on grpcio cancels some without a reason, and from
    twice as many on all. Ours is the better answer; but those who are cancelled wait there too (rapid reset), and make
    others wait behind them: about 0.1 ms each.
    """

    keepalive: float = 60.0
    keepalive_timeout: float = 20.0
    client_ping: float = 10.0
    idle: float = 0.0
    age: float = 0.0
    pending: int = 4000

    def options(self) -> list[tuple[str, int]]:
        """Say it in channel options. pygrpc-native 0.5 knows those of the server's pings, and refuses idle and age."""
        options = [
            ("grpc.keepalive_time_ms", _ms(self.keepalive)),
            ("grpc.keepalive_timeout_ms", _ms(self.keepalive_timeout)),
            ("grpc.http2.ping_timeout_ms", _ms(self.keepalive_timeout)),
            # Else clients without a call may not ping more than once in two hours.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _ms(self.client_ping)),
            ("grpc.http2.max_ping_strikes", PING_STRIKES),
            # Else a connection begins 32 calls before another is looked at: rapid reset makes much of that.
            ("grpc.http2.max_requests_per_read", 1),
            ("grpc.server.max_pending_requests", self.pending),
            ("grpc.server.max_pending_requests_hard_limit", 2 * self.pending),
        ]
        lifetimes = {
            "grpc.max_connection_idle_ms": self.idle,
            "grpc.max_connection_age_ms": self.age,
            # Else a call that never ends keeps its connection for ever.
            "grpc.max_connection_age_grace_ms": self.age and AGE_GRACE_SECONDS,
        }
        return options + [(name, _ms(seconds)) for name, seconds in lifetimes.items() if seconds]


# How many pings too soon after another are forgiven. Messages of the server forgive them all.
PING_STRIKES = 2
# How long a connection of that age may finish its calls; longer than any unary call of ours.
AGE_GRACE_SECONDS = 60.0


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def choose(
    wanted: Literal["auto", "grpcio", "native"], *, tls: bool = False, lifetimes: bool = False, exposed: bool = False
) -> Transport:
    """Pick the transport. Raises TransportUnavailable.

    Only grpcio has ``tls``, closes connections by their ``lifetimes``, and is safe when ``exposed`` to strangers:
    pygrpc-native 0.5 reads a request to its end, and decompresses it, before it looks at the limit of its size.
    One call of 1 MB can so take 2 GB of memory.
    """
    native_here = find_spec("pygrpc_native") is not None
    if wanted == "native" and not native_here:
        raise TransportUnavailable("transport native needs pygrpc-native, which has no wheel here: use grpcio or auto")
    if wanted == "auto":
        return "native" if native_here and not (tls or lifetimes or exposed) else "grpcio"
    return wanted


def sends_pushback(transport: Transport) -> bool:
    """Say whether ``grpc-retry-pushback-ms`` can be sent: pygrpc-native 0.5 refuses the name as reserved."""
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
    # pygrpc-native is not there on every platform.
    from pointsman_server.rpc.transport.native import Server
    from pointsman_server.rpc.transport.native_calls import NativeCalls

    server = Server(interceptors=[interceptor], options=options)
    server.fast = {RESOLVE: NativeCalls(fast_path)} if fast_path else {}
    return server
