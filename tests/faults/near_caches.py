"""Near-caches among the clients: read and selected from all the time, and held to promise 14 and to the history.

Each follows all servers, as a service in production would, and serves what it has when it is stale: so every answer
comes from its table.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pointsman import Client, NotFound
from pointsman.errors import AmbiguousVersion, NoActiveVersion
from pointsman.near_cache.near_cache import NearCache
from tests.faults.checking import Violation
from tests.faults.history import Era
from tests.faults.load import KEYS, name
from tests.faults.rig import Server
from tests.faults.traffic.clients import STICKY_KEYS
from tests.faults.traffic.recipes import choose_families, family
from tests.faults.traffic.records import Selected
from tests.faults.watch_checking import Truth
from tests.faults.watchers import CATCH_UP_SECONDS, State

NEAR_CACHES = 3
READY_SECONDS = 30.0
READ_PAUSE = 0.02
# Reads between two looks at the whole table.
READS_OF_A_LOOK = 25


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer: ``revision`` is that of the route, 0 without one; ``as_of`` is when it was true."""

    at: float
    key: str
    revision: int
    url: str
    as_of: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Look:
    """All live routes at one moment, at which the table was at a revision between the two."""

    at: float
    first: int
    last: int
    epoch: str
    routes: dict[str, State]


@dataclass(slots=True)
class Observed:
    """What one near-cache showed."""

    number: int
    shown: list[Shown] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    selected: list[Selected] = field(default_factory=list)
    healthy: bool = False


