"""What a fault is, and how one is injected: it holds for a while, and healing always happens, and is bounded."""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from tests.faults.load import Load
from tests.faults.rig import Rig

HEAL_SECONDS = 60.0
SETTLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Strike:
    """A signal that ended one life of a server, and when."""

    life: str
    at: float
    number: signal.Signals


@dataclass(slots=True)
class Scene:
    """What an injection works on, and what it says of itself.

    ``caught`` counts what the fault is about and what it hit, for instance fills that were under way; None where every
    injection hits. ``strikes`` are the servers that it ended.
    """

    rig: Rig
    dice: random.Random
    load: Load
    caught: int | None = None
    strikes: list[Strike] = field(default_factory=list)


Injection = Callable[[Scene], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One row. ``inject`` holds the fault while its block runs; ``hold`` is how long: from, to, in seconds.

    ``component`` is what is out of order: the availability of reads is promised for some. ``degrades``: Redis is out
    of reach of a server meanwhile, so the wider bound of promise 5 holds. ``writes``: writes go on meanwhile, though
    slowly; while one is under way, its keys are not answered from Redis. ``brokers``: how many Kafka must have.
    """

    name: str
    component: str
    inject: Injection
    hold: tuple[float, float] = (0.8, 1.5)
    degrades: bool = False
    writes: bool = False
    brokers: int = 1


@dataclass(slots=True)
class Injected:
    """One fault that was injected: when it began and when everything was healed.

    ``cached`` is what Redis held when it began, with more time to live than until ``expires``.
    """

    fault: Fault
    begin: float
    end: float = 0.0
    cached: frozenset[str] = field(default_factory=frozenset)
    expires: float = 0.0
    caught: int | None = None
    strikes: list[Strike] = field(default_factory=list)

    @property
    def degraded(self) -> tuple[float, float] | None:
        """When Redis was out of reach, if it was."""
        return (self.begin, self.end + SETTLE_SECONDS) if self.fault.degrades else None


# What counts as cached lives for the hold and so much longer; a read that begins before its end may take so long.
HEALING_WITH_STORE = 5.0
CALL_SECONDS = 2.0


async def inject(rig: Rig, fault: Fault, dice: random.Random, load: Load, hold: float = 0.0) -> Injected:
    """Inject ``fault``, hold it for ``hold`` seconds or as long as its row says, heal it."""
    scene = Scene(rig, dice, load)
    seconds = hold or dice.uniform(*fault.hold)
    store_goes = fault.component == "PostgreSQL"
    cached = cached_keys(rig, seconds + HEALING_WITH_STORE) if store_goes else frozenset()
    now = time.monotonic()
    injected = Injected(fault, now, cached=cached, expires=now + seconds + HEALING_WITH_STORE - CALL_SECONDS)
    async with asyncio.timeout(HEAL_SECONDS + seconds):
        async with fault.inject(scene):
            if store_goes:
                # A write that the fault cut short has left its mark: no server may answer its keys from Redis any more.
                injected.cached &= cached_keys(rig, seconds)
            await asyncio.sleep(seconds)
    injected.end = time.monotonic()
    injected.caught, injected.strikes = scene.caught, scene.strikes
    return injected


def cached_keys(rig: Rig, seconds: float) -> frozenset[str]:
    """Name the keys that Redis answers for at least ``seconds`` more: with a value, and not being written."""
    found = []
    with rig.redis_clients() as clients:
        names = [(client, name) for client in clients for name in filter(route_key, rig.redis_names(client))]
        for client, name in names:
            fields = client.hgetall(name)
            marked = any(each.startswith(b"p:") for each in fields)
            if b"r" in fields and not marked and client.pttl(name) > seconds * 1000:
                found.append(route_key(name))
    return frozenset(found)


def route_key(name: bytes) -> str:
    """Return the route key in a name of Redis, where it comes last; empty if there is none."""
    key = name.decode().rpartition(":")[2]
    return key if key.count("/") == 3 else ""
