"""Faults that strike at the moment that matters: in the middle of a commit, of a fill, of a batch of the relay."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from redis import Redis

from tests.faults.faulting import Injection, Scene
from tests.faults.history import SET
from tests.faults.injections import anyone, strike
from tests.faults.rig import Server

PATIENCE_SECONDS = 8.0
# A write in progress for this long, in seconds, while the clock is locked, is waiting for it.
ARRIVED_SECONDS = 0.4
# What a reader of PostgreSQL needs to notice a commit, many times over.
ANSWER_DELAY = 0.12
FILL_DELAY = 0.5
# Other servers, whose answers are not held back, have filled what they leased by then.
LEASED_SECONDS = 0.1
NOW_PUBLISHING = 0.4
LEADING_SECONDS = 2.0

END_LEADERSHIP = """
SELECT pg_terminate_backend(pid) FROM pg_locks
 WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32 | objid::bigint) = x'72656C6179'::bigint
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def killed_before_commit(*, of_sets: bool = False) -> Injection:
    """Hold the clock until writes wait for it in the middle of their transactions; kill their server; let go.

    ``of_sets``: until a commit or a revert waits. ``caught``: the writes, or those of many keys, that waited.
    """

    @asynccontextmanager
    async def run(scene: Scene) -> AsyncIterator[None]:
        server = anyone(scene)
        with scene.rig.connect() as connection, connection.transaction():
            connection.execute("SELECT FROM clock FOR UPDATE")
            scene.caught = await _wait_for_writes(scene, server.life, of_sets=of_sets)
            await strike(scene, server, signal.SIGKILL)
        try:
            yield
        finally:
            await server.start()

    return run


async def _wait_for_writes(scene: Scene, life: str, *, of_sets: bool) -> int:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        begun = [call for name, (at, call) in scene.load.underway.items() if at == life and is_of(name, of_sets)]
        waiting = sum(call < time.monotonic() - ARRIVED_SECONDS for call in begun)
        if waiting or time.monotonic() > give_up:
            return waiting
        await asyncio.sleep(0.02)


def is_of(request_id: str, of_sets: bool) -> bool:
    """Say whether a request is what a fault waits for: any write, or one of many keys."""
    return not of_sets or request_id.startswith(SET)


def killed_after_commit(*, of_sets: bool = False) -> Injection:
    """Hold back what PostgreSQL answers one server; kill that as soon as a write of its shows there.

    ``of_sets``: a commit or a revert. ``caught``: 1 if one did.
    """

    @asynccontextmanager
    async def run(scene: Scene) -> AsyncIterator[None]:
        server = anyone(scene)
        with scene.rig.delayed("postgres", [server], 0, ANSWER_DELAY):
            scene.caught = await _wait_for_commit(scene, server.life, of_sets=of_sets)
            await strike(scene, server, signal.SIGKILL)
        try:
            yield
        finally:
            await server.start()

    return run


async def _wait_for_commit(scene: Scene, life: str, *, of_sets: bool) -> int:
    give_up = time.monotonic() + PATIENCE_SECONDS
    with scene.rig.connect() as connection:
        ((last,),) = connection.execute("SELECT revision FROM clock").fetchall()
        while time.monotonic() < give_up:
            query = "SELECT revision, request_id FROM route_changes WHERE revision > %s ORDER BY revision"
            for revision, request_id in connection.execute(query, [last]).fetchall():
                last = revision
                if is_of(str(request_id), of_sets) and scene.load.underway.get(str(request_id), ("", 0.0))[0] == life:
                    return 1
            await asyncio.sleep(0.002)
    return 0


@asynccontextmanager
async def paused_in_a_fill(scene: Scene) -> AsyncIterator[None]:
    """Hold back what PostgreSQL answers one server, empty Redis, and stop the server when it has leases to fill.

    Others fill and write meanwhile; then the old answers arrive. ``caught``: the leases.
    """
    server = anyone(scene)
    with scene.rig.delayed("postgres", [server], 0, FILL_DELAY):
        scene.caught = await _stop_with_leases(scene, server)
        try:
            yield
        finally:
            server.signal(signal.SIGCONT)


async def _stop_with_leases(scene: Scene, server: Server) -> int:
    give_up = time.monotonic() + PATIENCE_SECONDS
    with scene.rig.redis_clients() as clients:
        while True:
            for client in clients:
                client.flushall()
            await asyncio.sleep(LEASED_SECONDS)
            before = _leases(scene, clients)
            await asyncio.sleep(LEASED_SECONDS)
            server.signal(signal.SIGSTOP)
            caught = len(before & _leases(scene, clients))
            if caught or time.monotonic() > give_up:
                return caught
            server.signal(signal.SIGCONT)


def _leases(scene: Scene, clients: Sequence[Redis]) -> set[tuple[bytes, bytes]]:
    names = [(client, name) for client in clients for name in scene.rig.redis_names(client) if b"/" in name]
    return {(name, token) for client, name in names if (token := client.hget(name, "l"))}


@asynccontextmanager
async def two_leaders(scene: Scene) -> AsyncIterator[None]:
    """Pause Kafka, so that a batch is under way; end the leader's session: another leads while it still publishes.

    ``caught``: how many led at once, less one.
    """
    rig = scene.rig
    rig.kafka.pause()
    try:
        await asyncio.sleep(NOW_PUBLISHING)
        with rig.connect() as connection:
            connection.execute(END_LEADERSHIP)
        scene.caught = await _most_leaders(rig.servers) - 1
        yield
    finally:
        rig.kafka.resume()


async def _most_leaders(servers: list[Server]) -> int:
    most, give_up = 1, time.monotonic() + LEADING_SECONDS
    while most < 2 and time.monotonic() < give_up:
        leading = await asyncio.gather(
            *(asyncio.to_thread(server.metric, "pointsman_relay_leader") for server in servers)
        )
        most = max(most, int(sum(leading)))
    return most
