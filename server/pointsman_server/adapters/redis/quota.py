"""``ports.SharedQuota`` on Redis: GCRA in one script, on the clock of Redis."""

from collections.abc import Callable, Sequence

from pointsman_server.adapters.redis.bounded_scripts import BoundedScripts
from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.connections import Script
from pointsman_server.adapters.redis.deployment import Deployment
from pointsman_server.adapters.redis.names import KeyNames
from pointsman_server.domain.access_errors import RateLimited
from pointsman_server.ports.quota import QuotaUnavailable, Taking

# In microseconds, which Lua's doubles hold exactly until the year 2255.
#
# KEYS: one per limit. ARGV: the debt and the window of each. Returns the longest wait and the number of its limit; a
# wait of 0 has taken from all. A key expires when its debt is paid.
TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arrivals, longest, whose = {}, 0, 0
for i, key in ipairs(KEYS) do
  local before = tonumber(redis.call('GET', key) or now)
  arrivals[i] = math.max(before, now) + ARGV[2 * i - 1]
  local wait = arrivals[i] - now - ARGV[2 * i]
  if wait > longest then
    longest, whose = wait, i
  end
end
if longest == 0 then
  for i, key in ipairs(KEYS) do
    redis.call('SET', key, string.format('%.0f', arrivals[i]), 'PX', math.ceil((arrivals[i] - now) / 1000))
  end
end
return {longest, whose}
"""


class RedisQuota:
    """Keys are ``<prefix>:quota:<limit>:<subject>``, on Redis Cluster all in one slot, because a script uses several.

    Fails after ``timeout`` seconds; at once if the breaker is open.
    """

    def __init__(
        self,
        where: str | Deployment,
        *,
        prefix: str = "pointsman",
        timeout: float = 0.05,
        breaker: Callable[[], Breaker] = Breaker,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._scripts = BoundedScripts(where, QuotaUnavailable, timeout=timeout, breaker=breaker, failed=failed)
        self._take = Script.of(TAKE)
        self._head = KeyNames(prefix, clustered=self._scripts.clustered).of("quota")

    async def take(self, takings: Sequence[Taking]) -> None:
        if not takings:
            return
        wait, whose = await self._run(takings)
        if wait:
            raise RateLimited(takings[whose - 1].limit, wait / 1e6)

    async def close(self) -> None:
        await self._scripts.close()

    async def _run(self, takings: Sequence[Taking]) -> tuple[int, int]:
        keys = [f"{self._head}:{taking.limit}:{taking.subject}" for taking in takings]
        args = [max(1, nanoseconds // 1000) for taking in takings for nanoseconds in (taking.debt, taking.window)]
        wait, whose = await self._scripts.run(self._take, args, keys)
        return int(wait), int(whose)
