"""The redis-py client, configured as all of ours are."""

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def connect(url: str, timeout: float) -> Redis:
    """Make a client that never retries. ``timeout``: seconds to connect in; callers bound whole operations."""
    return Redis(
        connection_pool=ConnectionPool.from_url(
            url,
            max_connections=64,
            socket_timeout=None,  # asyncio.timeout bounds whole operations
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
    )
