"""The read path: local cache → shared cache → store, each miss filling the layer above."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.errors import PointsmanError, RevisionNotReached
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.cache import Lookup, RouteCache
from pointsman_server.ports.store import RouteStore
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.cache_entry import CacheHit, snapshot_of
from pointsman_server.reads.in_flight import InFlightLoad, Reservation, Reservations
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.local_lookup import LocalLookup
from pointsman_server.runtime.batcher import Batcher
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.batches import BatchSpans

T = TypeVar("T")


class ReadObserver(Protocol):
    """Counts lookups: ``layer`` is local or redis, ``outcome`` is hit, negative, stale or miss."""

    def looked_up(self, layer: str, outcome: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of loads: keys per load, concurrent loads, and queued keys.

    ``lookups`` bounds concurrent lookups in the shared cache. It is small: keys that are asked for meanwhile go in the
    next lookup together, and one round trip for many keys costs little more than one for a single key.
    """

    batch: int = 200
    concurrency: int = 4
    queue: int = 2000
    lookups: int = 2


class Resolver:
    """Answers from the nearest layer that is new enough.

    Invariants: concurrent misses of one key share one load. A write of this process (``apply_local_write``) and a
    change that the feed brings (``observe``, ``supersede``) cancel the in-flight loads and reservations of their keys:
    the results still go to the waiters, but are not cached, so a late load never replaces what a write left in the
    local cache. Keys are those of routes and of families; a change of a route or of traffic changes its family, too,
    which is superseded: the next read loads it.

    ``patience``: how many seconds the store may stay below a ``min_revision``. ``join_seconds``: how old a load may be
    that a new read joins.
    """

    def __init__(
        self,
        store: RouteStore,
        cache: RouteCache,
        local: LocalCache,
        *,
        observer: ReadObserver,
        bounds: Bounds = Bounds(),
        patience: float = 1.0,
        join_seconds: float = 1.0,
        fair_share: FairShare | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = Batcher(
            store.load,
            size=bounds.batch,
            concurrency=bounds.concurrency,
            queue=bounds.queue,
            limit="store_loads",
            tracer=BatchSpans("load from PostgreSQL"),
        )
        self._shared = Batcher(
            self._look_up,
            size=bounds.batch,
            concurrency=bounds.lookups,
            queue=bounds.queue * 4,
            limit="cache_loads",
            tracer=BatchSpans("load from Redis"),
        )
        self._cache = cache
        self._local = local
        self._observer = observer
        self._patience = patience
        self._join_seconds = join_seconds
        self._fair_share = fair_share or FairShare()
        self._now = now
        self._loads: dict[RouteKey, InFlightLoad] = {}
        self._reservations = Reservations()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._process = secrets.token_hex(4)
        self._lookup_numbers = itertools.count()

    def resolve_locally(self, key: RouteKey, min_revision: int = 0) -> Answer | None:
        """Answer from the local cache, without waiting, if it holds the key as of ``min_revision`` or later."""
        return self._answer(key, self._local.find(key_to_bytes(key), min_revision), min_revision)

    async def resolve(
        self,
        key: RouteKey,
        min_revision: int = 0,
        *,
        fully_consistent: bool = False,
        lookup: LocalLookup | None = None,
    ) -> Answer:
        """Answer ``key`` as of ``min_revision`` or later.

        ``lookup`` is what the caller has already looked up in the local cache. Raises StoreUnavailable, Overloaded, and
        RevisionNotReached when the store stays below ``min_revision`` for as long as this resolver's patience.
        """
        if fully_consistent:
            return await self.load_from_store(key, min_revision)
        if lookup is not None and lookup.is_for(min_revision, self._now()):
            answer = self._answer(key, lookup.hits[0], min_revision)
        else:
            answer = self.resolve_locally(key, min_revision)
        return answer or await self.load(key, min_revision)

    async def resolve_many(
        self,
        keys: Sequence[RouteKey],
        min_revision: int = 0,
        *,
        fully_consistent: bool = False,
        lookup: LocalLookup | None = None,
    ) -> list[Answer | PointsmanError]:
        """Answer every key, in order; a key that cannot be answered has its error in its place."""
        distinct = list(dict.fromkeys(keys))
        find = self.load_from_store if fully_consistent else self.load
        results: dict[RouteKey, Answer | PointsmanError] = {}
        if not fully_consistent:
            local = await self._fair_share.map(self._lookup_of(keys, min_revision, lookup), distinct)
            results.update((key, answer) for key, answer in zip(distinct, local, strict=True) if answer)
        missing = [key for key in distinct if key not in results]
        found = await asyncio.gather(*(find(key, min_revision) for key in missing), return_exceptions=True)
        results.update(zip(missing, map(_answer_or_error, found), strict=True))
        return [results[key] for key in keys]

    def apply_local_write(self, snapshots: Sequence[Snapshot]) -> None:
        """Cache what a write of this process left in the store, before the write is answered."""
        for snapshot in snapshots:
            self.observe(snapshot)
            self._local.put(snapshot, self._now())

    def forget(self) -> None:
        """Cancel every in-flight load: no read joins it, and its result is not cached."""
        self._loads.clear()
        self._reservations.revoke_all()

    def observe(self, snapshot: Snapshot) -> None:
        """Apply a change of any server: loads that began before it are not cached."""
        self._loads.pop(snapshot.key, None)
        self._reservations.revoke(snapshot.key)
        self._local.observe(snapshot)

    def supersede(self, keys: Iterable[RouteKey], revisions: Iterable[int]) -> None:
        """Apply changes of which only the revisions are known: nothing older is cached or answered."""
        loads, revoke, supersede = self._loads, self._reservations.revoke, self._local.supersede
        for key, revision in zip(keys, revisions, strict=True):
            if loads:
                loads.pop(key, None)
            revoke(key)
            supersede(key, revision)

    async def load(self, key: RouteKey, min_revision: int = 0) -> Answer:
        """Answer ``key`` from beyond the local cache; raises what ``resolve`` raises.

        A load of the same key that is under way is joined. It continues when its waiters are cancelled.
        """
        # A waiter gets what was read when the load began, and that must not be older than a local entry may be. A load
        # older than that is waited for, then repeated: there is one load of a key at a time.
        while (load := self._loads.get(key)) is not None and self._now() - load.begun > self._join_seconds:
            with suppress(Exception):
                await load.result()
        answer = await (load.result() if load else self._start_load(key))
        if answer.snapshot.as_of >= min_revision:
            return answer
        return await asyncio.shield(self._run(self._newer(key, min_revision)))

    async def load_from_store(self, key: RouteKey, min_revision: int = 0) -> Answer:
        """Answer ``key`` from the store, by a read that begins after this call, until it is at ``min_revision``."""
        give_up = self._now() + self._patience
        pause = 0.005
        while True:
            snapshot = await self._read(key, min_revision)
            if snapshot.as_of >= min_revision:
                return Answer(snapshot, Source.POSTGRES)
            if self._now() + pause > give_up:
                raise RevisionNotReached(min_revision, snapshot.as_of)
            await asyncio.sleep(pause)
            pause *= 2

    def _answer(self, key: RouteKey, hit: CacheHit | None, min_revision: int) -> Answer | None:
        """Count a look into the local cache, and answer with what it found if that is new enough."""
        if hit is None or hit[2] < min_revision:
            self._observer.looked_up("local", "stale" if hit else "miss")
            return None
        snapshot = snapshot_of(key, hit)
        self._observer.looked_up("local", "hit" if snapshot.value else "negative")
        return Answer(snapshot, Source.LOCAL, hit[3])

    def _lookup_of(
        self, keys: Sequence[RouteKey], min_revision: int, lookup: LocalLookup | None
    ) -> Callable[[RouteKey], Answer | None]:
        if lookup is None or not lookup.is_for(min_revision, self._now()):
            return lambda key: self.resolve_locally(key, min_revision)
        hits = dict(zip(keys, lookup.hits, strict=True))
        return lambda key: self._answer(key, hits[key], min_revision)

    def _start_load(self, key: RouteKey) -> asyncio.Future[Answer]:
        load = self._loads[key] = InFlightLoad(key, self._now(), spans.current())
        result = load.result()
        self._shared.ask(key, partial(self._looked_up, load))  # may end the load before it returns
        return result

    def _looked_up(self, load: InFlightLoad, found: tuple[Lookup, str] | BaseException) -> None:
        """Go on with a load that was looked up in the shared cache."""
        if isinstance(found, BaseException):
            self._complete(load, found)
            return
        lookup, owner = found
        snapshot = lookup.snapshot
        if snapshot is None:
            self._observer.looked_up("redis", "miss")
            with spans.resumed(load.span):
                self._run(self._complete_by(load, self._fill(load.key, owner if lookup.leased else "")))
            return
        changed = self._local.changed(load.key)
        if snapshot.as_of < changed:
            # Redis missed the change, for instance because its writer could not reach it.
            self._observer.looked_up("redis", "stale")
            with spans.resumed(load.span):
                self._run(self._complete_by(load, self._newer(load.key, changed)))
            return
        self._observer.looked_up("redis", "hit" if snapshot.value else "negative")
        self._complete(load, Answer(snapshot, Source.REDIS, encoded=lookup.encoded))

    def _run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` in a task, which continues when no caller waits for its result any more."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here: its caller may have been cancelled

    async def _complete_by(self, load: InFlightLoad, work: Awaitable[Answer]) -> None:
        outcome: Answer | BaseException
        try:
            outcome = await work
        except BaseException as error:  # noqa: BLE001 - handed to everyone who waits
            outcome = error
        self._complete(load, outcome)

    def _complete(self, load: InFlightLoad, outcome: Answer | BaseException) -> None:
        """Cache the result of a load, unless it was cancelled, and give it to its waiters."""
        if self._loads.get(load.key) is load:
            del self._loads[load.key]
            if not isinstance(outcome, BaseException):
                self._local.put(outcome.snapshot, load.begun, outcome.encoded)
        load.end(outcome)

    def _cache_if_reserved(self, reservation: Reservation, snapshot: Snapshot) -> None:
        if reservation in self._reservations:
            self._local.put(snapshot, reservation.read_at)

    async def _fill(self, key: RouteKey, owner: str) -> Answer:
        """Read what the shared cache does not hold, and fill it if ``owner`` has the lease of the key."""
        snapshot = await self._store.get(key)
        if owner:
            await self._cache.fill([snapshot], owner)
        return Answer(snapshot, Source.POSTGRES)

    async def _look_up(self, keys: Sequence[RouteKey]) -> list[tuple[Lookup, str]]:
        owner = f"{self._process}-{next(self._lookup_numbers)}"
        return [(lookup, owner) for lookup in await self._cache.get(keys, owner)]

    async def _newer(self, key: RouteKey, min_revision: int) -> Answer:
        """Read the store until it is at ``min_revision``, and fill the caches, which are older."""
        answer = await self.load_from_store(key, min_revision)
        await self._cache.fill([answer.snapshot], "")
        return answer

    async def _read(self, key: RouteKey, min_revision: int) -> Snapshot:
        reservation = self._reservations.reserve(key, self._now())
        try:
            snapshot = await self._store.get(key)
            if snapshot.as_of >= min_revision:
                self._cache_if_reserved(reservation, snapshot)
            return snapshot
        finally:
            self._reservations.release(reservation)


def _answer_or_error(result: Answer | BaseException) -> Answer | PointsmanError:
    if isinstance(result, BaseException) and not isinstance(result, PointsmanError):
        raise result
    return result
