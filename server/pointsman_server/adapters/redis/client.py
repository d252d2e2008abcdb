"""How we connect to Redis, wherever we do."""

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def connect(url: str, timeout: float) -> Redis:
    """Make a client that tries once: ``timeout`` in seconds is for a new connection, callers bound whole operations."""
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
