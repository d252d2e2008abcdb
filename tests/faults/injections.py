"""The table of faults: how each is injected, and how it is healed. Healing always happens, and is bounded."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field

import redis

from tests.faults.rig import MESSAGE_TIMEOUT, Rig, Server

HEAL_SECONDS = 60.0
SETTLE_SECONDS = 1.0

Injection = Callable[[Rig, random.Random], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One row. ``inject`` holds the fault while its block runs; ``hold`` is how long: from, to, in seconds.

    ``component`` is what is out of order: the availability of reads is promised for some. ``degrades``: Redis is out
    of reach of a server meanwhile, so the wider bound of promise 5 holds.
    """

    name: str
    component: str
    inject: Injection
    hold: tuple[float, float] = (1.0, 2.0)
    degrades: bool = False


@dataclass(slots=True)
class Injected:
    """One fault that was injected: when it began and when everything was healed; ``cached`` is what Redis held then."""

    fault: Fault
    begin: float
    end: float = 0.0
    cached: frozenset[str] = field(default_factory=frozenset)

    @property
    def degraded(self) -> tuple[float, float] | None:
        """When Redis was out of reach, if it was."""
        return (self.begin, self.end + SETTLE_SECONDS) if self.fault.degrades else None


async def inject(rig: Rig, fault: Fault, dice: random.Random, hold: float | None = None) -> Injected:
    """Inject ``fault``, hold it, heal it."""
    injected = Injected(fault, time.monotonic())
    seconds = hold or dice.uniform(*fault.hold)
    async with asyncio.timeout(HEAL_SECONDS + seconds):
        async with fault.inject(rig, dice):
            if fault.component == "PostgreSQL":
                injected.cached = cached_keys(rig, seconds + 1)
            await asyncio.sleep(seconds)
    injected.end = time.monotonic()
    return injected


def cached_keys(rig: Rig, seconds: float) -> frozenset[str]:
    """Name the keys that Redis answers for at least ``seconds`` more: with a value, and not being written."""
    found = []
    with rig.redis_client() as client:
        for name in filter(route_key, client.scan_iter("pointsman:*", count=1000)):
            fields = client.hgetall(name)
            marked = any(each.startswith(b"p:") for each in fields)
            if b"r" in fields and not marked and client.pttl(name) > seconds * 1000:
                found.append(route_key(name))
    return frozenset(found)


def route_key(name: bytes) -> str:
    """Return the route key in a name of Redis, where it comes last; empty if there is none."""
    key = name.decode().rpartition(":")[2]
    return key if key.count("/") == 3 else ""


def _any(rig: Rig, dice: random.Random) -> Server:
    return dice.choice(rig.servers)


def _leader(rig: Rig, _dice: random.Random) -> Server:
    return rig.leader()


def _consumer(rig: Rig, _dice: random.Random) -> Server:
    return max(rig.servers, key=lambda server: server.metric(r"pointsman_consumed_changes_total\{.*\}"))


Choose = Callable[[Rig, random.Random], Server]


def server_ends(choose: Choose, number: signal.Signals) -> Injection:
    """End a server by a signal; start it again."""

    @asynccontextmanager
    async def run(rig: Rig, dice: random.Random) -> AsyncIterator[None]:
        server = await asyncio.to_thread(choose, rig, dice)
        await server.stop(number)
        try:
            yield
        finally:
            await server.start()

    return run


def server_pauses(choose: Choose) -> Injection:
    """Stop a server in the middle of whatever it does, and let it go on."""

    @asynccontextmanager
    async def run(rig: Rig, dice: random.Random) -> AsyncIterator[None]:
        server = await asyncio.to_thread(choose, rig, dice)
        server.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            server.signal(signal.SIGCONT)

    return run


@asynccontextmanager
async def redis_restarts(rig: Rig, _dice: random.Random) -> AsyncIterator[None]:
    """Kill Redis; it comes back empty."""
    await rig.redis.end(signal.SIGKILL)
    try:
        yield
    finally:
        await rig.redis.started()


@asynccontextmanager
async def redis_flushes(rig: Rig, dice: random.Random) -> AsyncIterator[None]:
    """Lose all data, several times."""
    with rig.redis_client() as client:
        for _ in range(5):
            client.flushall()
            await asyncio.sleep(dice.uniform(0.05, 0.4))
    yield


@asynccontextmanager
async def redis_pauses(rig: Rig, _dice: random.Random) -> AsyncIterator[None]:
    """Keep Redis from answering; what it was sent it does later."""
    rig.redis.signal_all(signal.SIGSTOP)
    try:
        yield
    finally:
        rig.redis.signal_all(signal.SIGCONT)


@asynccontextmanager
async def redis_slows(rig: Rig, _dice: random.Random) -> AsyncIterator[None]:
    """Answer every server later than it waits."""
    for server in rig.servers:
        rig.proxies.do(f"redis-{server.number}", "delay", seconds=0.4)
    try:
        yield
    finally:
        for server in rig.servers:
            rig.proxies.do(f"redis-{server.number}", "delay", seconds=0)


