"""The gRPC server of grpcio: the reference, for every platform."""

from typing import Any

import grpc

from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.rpc.transport.limits import CallLimits, Connections

# How many pings may come too early. A message from the server resets the count.
PING_STRIKES = 2
# How long a connection that has reached its ``age`` may finish its calls: longer than any unary call.
AGE_GRACE_SECONDS = 60.0
# Calls that wait for Python. Above it grpcio cancels some of them, and above twice as many all, without a reason. A
# higher bound lets more calls get the server's own refusal, which has one; but calls that their clients have cancelled
# (rapid reset) wait there too, and each delays those behind it by about 0.1 ms.
PENDING_CALLS = 4000
# After the last handler has ended: grpcio closes connections before it has written everything, also in its own
# ``stop``, and does not say when it has.
SETTLE_SECONDS = 0.1
# How long clients may take to close their connections after GOAWAY. Then grpcio cancels what is open: a call that was
# on its way would come to its client as CANCELLED, and not as UNAVAILABLE, which is retried.
STOP_GRACE_SECONDS = 2.0


def make_server(
    interceptor: Interceptor,
    limits: CallLimits,
    *,
    share_port: bool,
    connections: Connections,
    small_requests: bool = False,
) -> Any:
    """Make a server without services; ``share_port`` lets several workers listen on one port.

    Unless for ``small_requests``, grpcio measures the bandwidth of connections by pings, about one for each message
    that comes alone, to receive large messages faster.
    """
    options = [
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.http2.bdp_probe", int(not small_requests)),
        *connection_options(connections),
    ]
    return grpc.aio.server(interceptors=[interceptor], options=options)


def connection_options(connections: Connections) -> list[tuple[str, int]]:
    """Return the channel options of ``connections``."""
    options = [
        ("grpc.max_allowed_incoming_connections", connections.most),
        ("grpc.keepalive_time_ms", _ms(connections.keepalive)),
        ("grpc.keepalive_timeout_ms", _ms(connections.keepalive_timeout)),
        ("grpc.http2.ping_timeout_ms", _ms(connections.keepalive_timeout)),
        # Without it, a client that has no open call may ping only once in two hours.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(connections.client_ping)),
        ("grpc.http2.max_ping_strikes", PING_STRIKES),
        # Without it, grpcio starts 32 calls of a connection before it serves another: rapid reset uses that.
        ("grpc.http2.max_requests_per_read", 1),
        ("grpc.server.max_pending_requests", PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * PENDING_CALLS),
    ]
    lifetimes = {
        "grpc.max_connection_idle_ms": connections.idle,
        "grpc.max_connection_age_ms": connections.age,
        # Without it, a call that never ends keeps its connection open.
        "grpc.max_connection_age_grace_ms": connections.age and AGE_GRACE_SECONDS,
    }
    return options + [(name, _ms(seconds)) for name, seconds in lifetimes.items() if seconds]


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
