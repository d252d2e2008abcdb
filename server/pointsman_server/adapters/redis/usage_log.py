"""``ports.UsageLog`` on Redis."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter

from pointsman_server.adapters.redis.bounded_scripts import BoundedScripts
from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.connections import Call, Script
from pointsman_server.adapters.redis.deployment import Deployment
from pointsman_server.adapters.redis.names import KeyNames
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.usage_log import Reader, ReadersNow, Reads, UsageUnavailable

# Entries in one script, so that no other command waits for more than about a millisecond.
PART = 100
MOST_KEYS = 200_000
MOST_SUBJECTS = 1_000

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local window = tonumber(ARGV[1])
local period = math.floor(now / window)
"""

# A value is four numbers: in which period the last read was, how many reads that period and the one before it had, and
# when the last read was. A period is as long as the window.
#
# KEYS: all keys by their last read, since when the log is complete, and one for each route. ARGV: the window in
# milliseconds, the most keys, the most subjects of a key; then for each route the number of its subjects, and subject
# and count of each. Returns how many entries were dropped.
ADD = (
    _NOW
    + """
local most_keys, most_subjects, dropped, at = tonumber(ARGV[2]), tonumber(ARGV[3]), 0, 4
local function drop_old(key)
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local last = tonumber(string.match(fields[i + 1], ' (%d+)$') or 0)
    if last <= now - window then redis.call('HDEL', key, fields[i]) end
  end
  return redis.call('HLEN', key)
end
for i = 3, #KEYS do
  local key, subjects = KEYS[i], tonumber(ARGV[at])
  local size = redis.call('HLEN', key)
  if size >= most_subjects then size = drop_old(key) end
  for j = at + 1, at + 2 * subjects, 2 do
    local subject, current, previous = ARGV[j], tonumber(ARGV[j + 1]), 0
    local known = redis.call('HGET', key, subject)
    if known then
      local p, c, b = string.match(known, '^(%d+) (%d+) (%d+) ')
      if tonumber(p) == period then
        current, previous = current + c, tonumber(b)
      elseif tonumber(p) == period - 1 then
        previous = tonumber(c)
      end
    else
      size = size + 1
    end
    if known or size <= most_subjects then
      redis.call('HSET', key, subject, string.format('%.0f %.0f %.0f %.0f', period, current, previous, now))
    else
      size, dropped = size - 1, dropped + 1
    end
  end
  at = at + 1 + 2 * subjects
  redis.call('PEXPIRE', key, window)
  redis.call('ZADD', KEYS[1], now, key)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
redis.call('PEXPIRE', KEYS[1], window)
local excess = redis.call('ZCARD', KEYS[1]) - most_keys
if excess > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[1], excess)
  for i = 1, #oldest, 2 do redis.call('DEL', oldest[i]) end
  -- What was dropped had its last read at the score of the last one, or before it.
  local complete, last = tonumber(redis.call('GET', KEYS[2]) or 0), tonumber(oldest[#oldest])
  if last + 1 > complete then redis.call('SET', KEYS[2], string.format('%.0f', last + 1), 'PX', window) end
  dropped = dropped + excess
end
return dropped
"""
)

# KEYS: since when the log is complete. ARGV: the window in milliseconds.
KEEP = (
    _NOW
    + """
if not redis.call('SET', KEYS[1], string.format('%.0f', now), 'NX', 'PX', window) then
  redis.call('PEXPIRE', KEYS[1], window)
end
"""
)

# KEYS: that of a route, all keys by their last read, and since when the log is complete. ARGV: the window in
# milliseconds. Returns the time, since when the log is complete, and all fields with their values. A key that was read
# within the window and is gone was evicted.
READ = (
    _NOW
    + """
local fields, since = redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[3])
local last = #fields == 0 and redis.call('ZSCORE', KEYS[2], KEYS[1])
if not since or (last and tonumber(last) > now - window) then since = string.format('%.0f', now) end
return {string.format('%.0f', now), since, fields}
"""
)


