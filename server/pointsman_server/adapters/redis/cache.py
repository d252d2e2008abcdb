"""``ports.RouteCache`` on Redis."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError, ResponseError

from pointsman.v1 import route_pb2
from pointsman_server.adapters.redis import scripts
from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.client import connect
from pointsman_server.adapters.redis.connections import ScriptConnections
from pointsman_server.adapters.redis.refusals import explain
from pointsman_server.domain.codec import route_from_message, route_to_message
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.ports.cache import CacheUnavailable, Lookup
from pointsman_server.ports.store import Clock

JITTER = 0.1
# A large write is sent in parts, so that no other command waits for more than about a millisecond; and it may take
# longer than a read: this many timeouts.
PART = 500
LARGE_WRITE_TIMEOUTS = 20
T = TypeVar("T")
LEASED, BUSY = b"L", b"B"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Times to live in seconds. A lease outlives every load, and a mark every commit."""

    value: float = 300.0
    absence: float = 30.0
    lease: float = 10.0
    mark: float = 10.0


class RedisCache:
    """Runs the protocol of ``scripts``; keys are ``<prefix>:<first 8 of the epoch>:<route key>``.

    **Epochs.** After a restore of the store revisions begin again at a lower one, so values of the old epoch would
    fence out every new write. Four rules keep the epochs apart:

    - The epoch is part of the name of every key. Keys of another epoch are never read, and expire.
    - ``<prefix>:clock`` names the current epoch. A server that has another one, perhaps because it cannot reach
      PostgreSQL, misses without a lease; then the store tells it the epoch, or is unavailable. Every write sets that
      name before it is answered, as does every server each second. So an entry of an old epoch never hides an answered
      write of a new one, whatever epoch a server has. If Redis loses the clock, the names of the keys still separate
      the epochs, and a server that reaches PostgreSQL learns the epoch within a second.
    - A writer learns the epoch from its own transaction, which locks the clock. If it marked its keys under another
      one, settling does not find the mark, as when Redis lost it: the key is dropped, and its lease with it, so a value
      that was read before the commit cannot be filled in after it.
    - A snapshot has its epoch, and one of another epoch is not stored: a read from before the restore, filled in after
      it, would have a higher revision than any new one.

    The clock also holds the highest revision of each epoch. A write reads it when it marks, before its commit, and
    raises it when it settles, before its answer. So a store that lost an answered write is detected before it gives out
    the same revision again, also by servers that never saw the first one.

    While the epoch is not known every key misses without a lease, and writes are not sent.

    A read fails after ``timeout`` seconds, and at once while the breaker is open. Writes are always tried: other
    servers that reach Redis would go on answering a value that was not replaced.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "pointsman",
        timeout: float = 0.05,
        lifetimes: Lifetimes = Lifetimes(),
        breaker: Breaker | None = None,
        failed: Callable[[], None] = lambda: None,
        epoch: Callable[[], str] = lambda: "no-epoch",
        witness: Callable[[str, int], None] = lambda _epoch, _revision: None,
    ) -> None:
        """``epoch`` returns the store's epoch, empty while unknown.

        ``witness`` is called with an epoch and the highest revision that Redis has of it; ``failed`` for each failure.
        """
        self._redis = connect(url, timeout)
        parts = parse_url(url)
        self.address = f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}"
        self._prefix = prefix
        self._timeout = timeout
        self._lifetimes = lifetimes
        self._failed = failed
        self._epoch = epoch
        self._witness = witness
        self.breaker = breaker or Breaker()
        self._connections = ScriptConnections(self._redis)
        register = self._redis.register_script
        self._get, self._fill, self._consume = map(register, (scripts.GET, scripts.FILL, scripts.CONSUME))
        self._mark, self._mark_held = map(register, (scripts.MARK, scripts.MARK_HELD))
        self._settle, self._drop = map(register, (scripts.SETTLE, scripts.DROP))
        self._publish_clock, self._check = map(register, (scripts.PUBLISH_CLOCK, scripts.CHECK))

    async def get(self, keys: Sequence[RouteKey], owner: str) -> list[Lookup]:
        epoch = self._epoch()
        if not epoch or not self.breaker.allows():
            return [Lookup()] * len(keys)
        args: list[str | int] = [owner, _ms(self._lifetimes.lease), self._clock, epoch]
        try:
            async with self._bounded():
                fields: list[bytes] = await self._connections.run(self._get, args, self._names(keys, epoch))
        except CacheUnavailable:
            return [Lookup()] * len(keys)
        if self._epoch() != epoch:
            return [Lookup()] * len(keys)
        return list(map(_lookup, keys, itertools.repeat(epoch), fields[::2], fields[1::2]))

    async def fill(self, snapshots: Sequence[Snapshot], owner: str) -> None:
        if self.breaker.allows():
            await self._try_to_write(self._fill, snapshots, owner)

    async def mark(self, keys: Sequence[RouteKey], owner: str) -> None:
        epoch = self._epoch()
        if not epoch:
            return
        args: list[str | int] = [owner, _ms(self._lifetimes.mark), self._clock, epoch]
        try:
            async with self._bounded():
                highest = await self._connections.run(self._mark, args, self._names(keys, epoch))
        except CacheUnavailable:
            return
        self._report_highest(epoch, highest)

    async def settle(self, snapshots: Sequence[Snapshot], owner: str) -> None:
        await self._try_to_write(self._settle, snapshots, owner, settled=True)

    async def consume(self, snapshots: Sequence[Snapshot]) -> None:
        async with self._bounded():
            await self._write(self._consume, snapshots, "")

    async def mark_held(self, keys: Sequence[RouteKey], owner: str) -> None:
        epoch = self._epoch()
        if not epoch:
            return
        args: list[str | int] = [owner, _ms(self._lifetimes.mark), self._clock, epoch]
        highest: object = b""
        try:
            async with self._bounded(LARGE_WRITE_TIMEOUTS):
                for names in _parts(self._names(keys, epoch)):
                    highest = await self._connections.run(self._mark_held, [*args, "\n".join(names)])
        except CacheUnavailable:
            return
        self._report_highest(epoch, highest)

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> None:
        # No server reads keys of another epoch.
        head = [owner, self._clock, clock.epoch, _revision(clock.revision)]
        names = self._names(keys, clock.epoch)
        if self._epoch() != clock.epoch:
            return
        try:
            async with self._bounded(LARGE_WRITE_TIMEOUTS):
                for part, of_part in zip(_parts(names), _parts(revisions), strict=True):
                    await self._connections.run(self._drop, [*head, "\n".join(part), "".join(map(_revision, of_part))])
        except CacheUnavailable:
            return

    async def publish_clock(self, clock: Clock) -> None:
        """Send the store's clock to Redis, and report the highest revision that Redis has. Failures are ignored."""
        try:
            async with self._bounded():
                highest = await self._connections.run(
                    self._publish_clock, [self._clock, clock.epoch, _revision(clock.revision)]
                )
        except CacheUnavailable:
            return
        self._report_highest(clock.epoch, highest)

    async def ping(self) -> None:
        # A refusal is left out of the breaker: what refuses the check may still serve reads, as a full Redis does.
        async with self._bounded(counts_refusals=False):
            await self._connections.run(self._check, [], [f"{self._prefix}:health:{part}" for part in "ab"])

    async def close(self) -> None:
        await self._connections.close()
        await self._redis.aclose()

    async def _try_to_write(
        self, script: Any, snapshots: Sequence[Snapshot], owner: str, *, settled: bool = False
    ) -> None:
        """Write, and ignore that Redis fails."""
        try:
            async with self._bounded():
                await self._write(script, snapshots, owner, settled=settled)
        except CacheUnavailable:
            return

    async def _write(self, script: Any, snapshots: Sequence[Snapshot], owner: str, *, settled: bool = False) -> None:
        epoch = self._epoch()
        ours = [snapshot for snapshot in snapshots if snapshot.epoch in ("", epoch)]
        if not epoch or not ours:
            return
        args: list[str | bytes | int] = [owner]
        for snapshot in ours:
            args += [_revision(snapshot.as_of), _encode(snapshot.route), self._ttl(snapshot)]
        if settled:
            args += [self._clock, epoch, _revision(max(snapshot.as_of for snapshot in ours))]
        await self._connections.run(script, args, self._names([snapshot.key for snapshot in ours], epoch))

    def _report_highest(self, epoch: str, highest: object) -> None:
        # Empty if Redis has none.
        if isinstance(highest, bytes) and highest:
            self._witness(epoch, int(highest))

    @asynccontextmanager
    async def _bounded(self, timeouts: float = 1, *, counts_refusals: bool = True) -> AsyncIterator[None]:
        """Bound the block by so many timeouts, and count how it ends. Raises CacheUnavailable, which says why."""
        try:
            async with asyncio.timeout(self._timeout * timeouts):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            if counts_refusals or not isinstance(error, ResponseError):
                self.breaker.failed()
            self._failed()
            raise CacheUnavailable(f"Redis at {self.address} {explain(error)}") from error
        self.breaker.succeeded()

    @property
    def _clock(self) -> str:
        return f"{self._prefix}:clock"

    def _names(self, keys: Sequence[RouteKey], epoch: str) -> list[str]:
        head = f"{self._prefix}:{epoch[:8]}:"
        # The same as ``str(key)``, in half the time.
        return [f"{head}{tenant}/{service}/{env}/{version}" for tenant, service, env, version in keys]

    def _ttl(self, snapshot: Snapshot) -> int:
        seconds = self._lifetimes.value if snapshot.route else self._lifetimes.absence
        # Jittered, so that keys that were filled together do not expire together.
        return _ms(seconds * (1 - random.random() * JITTER))  # noqa: S311 - no secret


def _parts(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + PART] for start in range(0, len(items), PART)]


def _lookup(key: RouteKey, epoch: str, first: bytes, value: bytes) -> Lookup:
    if first == BUSY:
        return Lookup()
    if first == LEASED:
        return Lookup(leased=True)
    try:
        return Lookup(_decode(key, epoch, int(first), value), encoded=value)
    except (ValueError, DecodeError):
        return Lookup()  # not written by us: read the store


def _encode(route: Route | None) -> bytes:
    return route_to_message(route).SerializeToString() if route else b""


def _decode(key: RouteKey, epoch: str, as_of: int, value: bytes) -> Snapshot:
    if not value:
        return Snapshot(key, None, as_of, epoch)
    route = route_from_message(route_pb2.Route.FromString(value), key)
    if not 0 < route.revision <= as_of:
        raise ValueError("a route of another revision")
    return Snapshot(key, route, as_of, epoch)


def _revision(revision: int) -> str:
    return f"{revision:020d}"


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
