"""Values and helpers of the contract suite of ``ports.RouteCache``."""

from datetime import UTC, datetime
from typing import Any, Protocol

from redis.asyncio import Redis, RedisCluster

from pointsman.selection import POINTS
from pointsman_server.adapters.redis.cache import Lifetimes, RedisCache
from pointsman_server.adapters.redis.deployment import Deployment
from pointsman_server.adapters.redis.names import KeyNames
from pointsman_server.domain.routes import Family, Route, RouteKey, Snapshot, Traffic
from pointsman_server.domain.traffic import Division, Slice, Target
from pointsman_server.ports.cache import CacheUnavailable, Lookup, RouteCache
from tests.support.fakes import MemoryCache, Wire

K1, K2, K3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
BORN = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
LARGE = 2**53  # beyond it, a double cannot tell neighbours apart
PATIENCE = 5.0
READER, WRITER = "reader", "writer"
LIFETIMES = Lifetimes(value=300.0, absence=30.0, lease=10.0, mark=8.0)
MISS, LEASED = Lookup(), Lookup(leased=True)


def at(as_of: int, key: RouteKey = K1, *, labels: dict[str, str] | None = None) -> Snapshot:
    """Make the snapshot of a route that was written at ``as_of``."""
    return Snapshot(key, Route(key, f"https://r{as_of}.internal", True, labels or {}, as_of, BORN, BORN), as_of)


def absent(as_of: int, key: RouteKey = K1) -> Snapshot:
    return Snapshot(key, None, as_of)


def family_at(as_of: int, key: RouteKey = K1.family_key) -> Snapshot:
    """Make the snapshot of a family whose only route and traffic were written at ``as_of``."""
    one = key._replace(version="v1")
    route = Route(one, f"https://r{as_of}.internal", True, {}, as_of, BORN, BORN)
    division = Division((Target("v1", POINTS),), ("v2",))
    return Snapshot(
        key, Family(key, Traffic(key, division, (Slice("v1", POINTS),), as_of, BORN, BORN), (route,)), as_of
    )


def hit(snapshot: Snapshot) -> Lookup:
    return Lookup(snapshot)


class Harness:
    """A cache, and what its operator or its memory limit may do to it."""

    def __init__(self, cache: RouteCache) -> None:
        self.cache = cache

    async def get(self, key: RouteKey = K1, owner: str = READER) -> Lookup:
        (found,) = await self.cache.get([key], owner)
        return found

    async def hold(self, *snapshots: Snapshot) -> None:
        """Fill the cache as readers do."""
        for snapshot in snapshots:
            assert await self.get(snapshot.key, "filler") == LEASED
            await self.cache.fill([snapshot], "filler")
            assert await self.get(snapshot.key) == hit(snapshot)

    async def flush(self) -> None:
        """Lose everything."""
        raise NotImplementedError

    async def evict(self, key: RouteKey) -> None:
        """Lose one key."""
        raise NotImplementedError

    async def lapse(self, key: RouteKey) -> float:
        """Let the time of a key run out; say how many seconds it had left."""
        raise NotImplementedError


class MemoryHarness(Harness):
    def __init__(self) -> None:
        self.memory = MemoryCache()
        super().__init__(self.memory)

    async def flush(self) -> None:
        self.memory.flush()

    async def evict(self, key: RouteKey) -> None:
        del self.memory.entries[key]

    async def lapse(self, key: RouteKey) -> float:
        left = self.memory.entries[key].expires_at - self.memory.now()
        self.memory.now.advance(left)
        return left


class RedisHarness(Harness):
    def __init__(self, url: str, redis: Redis | RedisCluster) -> None:
        self._cache = RedisCache(url, timeout=PATIENCE, lifetimes=LIFETIMES)
        super().__init__(self._cache)
        self.redis: Any = redis  # its two clients have no common type
        self._names = KeyNames("pointsman", clustered="+cluster" in url)

    async def close(self) -> None:
        await self._cache.close()

    async def flush(self) -> None:
        if isinstance(self.redis, RedisCluster):
            await self.redis.flushall(target_nodes=RedisCluster.PRIMARIES)
        else:
            await self.redis.flushdb()

    async def evict(self, key: RouteKey) -> None:
        assert await self.redis.delete(self._name(key)) == 1

    def _name(self, key: RouteKey) -> str:
        return f"{self._names.head_of(key)}no-epoch:{'/'.join(key)}"

    async def lapse(self, key: RouteKey) -> float:
        left = await self.redis.pttl(self._name(key))
        assert left > 0, "it would never run out"
        await self.evict(key)
        return float(left) / 1000


async def fill(cache: RouteCache, snapshot: Snapshot) -> None:
    await cache.fill([snapshot], "reader")


async def settle(cache: RouteCache, snapshot: Snapshot) -> None:
    await cache.mark([snapshot.key], "writer")
    await cache.settle([snapshot], "writer")


async def consume(cache: RouteCache, snapshot: Snapshot) -> None:
    await cache.consume([snapshot])


class Writing(Protocol):
    async def __call__(self, cache: RouteCache, snapshot: Snapshot) -> None: ...


def behind(wire: Wire, redis_url: str) -> str:
    return f"redis://127.0.0.1:{wire.port}/{redis_url.rpartition('/')[2]}"


async def complaint(where: str | Deployment) -> str:
    """Ask a Redis whether it can be used; return what is wrong, or nothing."""
    cache = RedisCache(where, timeout=PATIENCE)
    try:
        await cache.ping()
    except CacheUnavailable as error:
        return str(error)
    finally:
        await cache.close()
    return ""
