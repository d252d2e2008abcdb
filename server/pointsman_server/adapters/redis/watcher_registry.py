"""``ports.WatcherRegistry`` on Redis."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pointsman_server.adapters.redis.bounded_scripts import BoundedScripts
from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.connections import Script
from pointsman_server.adapters.redis.deployment import Deployment
from pointsman_server.adapters.redis.names import KeyNames
from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import (
    OpenWatch,
    RegisteredWatch,
    RegistryUnavailable,
    Report,
    WatchName,
)

# Entries in one command, so that no other command waits for more than about a millisecond.
PART = 500
# Digits of a revision: padded, because Lua's numbers lose precision past 2^53, so scripts compare texts.
DIGITS = 20
T = TypeVar("T")

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: the servers, the watches and the reports of one. ARGV: its id, the time to live in milliseconds, how many are
# removed, their fields; then field and value of each that is added. Returns how many there are.
PUBLISH = (
    _NOW
    + """
local ttl, removed = tonumber(ARGV[2]), tonumber(ARGV[3])
for i = 4, 3 + removed do
  redis.call('HDEL', KEYS[2], ARGV[i])
  redis.call('HDEL', KEYS[3], ARGV[i])
end
for i = 4 + removed, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
redis.call('ZADD', KEYS[1], now + ttl, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ttl)
end
return redis.call('HLEN', KEYS[2])
"""
)

# KEYS: the servers. ARGV: what the names of their hashes begin with; then field, revision and epoch of each report.
# Returns 1 for each watch that a server has published, else 0.
REPORT = (
    _NOW
    + f"""