class RedisUsageLog:
    """The readers of a route are the hash ``<prefix>:usage:<key>``; ``<prefix>:usage`` has when each was last read.

    ``<prefix>:usage:since`` is the time from which on every read is there.

    All expire after a window. On Redis Cluster routes are in parts, each in one slot: ``<prefix>:{<part>}:usage``,
    which may have as many keys as its share of ``most_keys``.
    """

    def __init__(
        self,
        where: str | Deployment,
        *,
        prefix: str = "pointsman",
        window: float = 86_400.0,
        most_keys: int = MOST_KEYS,
        most_subjects: int = MOST_SUBJECTS,
        timeout: float = 1.0,
        breaker: Callable[[], Breaker] = Breaker,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """``window`` and ``timeout`` are in seconds; ``failed`` is called for each failure."""
        self._scripts = BoundedScripts(where, UsageUnavailable, timeout=timeout, breaker=breaker, failed=failed)
        self._add, self._read, self._keep = map(Script.of, (ADD, READ, KEEP))
        self._names = KeyNames(prefix, clustered=self._scripts.clustered)
        self._window = int(window * 1000)
        self._bounds = (max(1, most_keys // len(self._names.heads)), most_subjects)

    async def add(self, reads: Sequence[Reads]) -> int:
        dropped, ordered = 0, sorted(reads, key=attrgetter("key"))
        for head, positions in self._names.split([read.key for read in ordered]):
            for start in range(0, len(positions), PART):
                part = [ordered[position] for position in positions[start : start + PART]]
                dropped += await self._add_part(f"{head}usage", part)
        return dropped

    async def _add_part(self, every: str, part: Sequence[Reads]) -> int:
        keys, args = [every, f"{every}:since"], [str(self._window), *map(str, self._bounds)]
        for key, of_key in groupby(part, attrgetter("key")):
            subjects = list(of_key)
            keys.append(f"{every}:{key}")
            args.append(str(len(subjects)))
            args += [text for _, subject, times in subjects for text in (subject, str(times))]
        return int(await self._scripts.run(self._add, args, keys))

    async def keep(self) -> None:
        calls = [Call(self._keep, [self._window], [f"{head}usage:since"]) for head in self._names.heads]
        for reply in await self._scripts.run_all(calls, guarded=True):
            if isinstance(reply, Exception):
                raise reply

    async def readers(self, key: RouteKey, limit: int) -> Sequence[Reader]:
        (found,) = await self.readers_of([key], limit)
        return found.readers

    async def readers_of(self, keys: Sequence[RouteKey], limit: int) -> Sequence[ReadersNow]:
        calls = [self._read_call(f"{self._names.head_of(key)}usage", key) for key in keys]
        found: list[ReadersNow] = []
        for start in range(0, len(calls), PART):
            for reply in await self._scripts.run_all(calls[start : start + PART], guarded=True):
                if isinstance(reply, Exception):
                    raise reply
                now, since, fields = reply
                found.append(self._readers(int(now), int(since), fields, limit))
        return found

    def _read_call(self, every: str, key: RouteKey) -> Call:
        return Call(self._read, [self._window], [f"{every}:{key}", every, f"{every}:since"])

    def _readers(self, now: int, since: int, fields: Sequence[bytes], limit: int) -> ReadersNow:
        found = [
            reader
            for subject, value in zip(fields[::2], fields[1::2], strict=True)
            if (reader := _reader(subject, value, now, self._window))
        ]
        readers = sorted(found, key=attrgetter("last"), reverse=True)[:limit]
        return ReadersNow(_time(now), readers, _time(max(since, now - self._window)))

    async def close(self) -> None:
        """Close the connections."""
        await self._scripts.close()


def _reader(subject: bytes, value: bytes, now: int, window: int) -> Reader | None:
    """Decode an entry; None for one that is not ours, or whose last read is a window ago."""
    try:
        period, current, previous, last = map(int, value.split())
    except ValueError:
        return None
    if last <= now - window:
        return None
    count = estimate(now / window - period, current, previous)
    return Reader(subject.decode("utf-8", "replace"), count, _time(last))


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def estimate(periods: float, current: int, previous: int) -> int:
    """Return how many reads were within the last window, at least 1.

    ``current`` reads were in a period that began ``periods`` ago, in units of the window, and ``previous`` in the one
    before.
    """
    if periods < 1:
        return max(1, round(current + previous * (1 - periods)))
    return max(1, round(current * (2 - periods)))