class NearCaches:
    """All near-caches of a run."""

    def __init__(self, servers: Sequence[Server], seed: int, count: int = NEAR_CACHES) -> None:
        target = "ipv4:" + ",".join(server.address for server in servers)
        self._clients = [Client(target) for _ in range(count)]
        self._caches: list[NearCache] = []
        self._seed = seed
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False
        self.observed = [Observed(number) for number in range(count)]

    async def start(self) -> None:
        """Load, and begin to read."""
        for client in self._clients:
            self._caches.append(client.cached(max_stale=1.0, on_stale="serve"))
        for cache in self._caches:
            assert await asyncio.to_thread(cache.wait_ready, READY_SECONDS), cache.last_error
        pairs = zip(self._caches, self.observed, strict=True)
        self._tasks = [asyncio.create_task(self._read(cache, seen)) for cache, seen in pairs]

    async def stop(self, revision: int) -> None:
        """Wait until all have ``revision``, or for as long as that may take; look once more, and close them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while any(cache.revision < revision or not cache.live for cache in self._caches):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        self._ended = True
        await asyncio.gather(*self._tasks)
        for cache, seen in zip(self._caches, self.observed, strict=True):
            seen.looks.append(look(cache))
            seen.healthy = cache.live
        for client in self._clients:
            await asyncio.to_thread(client.close)

    async def _read(self, cache: NearCache, seen: Observed) -> None:
        dice = random.Random(f"{self._seed}-near-cache-{seen.number}")
        while not self._ended:
            for _ in range(READS_OF_A_LOOK):
                seen.shown.append(read(cache, name(dice.randrange(KEYS))))
                (number,) = choose_families(dice, 1)
                sticky_key = f"caller-{dice.randrange(STICKY_KEYS)}" if dice.random() < 0.95 else ""
                seen.selected.append(select(cache, family(number), sticky_key))
                await asyncio.sleep(READ_PAUSE)
            seen.looks.append(look(cache))


def read(cache: NearCache, key: str) -> Shown:
    """Read one key."""
    try:
        found = cache.resolve(key)
    except NotFound as error:
        known = error.metadata
        return Shown(time.monotonic(), key, 0, "", int(known["revision"]), known["epoch"])
    return Shown(time.monotonic(), key, found.revision, found.url, found.as_of_revision, found.epoch)


def select(cache: NearCache, of: str, sticky_key: str) -> Selected:
    """Select once."""
    call = time.monotonic()
    try:
        found = cache.select(of, sticky_key)
    except (NoActiveVersion, AmbiguousVersion) as error:
        known, state = error.metadata, "none" if isinstance(error, NoActiveVersion) else "ambiguous"
        return Selected(call, time.monotonic(), of, sticky_key, state, int(known["revision"]), known["epoch"])
    rule, passed = found.choice.rule.name, found.choice.inactive_versions
    return Selected(
        call,
        time.monotonic(),
        of,
        sticky_key,
        "chosen",
        found.as_of_revision,
        found.epoch,
        found.choice.version,
        found.revision,
        found.url,
        rule,
        passed,
        found.traffic_revision,
    )


def look(cache: NearCache) -> Look:
    """Look at the whole table."""
    while True:
        first, epoch = cache.revision, cache.epoch
        routes = {str(route.key): (route.revision, "active", route.url) for route in cache.routes()}
        if cache.epoch == epoch:
            return Look(time.monotonic(), first, cache.revision, epoch, routes)


def check_near_caches(observed: Sequence[Observed], eras: Sequence[Era]) -> list[Violation]:
    """Hold everything that near-caches showed to promise 14, and the last look to the end of the last era."""
    truths = {era.epoch: Truth(era.rows) for era in eras}
    order = {era.epoch: number for number, era in enumerate(eras)}
    violations = []
    for seen in observed:
        violations += answers_are_true(seen, truths)
        violations += nothing_goes_back(seen, truths, order)
        violations += tables_are_whole(seen, truths)
        violations += is_current_at_the_end(seen, eras[-1])
    return violations


def answers_are_true(seen: Observed, truths: dict[str, Truth]) -> Iterator[Violation]:
    """Promise 14: what is shown was so as of the revision that is shown with it."""
    for each in seen.shown:
        truth = truths.get(each.epoch)
        row = truth.last_of(each.key, each.as_of) if truth else None
        expected = (row.revision, row.url) if row and row.state == "active" else (0, "")
        if truth is None or (each.revision, each.url) != expected:
            yield Violation(14, "a near-cache showed what never was", each.at, f"{seen.number}: {each}; {row}")


def nothing_goes_back(seen: Observed, truths: dict[str, Truth], order: dict[str, int]) -> Iterator[Violation]:
    """Promise 14: no key goes back to an older revision, and no table to an epoch that is over."""
    last: dict[str, tuple[tuple[int, int], Shown]] = {}
    for each in seen.shown:
        truth = truths.get(each.epoch)
        row = truth.last_of(each.key, each.as_of) if truth else None
        now = (order.get(each.epoch, -1), row.revision if row else 0)
        before, which = last.get(each.key, (now, each))
        if now < before:
            yield Violation(14, "a near-cache went back", each.at, f"{seen.number}: {which}; {each}")
        last[each.key] = (now, each)


def tables_are_whole(seen: Observed, truths: dict[str, Truth]) -> Iterator[Violation]:
    """Promise 14: the table is that of one revision, between two change sets."""
    for each in seen.looks:
        truth = truths.get(each.epoch)
        if truth is None or not any(
            {key: state for key, state in truth.table_at(revision).items() if state[1] == "active"} == each.routes
            for revision in truth.ends_between(each.first, each.last)
        ):
            text = f"{seen.number}: {len(each.routes)} routes, {each.first} to {each.last} of {each.epoch}"
            yield Violation(14, "a table that never was", each.at, text)


def is_current_at_the_end(seen: Observed, last: Era) -> Iterator[Violation]:
    """Promise 14: it heals by itself."""
    end = last.rows[-1].revision if last.rows else 0
    final = seen.looks[-1] if seen.looks else None
    if final is None or not seen.healthy or final.epoch != last.epoch or final.last < end:
        has = f"{final.last} of {final.epoch}" if final else "nothing"
        yield Violation(14, "a near-cache is not current at the end", 0.0, f"{seen.number} has {has}, not {end}")
