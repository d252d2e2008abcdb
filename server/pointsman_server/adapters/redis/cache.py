"""``ports.RouteCache`` on Redis: the shared cache."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from google.protobuf.message import DecodeError
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError

from pointsman.v1 import route_pb2
from pointsman_server.adapters.redis import scripts
from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.client import connect
from pointsman_server.adapters.redis.connections import ScriptConnections
from pointsman_server.domain.codec import route_from_message, route_to_message
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.ports.cache import CacheUnavailable, Lookup
from pointsman_server.ports.store import Clock

JITTER = 0.1
# Large writes go to Redis in parts, so that nobody waits longer than a millisecond or so behind one of them; and they
# may take longer than a read, for they are many and in nobody's way.
PART = 500
PATIENCE = 20
T = TypeVar("T")
LEASED, BUSY = b"L", b"B"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long Redis keeps what, in seconds. A lease and a mark outlive every load and every commit."""

    value: float = 300.0
    absence: float = 30.0
    lease: float = 10.0
    mark: float = 10.0


class RedisCache:
    """Speaks the protocol of ``scripts``; keys are ``<prefix>:<first 8 of the epoch>:<route key>``.

    **Epochs.** After a restore revisions begin again further down, so what is held under an old epoch would fence out
    every new write. Four things keep the histories apart:

    - The epoch is part of the name of every key. What another epoch left is never seen, and expires by its time.
    - ``<prefix>:clock`` names the current epoch. A server that still believes in another one, perhaps because it
      cannot reach PostgreSQL, misses without a lease: it asks the store, which tells it the epoch, or is away. Every
      write sets that name before it is answered, as does every server each second. So no answered write of a new
      epoch is hidden behind a Redis entry of an old one, whatever a server believes. If Redis forgets the name, the
      names of the keys still hold, and a server that reaches PostgreSQL learns the epoch within a second.
    - A writer learns its true epoch from its own transaction, which owns the clock. If it is not the one under which it
      marked its keys, its mark is not found when it settles, and that means the same as when Redis lost it: the key is
      dropped, and with it every lease, so what was read before the commit cannot be filled in after it.
    - A snapshot says its epoch, and one of another is not stored: a read from before the restore, filled in after it,
      would be a higher revision than any.

    The clock also holds the highest revision of each epoch. A write reads it when it marks, before its commit, and
    raises it when it settles, before its answer: so a store that lost an answered write is found out before it gives
    the same revision away again, by servers that never saw the first one too.

    While the epoch is not known everything misses without a lease, and what is told is dropped.

    Reads give up after ``timeout`` seconds, and at once while the breaker is open. Writes are tried every time: a
    value that they could not replace would be answered by servers that do reach Redis.
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
        """``epoch`` gives that of the store, empty while unknown; ``witness`` is told what Redis knows of it."""
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
        self._lane = ScriptConnections(self._redis)
        register = self._redis.register_script
        self._tick, self._mark_held, self._drop = map(
            register, (scripts.PUBLISH_CLOCK, scripts.MARK_HELD, scripts.DROP)
        )
        self._get, self._fill, self._mark, self._settle, self._consume = map(
            register, (scripts.GET, scripts.FILL, scripts.MARK, scripts.SETTLE, scripts.CONSUME)
        )

    async def get(self, keys: Sequence[RouteKey], owner: str) -> list[Lookup]:
        """See RouteCache.get."""
        epoch = self._epoch()
        if not epoch or not self.breaker.allows():
            return [Lookup()] * len(keys)
        args: list[str | int] = [owner, _ms(self._lifetimes.lease), self._clock, epoch]
        try:
            async with self._bounded():
                fields: list[bytes] = await self._lane.run(self._get, args, self._names(keys, epoch))
        except CacheUnavailable:
            return [Lookup()] * len(keys)
        if self._epoch() != epoch:
            return [Lookup()] * len(keys)
        return list(map(_lookup, keys, itertools.repeat(epoch), fields[::2], fields[1::2]))

    async def fill(self, snapshots: Sequence[Snapshot], owner: str) -> None:
        """See RouteCache.fill."""
        if self.breaker.allows():
            await self._best_effort(self._fill, snapshots, owner)

    async def mark(self, keys: Sequence[RouteKey], owner: str) -> None:
        """See RouteCache.mark."""
        epoch = self._epoch()
        if not epoch:
            return
        args: list[str | int] = [owner, _ms(self._lifetimes.mark), self._clock, epoch]
        try:
            async with self._bounded():
                highest = await self._lane.run(self._mark, args, self._names(keys, epoch))
        except CacheUnavailable:
            return
        self._tell(epoch, highest)

    async def settle(self, snapshots: Sequence[Snapshot], owner: str) -> None:
        """See RouteCache.settle."""
        await self._best_effort(self._settle, snapshots, owner, settled=True)

    async def consume(self, snapshots: Sequence[Snapshot]) -> None:
        """See RouteCache.consume."""
        async with self._bounded():
            await self._write(self._consume, snapshots, "")

    async def mark_held(self, keys: Sequence[RouteKey], owner: str) -> None:
        """See RouteCache.mark_held."""
        epoch = self._epoch()
        if not epoch:
            return
        args: list[str | int] = [owner, _ms(self._lifetimes.mark), self._clock, epoch]
        highest: object = b""
        try:
            async with self._bounded(PATIENCE):
                for names in _parts(self._names(keys, epoch)):
                    highest = await self._lane.run(self._mark_held, [*args, "\n".join(names)])
        except CacheUnavailable:
            return
        self._tell(epoch, highest)

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> None:
        """See RouteCache.drop_older. Only under the epoch of the store; the names of another one are not asked for."""
        head = [owner, self._clock, clock.epoch, _revision(clock.revision)]
        names = self._names(keys, clock.epoch)
        if self._epoch() != clock.epoch:
            return
        try:
            async with self._bounded(PATIENCE):
                for part, of_part in zip(_parts(names), _parts(revisions), strict=True):
                    await self._lane.run(self._drop, [*head, "\n".join(part), "".join(map(_revision, of_part))])
        except CacheUnavailable:
            return

    async def publish_clock(self, clock: Clock) -> None:
        """Tell Redis where the store is, and ``witness`` the highest revision that Redis knows. Best effort."""
        try:
            async with self._bounded():
                highest = await self._lane.run(self._tick, [self._clock, clock.epoch, _revision(clock.revision)])
        except CacheUnavailable:
            return
        self._tell(clock.epoch, highest)

    async def ping(self) -> None:
        """See RouteCache.ping."""
        async with self._bounded():
            await cast("Any", self._redis.ping())

    async def close(self) -> None:
        """Close every connection."""
        await self._lane.close()
        await self._redis.aclose()

    async def _best_effort(
        self, script: Any, snapshots: Sequence[Snapshot], owner: str, *, settled: bool = False
    ) -> None:
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
        await self._lane.run(script, args, self._names([snapshot.key for snapshot in ours], epoch))

    def _tell(self, epoch: str, highest: object) -> None:
        # Empty, where Redis knows none.
        if isinstance(highest, bytes) and highest:
            self._witness(epoch, int(highest))

    @asynccontextmanager
    async def _bounded(self, patience: float = 1) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout * patience):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            self.breaker.failed()
            self._failed()
            raise CacheUnavailable(f"redis at {self.address} does not answer") from error
        self.breaker.succeeded()

    @property
    def _clock(self) -> str:
        return f"{self._prefix}:clock"

    def _names(self, keys: Sequence[RouteKey], epoch: str) -> list[str]:
        head = f"{self._prefix}:{epoch[:8]}:"
        # As ``str(key)`` has it, in half the time.
        return [f"{head}{tenant}/{service}/{env}/{version}" for tenant, service, env, version in keys]

    def _ttl(self, snapshot: Snapshot) -> int:
        seconds = self._lifetimes.value if snapshot.route else self._lifetimes.absence
        # Jittered, so that what was filled together does not expire together.
        return _ms(seconds * (1 - random.random() * JITTER))  # noqa: S311 - spreads load, guards nothing


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
        return Lookup()  # written by something else: the store knows better


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
