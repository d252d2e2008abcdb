"""The read path: local cache → shared cache → store, each miss filling the layer above."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.errors import PointsmanError, RevisionNotReached
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.cache import Lookup, RouteCache
from pointsman_server.ports.store import RouteStore
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.cache_entry import NearestCache
from pointsman_server.runtime.batcher import Batcher, Callback, settle
from pointsman_server.runtime.fair_share import FairShare


class ReadObserver(Protocol):
    """Who counts: ``layer`` is local or redis, ``outcome`` is hit, negative or miss."""

    def looked_up(self, layer: str, outcome: str) -> None:
        """Count one look into a cache."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is loaded at once: keys per load, loads at the same time, and keys that wait.

    ``lookups`` are those of the shared cache at the same time. Few: what comes meanwhile goes together after them, and
    one round trip for many keys costs little more than one for one.
    """

    batch: int = 200
    concurrency: int = 4
    queue: int = 2000
    lookups: int = 2


class InFlightLoad:
    """A load under way: of which key, since when, and who is told its result."""

    __slots__ = ("begun", "key", "waiters")

    def __init__(self, key: RouteKey, begun: float, waiter: Callback[Answer]) -> None:
        self.key = key
        self.begun = begun
        self.waiters = [waiter]


class Reservation:
    """The right to take what is read into the local cache, as long as it is listed; since when it is being read."""

    __slots__ = ("key", "read_at")

    def __init__(self, key: RouteKey, read_at: float) -> None:
        self.key = key
        self.read_at = read_at


class Resolver:
    """Answers from the nearest layer that is new enough.

    Invariants: concurrent misses of one key are one load. What a load brings is taken over only if nobody wrote
    the key in this process meanwhile (``apply_local_write``), so a late load never replaces what a write left behind:
    a write cancels the key's in-flight loads and reservations; their results are not cached.
    """

    def __init__(
        self,
        store: RouteStore,
        cache: RouteCache,
        local: NearestCache,
        *,
        observer: ReadObserver,
        bounds: Bounds = Bounds(),
        patience: float = 1.0,
        join_seconds: float = 1.0,
        fair_share: FairShare | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = Batcher(
            store.load, size=bounds.batch, concurrency=bounds.concurrency, queue=bounds.queue, limit="store_loads"
        )
        self._shared = Batcher(
            self._look_up,
            size=bounds.batch,
            concurrency=bounds.lookups,
            queue=bounds.queue * 4,
            limit="cache_loads",
        )
        self._cache = cache
        self._local = local
        self._observer = observer
        self._patience = patience
        self._join_seconds = join_seconds
        self._fair_share = fair_share or FairShare()
        self._now = now
        self._loads: dict[RouteKey, InFlightLoad] = {}
        self._reservations: dict[RouteKey, set[Reservation]] = {}
        self._going_on: set[asyncio.Task[None]] = set()
        self._process = secrets.token_hex(4)
        self._owners = itertools.count()

    def near(self, key: RouteKey, min_revision: int = 0) -> Answer | None:
        """Answer from the local cache, without waiting, if it is new enough."""
        found = self._local.look(key, min_revision)
        if found is None:
            self._observer.looked_up("local", "stale" if min_revision and self._local.look(key) else "miss")
            return None
        snapshot, age = found
        self._observer.looked_up("local", "hit" if snapshot.route else "negative")
        return Answer(snapshot, Source.LOCAL, age)

    def holds(self, key: RouteKey) -> bool:
        """Say whether the local cache would answer, without counting that it was looked into."""
        return self._local.find(key_to_bytes(key)) is not None

    async def resolve(self, key: RouteKey, min_revision: int = 0, *, fully_consistent: bool = False) -> Answer:
        """Answer what is known of ``key`` as of ``min_revision`` or later.

        Raises StoreUnavailable, Overloaded, and RevisionNotReached when the store itself stays below
        ``min_revision`` for as long as this resolver's patience.
        """
        if fully_consistent:
            return await self._from_store(key, min_revision)
        return self.near(key, min_revision) or await self._from_afar(key, min_revision)

    async def _from_afar(self, key: RouteKey, min_revision: int) -> Answer:
        answer = await self._fly(key)
        if answer.snapshot.as_of >= min_revision:
            return answer
        return await self._newer(key, min_revision)

    async def resolve_many(
        self, keys: Sequence[RouteKey], min_revision: int = 0, *, fully_consistent: bool = False
    ) -> list[Answer | PointsmanError]:
        """Answer every key, in order; a key that cannot be answered has its error in its place."""
        distinct = list(dict.fromkeys(keys))
        find = self._from_store if fully_consistent else self._from_afar
        results: dict[RouteKey, Answer | PointsmanError] = {}
        if not fully_consistent:
            near = await self._fair_share.map(lambda key: self.near(key, min_revision), distinct)
            results.update((key, answer) for key, answer in zip(distinct, near, strict=True) if answer)
        missing = [key for key in distinct if key not in results]
        found = await asyncio.gather(*(find(key, min_revision) for key in missing), return_exceptions=True)
        results.update(zip(missing, map(_answer_or_error, found), strict=True))
        return [results[key] for key in keys]

    def apply_local_write(self, snapshots: Sequence[Snapshot]) -> None:
        """Take over what a write of this process left behind, before the write is answered."""
        for snapshot in snapshots:
            self.observe(snapshot)
            self._local.put(snapshot, self._now())

    def forget(self) -> None:
        """End every load under way: none of them is joined or taken over any more."""
        self._loads.clear()
        self._reservations.clear()

    def observe(self, snapshot: Snapshot) -> None:
        """Take note of a change, wherever it was made: no load that began before it is taken over any more."""
        self._loads.pop(snapshot.key, None)
        self._reservations.pop(snapshot.key, None)
        self._local.observe(snapshot)

    def supersede(self, keys: Iterable[RouteKey], revisions: Iterable[int]) -> None:
        """Take note that each key last changed at its revision: nothing older is taken over or answered any more."""
        loads, reservations, supersede = self._loads, self._reservations, self._local.supersede
        for key, revision in zip(keys, revisions, strict=True):
            if loads:
                loads.pop(key, None)
            if reservations:
                reservations.pop(key, None)
            supersede(key, revision)

    def ask(self, key: RouteKey, on_result: Callback[Answer]) -> None:
        """Find what is known of ``key`` beyond the local cache, and tell: the answer, or what ``resolve`` raises.

        Who asks for a key that is being loaded joins its load. ``on_result`` raises nothing, and may be called at once.
        """
        load = self._loads.get(key)
        if load is None:
            self._start_load(key, on_result)
        elif self._now() - load.begun > self._join_seconds:
            # Who joins gets what was read when the load began, and that must not be older than a local entry may be.
            # An older one is waited for, not doubled: one load of a key at a time.
            load.waiters.append(lambda _: self.ask(key, on_result))
        else:
            load.waiters.append(on_result)

    def ask_store(self, key: RouteKey, on_result: Callback[Answer]) -> None:
        """Read ``key`` in the store itself, by a load that begins after this; tell as ``ask`` does."""
        reservation = self._reserve(key)

        def read(found: Snapshot | BaseException) -> None:
            if not isinstance(found, BaseException):
                self._cache_if_reserved(reservation, found)
            self._release(reservation)
            on_result(found if isinstance(found, BaseException) else Answer(found, Source.POSTGRES))

        self._store.ask(key, read)

    async def _fly(self, key: RouteKey) -> Answer:
        # A future of its own: the one who asked first may give up, the others still want the answer.
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.ask(key, partial(settle, future))
        return await future

    def _start_load(self, key: RouteKey, on_result: Callback[Answer]) -> None:
        load = self._loads[key] = InFlightLoad(key, self._now(), on_result)
        self._shared.ask(key, partial(self._looked_up, load))

    def _looked_up(self, load: InFlightLoad, found: tuple[Lookup, str] | BaseException) -> None:
        if isinstance(found, BaseException):
            self._complete(load, found)
            return
        lookup, owner = found
        snapshot = lookup.snapshot
        if snapshot is None:
            self._observer.looked_up("redis", "miss")
            self._go_on(load, self._load(load.key, owner if lookup.leased else ""))
            return
        changed = self._local.changed(load.key)
        if snapshot.as_of < changed:
            # Redis missed the change, for instance because its writer could not reach it.
            self._observer.looked_up("redis", "stale")
            self._go_on(load, self._newer(load.key, changed))
            return
        self._observer.looked_up("redis", "hit" if snapshot.route else "negative")
        self._complete(load, Answer(snapshot, Source.REDIS, encoded=lookup.encoded))

    def _go_on(self, load: InFlightLoad, rest: Awaitable[Answer]) -> None:
        """Let a load that the shared cache does not end take as long as it takes."""
        task = asyncio.get_running_loop().create_task(self._arrive(load, rest))
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)

    async def _arrive(self, load: InFlightLoad, rest: Awaitable[Answer]) -> None:
        outcome: Answer | BaseException
        try:
            outcome = await rest
        except BaseException as error:  # noqa: BLE001 - handed to everyone who waits
            outcome = error
        self._complete(load, outcome)

    def _complete(self, load: InFlightLoad, outcome: Answer | BaseException) -> None:
        if self._loads.get(load.key) is load:
            del self._loads[load.key]
            if not isinstance(outcome, BaseException):
                self._local.put(outcome.snapshot, load.begun)
        for on_result in load.waiters:
            on_result(outcome)

    def _reserve(self, key: RouteKey) -> Reservation:
        reservation = Reservation(key, self._now())
        self._reservations.setdefault(key, set()).add(reservation)
        return reservation

    def _cache_if_reserved(self, reservation: Reservation, snapshot: Snapshot) -> None:
        if reservation in self._reservations.get(reservation.key, ()):
            self._local.put(snapshot, reservation.read_at)

    def _release(self, reservation: Reservation) -> None:
        reservations = self._reservations.get(reservation.key)
        if reservations is not None:
            reservations.discard(reservation)
            if not reservations:
                del self._reservations[reservation.key]

    async def _load(self, key: RouteKey, owner: str) -> Answer:
        """Read what the shared cache has not, and leave it there if ``owner`` holds the lease of the key."""
        snapshot = await self._store.get(key)
        if owner:
            await self._cache.fill([snapshot], owner)
        return Answer(snapshot, Source.POSTGRES)

    async def _look_up(self, keys: Sequence[RouteKey]) -> list[tuple[Lookup, str]]:
        owner = f"{self._process}-{next(self._owners)}"
        return [(lookup, owner) for lookup in await self._cache.get(keys, owner)]

    async def _newer(self, key: RouteKey, min_revision: int) -> Answer:
        """Read past caches that are too old, and leave them the newer answer."""
        answer = await self._from_store(key, min_revision)
        await self._cache.fill([answer.snapshot], owner="")
        return answer

    async def _from_store(self, key: RouteKey, min_revision: int) -> Answer:
        """Read the store until it is at ``min_revision``."""
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

    async def _read(self, key: RouteKey, min_revision: int) -> Snapshot:
        reservation = self._reserve(key)
        try:
            snapshot = await self._store.get(key)
            if snapshot.as_of >= min_revision:
                self._cache_if_reserved(reservation, snapshot)
            return snapshot
        finally:
            self._release(reservation)


def _answer_or_error(result: Answer | BaseException) -> Answer | PointsmanError:
    if isinstance(result, BaseException) and not isinstance(result, PointsmanError):
        raise result
    return result