@asynccontextmanager
async def redis_evicts(rig: Rig, _dice: random.Random) -> AsyncIterator[None]:
    """Leave Redis no room: it evicts keys at random, marks and leases too."""
    with rig.redis_client() as client:
        client.config_set("maxmemory-policy", "allkeys-random")
        squeeze = asyncio.create_task(_squeeze(client))
        try:
            yield
        finally:
            squeeze.cancel()
            await asyncio.gather(squeeze, return_exceptions=True)
            client.config_set("maxmemory", 0)


async def _squeeze(client: "redis.Redis") -> None:
    while True:
        # A little below what is used: Redis makes room at the next command that needs some; then it has room again.
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 4096)
        await asyncio.sleep(0.02)
        client.config_set("maxmemory", 0)
        await asyncio.sleep(0.1)


@asynccontextmanager
async def redis_cut(rig: Rig, dice: random.Random) -> AsyncIterator[None]:
    """Part one server from Redis: the others still read there what this one can no longer replace."""
    name = f"redis-{_any(rig, dice).number}"
    rig.proxies.do(name, "cut")
    try:
        yield
    finally:
        rig.proxies.do(name, "mend")


def postgres_restarts(number: signal.Signals) -> Injection:
    """End PostgreSQL by a signal: SIGINT is its fast shutdown, SIGQUIT its crash. Start it again."""

    @asynccontextmanager
    async def run(rig: Rig, _dice: random.Random) -> AsyncIterator[None]:
        await rig.postgres.end(number)
        try:
            yield
        finally:
            await rig.postgres.started()

    return run


@asynccontextmanager
async def postgres_pauses(rig: Rig, _dice: random.Random) -> AsyncIterator[None]:
    """Stop PostgreSQL and all its processes; connections stay open and nobody answers."""
    rig.postgres.signal_all(signal.SIGSTOP)
    try:
        yield
    finally:
        rig.postgres.signal_all(signal.SIGCONT)


@asynccontextmanager
async def postgres_disconnects(rig: Rig, dice: random.Random) -> AsyncIterator[None]:
    """End every connection to PostgreSQL, several times."""
    with rig.connect() as connection:
        for _ in range(4):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND usename = current_user"
            )
            await asyncio.sleep(dice.uniform(0.1, 0.5))
    yield


@asynccontextmanager
async def kafka_restarts(rig: Rig, _dice: random.Random) -> AsyncIterator[None]:
    """Kill the broker for longer than messages wait for one."""
    await asyncio.to_thread(rig.kafka.kill)
    try:
        yield
    finally:
        rig.kafka.start(wait=False)
        await asyncio.to_thread(rig.kafka.wait_ready)


@asynccontextmanager
async def kafka_pauses(rig: Rig, _dice: random.Random) -> AsyncIterator[None]:
    """Keep the broker from answering."""
    rig.kafka.pause()
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            rig.kafka.resume()


LONGER_THAN_MESSAGES_WAIT = (MESSAGE_TIMEOUT + 1, MESSAGE_TIMEOUT + 2)

FAULTS: Sequence[Fault] = (
    Fault("server killed", "server", server_ends(_any, signal.SIGKILL)),
    Fault("server paused", "server", server_pauses(_any), (2.0, 5.0)),
    Fault("server terminated", "server", server_ends(_any, signal.SIGTERM)),
    Fault("Redis killed, back empty", "Redis", redis_restarts, (1.0, 3.0), degrades=True),
    Fault("Redis flushed", "Redis", redis_flushes),
    Fault("Redis paused", "Redis", redis_pauses, (1.0, 4.0), degrades=True),
    Fault("Redis slow", "Redis", redis_slows, (2.0, 4.0), degrades=True),
    Fault("Redis evicts", "Redis", redis_evicts, (3.0, 5.0)),
    Fault("Redis cut from one server", "Redis", redis_cut, (2.0, 5.0), degrades=True),
    Fault("PostgreSQL restarted", "PostgreSQL", postgres_restarts(signal.SIGINT)),
    Fault("PostgreSQL crashed", "PostgreSQL", postgres_restarts(signal.SIGQUIT)),
    Fault("PostgreSQL paused", "PostgreSQL", postgres_pauses, (2.0, 5.0)),
    Fault("PostgreSQL connections ended", "PostgreSQL", postgres_disconnects),
    Fault("Kafka killed past the timeout", "Kafka", kafka_restarts, LONGER_THAN_MESSAGES_WAIT),
    Fault("Kafka paused past the timeout", "Kafka", kafka_pauses, LONGER_THAN_MESSAGES_WAIT),
    Fault("relay leader killed", "server", server_ends(_leader, signal.SIGKILL)),
    Fault("relay leader paused", "server", server_pauses(_leader), (3.0, 6.0)),
    Fault("busiest consumer killed", "server", server_ends(_consumer, signal.SIGKILL)),
)
