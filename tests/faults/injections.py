"""Faults that strike whenever: a part ends, hangs, is slow or out of reach, and is healed."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import redis

from tests.faults.faulting import Injection, Scene, Strike
from tests.faults.rig import Server, read_clock

Choose = Callable[[Scene], Server]
# How long a server may take to listen.
LISTENING_SECONDS = 10.0
OK_WRITES = r'pointsman_write_requests_total\{.*outcome="ok".*\}'


def anyone(scene: Scene) -> Server:
    """Choose any server."""
    return scene.dice.choice(scene.rig.servers)


def leader(scene: Scene) -> Server:
    """Choose the one whose relay leads."""
    return scene.rig.leader()


def consumer(scene: Scene) -> Server:
    """Choose the one that has consumed most."""
    return max(scene.rig.servers, key=lambda server: server.metric(r"pointsman_consumed_changes_total\{.*\}"))


async def strike(scene: Scene, server: Server, number: signal.Signals) -> None:
    """End a server by a signal, and take note of it."""
    scene.strikes.append(Strike(server.life, time.monotonic(), number))
    await server.stop(number)


def server_ends(choose: Choose, number: signal.Signals) -> Injection:
    """End a server by a signal; start it again."""

    @asynccontextmanager
    async def run(scene: Scene) -> AsyncIterator[None]:
        server = await asyncio.to_thread(choose, scene)
        await strike(scene, server, number)
        try:
            yield
        finally:
            await server.start()

    return run


def server_pauses(choose: Choose) -> Injection:
    """Stop a server in the middle of whatever it does, and let it go on."""

    @asynccontextmanager
    async def run(scene: Scene) -> AsyncIterator[None]:
        server = await asyncio.to_thread(choose, scene)
        server.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            server.signal(signal.SIGCONT)

    return run


@asynccontextmanager
async def server_restarts_without_store(scene: Scene) -> AsyncIterator[None]:
    """Kill a server, and start it again where it cannot reach PostgreSQL: it listens, and knows nothing."""
    server = anyone(scene)
    with scene.rig.cut("postgres", server):
        await strike(scene, server, signal.SIGKILL)
        server.begin()
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTENING_SECONDS):
                while not await _listens(server.xds_port):  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.1)
        yield
    await server.serves()


async def _listens(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


@asynccontextmanager
async def servers_restart_in_turn(scene: Scene) -> AsyncIterator[None]:
    """Restart every server, one after the other, as a new version is rolled out."""
    for server in scene.dice.sample(scene.rig.servers, len(scene.rig.servers)):
        await strike(scene, server, signal.SIGTERM)
        await server.start()
    yield


@asynccontextmanager
async def xds_cut(scene: Scene) -> AsyncIterator[None]:
    """Leave xDS clients without any server, while routes change.

    ``caught``: the changes that they could not hear of.
    """
    with scene.rig.connect() as connection:
        before = read_clock(connection).revision
        with scene.rig.xds_cut():
            yield
            scene.caught = read_clock(connection).revision - before


@asynccontextmanager
async def redis_restarts(scene: Scene) -> AsyncIterator[None]:
    """Kill Redis; it comes back empty."""
    await scene.rig.redis.end(signal.SIGKILL)
    try:
        yield
    finally:
        await scene.rig.redis.started()


@asynccontextmanager
async def redis_flushes(scene: Scene) -> AsyncIterator[None]:
    """Lose all data, several times."""
    with scene.rig.redis_clients() as clients:
        for _ in range(5):
            for client in clients:
                client.flushall()
            await asyncio.sleep(scene.dice.uniform(0.05, 0.4))
    yield


@asynccontextmanager
async def redis_pauses(scene: Scene) -> AsyncIterator[None]:
    """Keep Redis from answering; what it was sent it does later."""
    scene.rig.redis.pause()
    try:
        yield
    finally:
        await scene.rig.redis.resume()


@asynccontextmanager
async def redis_slows(scene: Scene) -> AsyncIterator[None]:
    """Answer every server later than it waits."""
    with scene.rig.delayed("redis", scene.rig.servers, 0.4, 0.4):
        yield


@asynccontextmanager
async def redis_evicts(scene: Scene) -> AsyncIterator[None]:
    """Leave Redis no room: it evicts keys at random, marks and leases too."""
    with scene.rig.redis_clients() as clients:
        for client in clients:
            client.config_set("maxmemory-policy", "allkeys-random")
        squeeze = asyncio.create_task(_squeeze(clients))
        try:
            yield
        finally:
            squeeze.cancel()
            await asyncio.gather(squeeze, return_exceptions=True)
            for client in clients:
                client.config_set("maxmemory", 0)


async def _squeeze(clients: "Sequence[redis.Redis]") -> None:
    while True:
        # A little below what is used: Redis makes room at the next command that needs some; then it has room again.
        for client in clients:
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 4096)
        await asyncio.sleep(0.02)
        for client in clients:
            client.config_set("maxmemory", 0)
        await asyncio.sleep(0.1)


@asynccontextmanager
async def redis_read_only_by_others(scene: Scene) -> AsyncIterator[None]:
    """Part a server from Redis to which writers stick: the others still read there what it can no longer replace.

    ``caught``: the writes that it answered meanwhile.
    """
    server = anyone(scene)
    before = await asyncio.to_thread(server.metric, OK_WRITES)
    with scene.rig.cut("redis", server):
        yield
        scene.caught = int(await asyncio.to_thread(server.metric, OK_WRITES) - before)


def postgres_restarts(number: signal.Signals) -> Injection:
    """End PostgreSQL by a signal: SIGINT is its fast shutdown, SIGQUIT its crash. Start it again."""

    @asynccontextmanager
    async def run(scene: Scene) -> AsyncIterator[None]:
        await scene.rig.postgres.end(number)
        try:
            yield
        finally:
            await scene.rig.postgres.started()

    return run


@asynccontextmanager
async def postgres_pauses(scene: Scene) -> AsyncIterator[None]:
    """Stop PostgreSQL and all its processes; connections stay open without answers."""
    scene.rig.postgres.signal_all(signal.SIGSTOP)
    try:
        yield
    finally:
        scene.rig.postgres.signal_all(signal.SIGCONT)


@asynccontextmanager
async def postgres_slows(scene: Scene) -> AsyncIterator[None]:
    """Hold back what servers and PostgreSQL say to each other, each way."""
    with scene.rig.delayed("postgres", scene.rig.servers, scene.dice.uniform(0.1, 0.2), scene.dice.uniform(0.1, 0.2)):
        yield


@asynccontextmanager
async def postgres_cut(scene: Scene) -> AsyncIterator[None]:
    """Part one server from PostgreSQL."""
    with scene.rig.cut("postgres", anyone(scene)):
        yield


@asynccontextmanager
async def postgres_pools_exhausted(scene: Scene) -> AsyncIterator[None]:
    """Lock every table that servers read, so that every connection of every server is stuck.

    ``caught``: the servers in whose pool somebody waited for a connection.
    """
    with scene.rig.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE clock, routes, route_changes IN ACCESS EXCLUSIVE MODE")
        watching = asyncio.create_task(_count_waiting(scene))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _count_waiting(scene: Scene) -> None:
    waiting: set[int] = set()
    while True:
        for server in scene.rig.servers:
            if await asyncio.to_thread(server.metric, "pointsman_store_pool_waiting"):
                waiting.add(server.number)
        scene.caught = len(waiting)
        await asyncio.sleep(0.3)


@asynccontextmanager
async def postgres_disconnects(scene: Scene) -> AsyncIterator[None]:
    """End every connection to PostgreSQL, several times."""
    with scene.rig.connect() as connection:
        for _ in range(4):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND usename = current_user"
            )
            await asyncio.sleep(scene.dice.uniform(0.1, 0.5))
    yield


@asynccontextmanager
async def kafka_restarts(scene: Scene) -> AsyncIterator[None]:
    """Kill the broker for longer than messages wait for one."""
    await asyncio.to_thread(scene.rig.kafka.kill)
    try:
        yield
    finally:
        scene.rig.kafka.start()
        await asyncio.to_thread(scene.rig.kafka.wait_ready)


@asynccontextmanager
async def kafka_pauses(scene: Scene) -> AsyncIterator[None]:
    """Keep the broker from answering."""
    scene.rig.kafka.pause()
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            scene.rig.kafka.resume()


@asynccontextmanager
async def one_broker_killed(scene: Scene) -> AsyncIterator[None]:
    """Kill one broker of several. ``caught``: the changes that were published without it."""
    broker = scene.dice.choice(scene.rig.kafka.each)
    await asyncio.to_thread(broker.kill)
    try:
        before = await asyncio.to_thread(_relayed, scene)
        yield
        scene.caught = await asyncio.to_thread(_relayed, scene) - before
    finally:
        broker.start(wait=False)
        await asyncio.to_thread(broker.wait_ready)


def _relayed(scene: Scene) -> int:
    with scene.rig.connect() as connection:
        return read_clock(connection).relayed
