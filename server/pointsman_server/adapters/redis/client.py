"""Connections by redis-py, configured as all of ours are."""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from pointsman_server.adapters.redis.deployment import Address

MOST_CONNECTIONS = 64
# Seconds to connect in, with TLS, where nobody waits for it; callers bound whole operations.
CONNECT_SECONDS = 2.0


def make_pool(address: Address, options: Mapping[str, Any]) -> ConnectionPool:
    """Make a pool that never retries."""
    host, port = address
    where = {} if "path" in options else {"host": host, "port": port}
    return ConnectionPool(
        max_connections=MOST_CONNECTIONS,
        **{
            **where,
            **options,
            "socket_timeout": None,  # asyncio.timeout bounds whole operations
            "socket_connect_timeout": CONNECT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 0,
        },
    )