local servers, found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf'), {{}}
for i = 2, #ARGV, 3 do
  local field, revision, epoch, known = ARGV[i], ARGV[i + 1], ARGV[i + 2], 0
  for _, server in ipairs(servers) do
    local watches = ARGV[1] .. server
    if redis.call('HEXISTS', watches, field) == 1 then
      known = 1
      local reports = watches .. ':applied'
      local before = redis.call('HGET', reports, field)
      if not before or string.sub(before, {DIGITS + 1}) ~= epoch or string.sub(before, 1, {DIGITS}) < revision then
        redis.call('HSET', reports, field, revision .. epoch)
        -- Not a moment longer: or it would be taken for one of a watch that is published again.
        redis.call('PEXPIRE', reports, math.max(1, redis.call('PTTL', watches) - 1))
      end
    end
  end
  found[#found + 1] = known
end
return found
"""
)

# KEYS: the servers. Returns the ids of those that have not expired.
SERVERS = _NOW + "return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')"

# KEYS: the servers, the watches and the reports of one. ARGV: its id.
WITHDRAW = """
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('DEL', KEYS[2], KEYS[3])
"""

# KEYS: the reports of a server. ARGV: fields.
APPLIED = "return redis.call('HMGET', KEYS[1], unpack(ARGV))"

# KEYS: the inquiry. ARGV: revision, epoch, time to live in milliseconds.
INQUIRE = f"""
local before = redis.call('GET', KEYS[1])
if before and string.sub(before, {DIGITS + 1}) == ARGV[2] and string.sub(before, 1, {DIGITS}) >= ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
"""

INQUIRY = "return redis.call('GET', KEYS[1])"

# KEYS: a hash. ARGV: the cursor, and about how many entries. Returns the next cursor, and fields with their values.
SCAN = "return redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])"


class RedisWatcherRegistry:
    """The watches of a server are the hash ``<prefix>:watches:<server>``, what they reported that with ``:applied``.

    Both expire, and the sorted set ``<prefix>:watches`` has until when each server's live. The inquiry is
    ``<prefix>:watches-inquiry``. On Redis Cluster all are in one slot, that of ``<prefix>:{watches}``.
    """

    def __init__(
        self,
        where: str | Deployment,
        *,
        prefix: str = "pointsman",
        ttl: float = 15.0,
        inquiry_ttl: float = 10.0,
        timeout: float = 1.0,
        breaker: Callable[[], Breaker] = Breaker,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """``ttl``, ``inquiry_ttl`` and ``timeout`` are in seconds; ``failed`` is called for each failure."""
        self._scripts = BoundedScripts(where, RegistryUnavailable, timeout=timeout, breaker=breaker, failed=failed)
        self._publish, self._report, self._servers = map(Script.of, (PUBLISH, REPORT, SERVERS))
        self._withdraw, self._applied, self._scan_part = map(Script.of, (WITHDRAW, APPLIED, SCAN))
        self._inquire, self._inquiry = map(Script.of, (INQUIRE, INQUIRY))
        self._all = KeyNames(prefix, clustered=self._scripts.clustered).of("watches")
        self._asked = f"{self._all}-inquiry"
        self._ttl, self._inquiry_ttl = int(ttl * 1000), int(inquiry_ttl * 1000)

    async def publish(self, server: str, opened: Sequence[OpenWatch], closed: Sequence[WatchName]) -> int:
        count = 0
        for part in _parts(closed) or [()]:
            fields = [_field(name) for name in part]
            count = await self._scripts.run(self._publish, [server, self._ttl, len(part), *fields], self._keys(server))
        for added in _parts(opened):
            args = [text for watch in added for text in (_field(watch.name), _encode(watch))]
            count = await self._scripts.run(self._publish, [server, self._ttl, 0, *args], self._keys(server))
        return count

    async def withdraw(self, server: str) -> None:
        await self._scripts.run(self._withdraw, [server], self._keys(server))

    async def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        found: list[bool] = []
        for part in _parts(reports):
            args = [
                text for name, applied in part for text in (_field(name), _revision(applied.revision), applied.epoch)
            ]
            known = await self._scripts.run(self._report, [f"{self._all}:", *args], [self._all])
            found += map(bool, known)
        return found

    async def applied(self, server: str, names: Sequence[WatchName]) -> Sequence[Clock | None]:
        reports = self._keys(server)[2]
        found: list[Clock | None] = []
        for part in _parts(names):
            values = await self._scripts.run(self._applied, [_field(name) for name in part], [reports])
            found += map(_clock, values)
        return found

    async def watches(self) -> Sequence[RegisteredWatch]:
        found: list[RegisteredWatch] = []
        for server in await self._scripts.run(self._servers, (), [self._all]):
            found += await self._of_server(server.decode())
        return found

    async def inquire(self, clock: Clock) -> None:
        await self._scripts.run(
            self._inquire, [_revision(clock.revision), clock.epoch, self._inquiry_ttl], [self._asked]
        )

    async def inquiry(self) -> Clock | None:
        return _clock(await self._scripts.run(self._inquiry, (), [self._asked]))

    async def close(self) -> None:
        """Close the connections."""
        await self._scripts.close()

    async def _of_server(self, server: str) -> list[RegisteredWatch]:
        _, watches, reports = self._keys(server)
        # The reports first: so a report is never taken for one of a watch that was opened again later.
        applied = {field: _clock(value) async for part in self._scan(reports) for field, value in part.items()}
        found: dict[bytes, RegisteredWatch] = {}
        async for part in self._scan(watches):
            for field, value in part.items():
                watch = _decode(value)
                if watch is not None:
                    found[field] = RegisteredWatch(server, watch, applied.get(field))
        return list(found.values())

    async def _scan(self, name: str) -> AsyncIterator[Mapping[bytes, bytes]]:
        """Read a hash in parts; what is there all the time is read, perhaps twice."""
        cursor = b"0"
        while True:
            cursor, part = await self._scripts.run(self._scan_part, [cursor, PART], [name])
            yield dict(zip(part[::2], part[1::2], strict=True))
            if cursor == b"0":
                return

    def _keys(self, server: str) -> list[str]:
        return [self._all, f"{self._all}:{server}", f"{self._all}:{server}:applied"]


def _field(name: WatchName) -> str:
    return hashlib.blake2b("\0".join(name).encode(), digest_size=16).hexdigest()


def _encode(watch: OpenWatch) -> str:
    return json.dumps([*watch.name, watch.title, watch.address, watch.since.timestamp()])


def _decode(value: bytes) -> OpenWatch | None:
    """Decode the result of ``_encode``; None for what is not."""
    try:
        watcher, subject, tenant, service, env, title, address, since = json.loads(value)
        name = WatchName(watcher, subject, tenant, service, env)
        return OpenWatch(name, title, address, datetime.fromtimestamp(since, UTC))
    except (ValueError, TypeError):
        return None


def _revision(revision: int) -> str:
    return f"{revision:0{DIGITS}d}"


def _clock(value: Any) -> Clock | None:
    if value is None:
        return None
    digits, epoch = value[:DIGITS], value[DIGITS:].decode("utf-8", "replace")
    return Clock(epoch, int(digits)) if digits.isdigit() else None


def _parts(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + PART] for start in range(0, len(items), PART)]
