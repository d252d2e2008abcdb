"""What one connection may take, the same on each transport."""

from dataclasses import dataclass

# The metadata that names a call, and how much of a caller's is kept.
REQUEST_ID = "x-request-id"
LONGEST_ID = 128


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The most bytes of a message and of the metadata of a call, and the most concurrent calls of a connection."""

    message_bytes: int = 1 << 20
    metadata_bytes: int = 16 << 10
    streams: int = 1000


@dataclass(frozen=True, slots=True)
class Connections:
    """Bounds of connections. Timeouts are in seconds; an ``idle`` or ``age`` of 0 is no limit.

    ``most``: connections open at once. ``unread``: how long a response may wait for a client that does not read.
    ``client_ping`` is the least time between two pings of a client, on grpcio alone. ``heap_bytes``, on Envoy alone,
    is the native memory beyond which calls are refused.
    """

    most: int = 10_000
    unread: float = 10.0
    heap_bytes: int = 1 << 30
    keepalive: float = 60.0
    keepalive_timeout: float = 20.0
    client_ping: float = 10.0
    idle: float = 0.0
    age: float = 0.0
