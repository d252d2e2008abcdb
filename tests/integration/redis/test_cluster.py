"""Redis Cluster: lost scripts, slots that move, a node that fails, rights, and servers on it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pointsman import Client
from pointsman_server.adapters.redis.cache import Lifetimes, RedisCache
from pointsman_server.adapters.redis.names import KeyNames, slot_of
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.cache import CacheUnavailable
from pointsman_server.ports.store import Clock
from tests.support.pause import pause, resume
from tests.support.processes import get_json, run
from tests.support.redis_cluster import Cluster, role, running, until
from tests.support.redis_server import RedisServer
from tests.support.route_cache import LEASED, MISS, PATIENCE, absent, at, hit
from tests.support.servers import serving, settings
from tests.support.waiting import becomes, eventually

OPERATING = Path(__file__).parents[3] / "docs" / "operating.md"
NAMES = KeyNames("pointsman", clustered=True)
KEYS = [RouteKey("team-a", f"service-{number}", "prod", "v1") for number in range(200)]
OLD, NEW = "https://old.internal", "https://new.internal"


def key_at(first: int, end: int) -> RouteKey:
    """Find a key with a slot in this range."""
    return next(key for key in KEYS if first <= slot_of(NAMES.head_of(key)) < end)


# One on each of three nodes.
ON = [key_at(16384 * number // 3, 16384 * (number + 1) // 3) for number in range(3)]


async def write(cache: RedisCache, key: RouteKey, revision: int) -> None:
    await cache.mark([key], "writer")
    await cache.settle([at(revision, key)], "writer")


@pytest.fixture
async def cache(cluster_url: str) -> AsyncIterator[RedisCache]:
    failures: list[str] = []
    cache = RedisCache(cluster_url, timeout=PATIENCE, failed=lambda: failures.append("failed"))
    yield cache
    await cache.close()
    assert failures == []


async def test_scripts_that_a_node_lost_are_loaded_there_again(cache: RedisCache, redis_cluster: Cluster) -> None:
    await cache.mark(KEYS, "writer")
    await cache.settle([at(5, key) for key in KEYS], "writer")
    for node in redis_cluster.primaries:
        node.run("SCRIPT", "FLUSH")
        assert await cache.get(KEYS, "reader") == [hit(at(5, key)) for key in KEYS]


async def test_a_slot_that_another_node_serves_now_is_followed(cache: RedisCache, redis_cluster: Cluster) -> None:
    key, target = ON[0], redis_cluster.primaries[2]
    await write(cache, key, 5)
    slot = slot_of(NAMES.head_of(key))
    redis_cluster.move(slot, target)
    try:
        assert await cache.get(KEYS, "reader") == [hit(at(5, key)) if each == key else LEASED for each in KEYS]
        await write(cache, key, 6)
        assert await cache.get([key], "reader") == [hit(at(6, key))]
        assert target.run("CLUSTER", "COUNTKEYSINSLOT", slot) > 0
    finally:
        redis_cluster.move(slot, redis_cluster.primaries[0])


async def replace_by(how: str, cache: RedisCache, key: RouteKey) -> None:
    if how == "settle":
        await write(cache, key, 6)
    elif how == "consume":
        await cache.consume([at(6, key)])
    elif how == "invalidate":
        await cache.invalidate([key], [6], "no-epoch")
    else:
        await cache.mark_held([key], "writer")
        await cache.drop_older([key], [6], Clock("no-epoch", 6), "writer")


@pytest.mark.parametrize("write_at", ["begun", "moved one"])
@pytest.mark.parametrize("how", ["settle", "consume", "invalidate", "drop_older"])
async def test_a_write_while_its_slot_moves_leaves_nothing_older(
    cache: RedisCache, redis_cluster: Cluster, write_at: str, how: str
) -> None:
    key, loop = ON[0], asyncio.get_running_loop()
    slot = slot_of(NAMES.head_of(key))
    neighbours = [each for each in KEYS if slot_of(NAMES.head_of(each)) == slot]
    for each in neighbours:
        await write(cache, each, 5)
    written: list[RouteKey] = []

    async def replace() -> None:
        for each in neighbours:
            await replace_by(how, cache, each)
        written.extend(neighbours)
        # Never an older value, in the middle of it either.
        for found in await cache.get(neighbours, "reader"):
            assert not found.snapshot or found.snapshot.as_of == 6

    def step(name: str) -> None:
        if name == write_at and not written:
            asyncio.run_coroutine_threadsafe(replace(), loop).result(30)

    await asyncio.to_thread(redis_cluster.move, slot, redis_cluster.primaries[1], steps=step)
    try:
        assert len(neighbours) > 1
        assert written
        found = await cache.get(neighbours, "reader")
        assert {each.snapshot.as_of for each in found if each.snapshot} <= {6}
    finally:
        await asyncio.to_thread(redis_cluster.move, slot, redis_cluster.primaries[0])


async def test_a_late_fill_while_its_slot_moves_is_refused(cache: RedisCache, redis_cluster: Cluster) -> None:
    key, loop = ON[0], asyncio.get_running_loop()
    assert await cache.get([key], "reader") == [LEASED]
    done: list[str] = []

    def step(name: str) -> None:
        if name == "moved one" and not done:
            asyncio.run_coroutine_threadsafe(write(cache, key, 6), loop).result(30)
            done.append(name)

    slot = slot_of(NAMES.head_of(key))
    await asyncio.to_thread(redis_cluster.move, slot, redis_cluster.primaries[1], steps=step)
    try:
        await cache.fill([at(5, key)], "reader")
        (found,) = await cache.get([key], "another")
        assert found != hit(at(5, key))
        assert done
    finally:
        await asyncio.to_thread(redis_cluster.move, slot, redis_cluster.primaries[0])


async def test_a_revision_that_one_part_has_seen_is_known_before_a_write_of_another(cluster_url: str) -> None:
    known: list[tuple[str, int]] = []
    one = RedisCache(cluster_url, timeout=PATIENCE)
    other = RedisCache(cluster_url, timeout=PATIENCE, witness=lambda *found: known.append(found))
    await write(one, ON[1], 7)
    await other.mark([ON[2]], "writer")
    await other.mark_held([ON[0]], "writer")
    assert known == [("no-epoch", 7)] * 2
    await one.close()
    await other.close()


async def test_values_of_an_old_epoch_do_not_hide_a_write_of_a_new_one(cluster_url: str) -> None:
    old = RedisCache(cluster_url, timeout=PATIENCE, epoch=lambda: "old-epoch")
    new = RedisCache(cluster_url, timeout=PATIENCE, epoch=lambda: "new-epoch")
    for key in ON:
        await write(old, key, 5)
    await write(new, ON[1], 1)
    assert [found.snapshot is None for found in await old.get(ON, "reader")] == [False, True, False]
    await new.publish_clock(Clock("new-epoch", 1))
    assert await old.get(KEYS, "reader") == [MISS] * len(KEYS)
    await old.close()
    await new.close()


async def test_the_documented_rights_are_enough(redis_cluster: Cluster, cluster_url: str) -> None:
    lines = OPERATING.read_text().splitlines()
    rights = next(line for line in lines if "+evalsha" in line).strip().strip("`").split()
    of_cluster = next(line for line in lines if "+cluster|slots" in line).split("`")[1].split()
    for node in redis_cluster.primaries:
        node.run("ACL", "SETUSER", "app", "reset", "on", ">secret", *rights, *of_cluster)
    failures: list[str] = []
    url = cluster_url.replace("//", "//app:secret@")
    cache = RedisCache(url, timeout=PATIENCE, failed=lambda: failures.append("failed"))
    await cache.ping()
    await cache.mark(KEYS, "writer")
    await cache.settle([absent(5, key) for key in KEYS], "writer")
    slot = slot_of(NAMES.head_of(ON[0]))
    loop = asyncio.get_running_loop()

    def step(_name: str) -> None:
        asyncio.run_coroutine_threadsafe(write(cache, ON[0], 6), loop).result(30)

    await asyncio.to_thread(redis_cluster.move, slot, redis_cluster.primaries[1], steps=step)
    await asyncio.to_thread(redis_cluster.move, slot, redis_cluster.primaries[0])
    assert failures == []
    assert await cache.get([ON[0]], "reader") == [hit(at(6, ON[0]))]
    for node in redis_cluster.primaries:
        node.run("ACL", "SETUSER", "app", "-cluster|slots")
    with pytest.raises(CacheUnavailable, match="does not let the user of REDIS_URL ask for the nodes"):
        await cache.ping()
    await cache.close()


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that may lose nodes; the first primary has a replica."""
    cluster = Cluster(tmp_path, replicas=1, node_timeout_ms=1000)
    with running(cluster):
        for node in cluster.nodes:
            node.run("CONFIG", "SET", "cluster-require-full-coverage", "no")
        yield cluster


async def complaint(cache: RedisCache) -> str:
    try:
        await cache.ping()
    except CacheUnavailable as error:
        return str(error)
    return ""


async def test_a_lost_primary_is_replaced_and_what_it_had_answered_is_not_older_for_longer_than_it_lives(
    failing: Cluster,
) -> None:
    cache = RedisCache(failing.url, timeout=0.5, lifetimes=Lifetimes(value=5.0))
    first, replica = failing.primaries[0], failing.replicas[0]
    for key in ON:
        await write(cache, key, 5)
    until(lambda: replica.run("DBSIZE") == first.run("DBSIZE"))
    # An answered write that never reaches the replica.
    pause(replica.process)
    await write(cache, ON[0], 6)
    first.stop()
    resume(replica.process)
    # The others go on.
    (lost, *found) = await cache.get(ON, "reader")
    assert (lost, found) == (MISS, [hit(at(5, key)) for key in ON[1:]])
    assert f"Redis Cluster node at 127.0.0.1:{first.port} does not answer" == await complaint(cache)

    async def replaced() -> bool:
        return not await complaint(cache)

    assert await becomes(replaced)
    assert role(replica) == "master"

    async def expired() -> bool:
        (found,) = await cache.get([ON[0]], "reader")
        return found != hit(at(5, ON[0]))

    assert await becomes(expired, 6.0)
    await write(cache, ON[0], 7)
    assert await cache.get(ON[:1], "reader") == [hit(at(7, ON[0]))]
    # The old primary comes back as a replica, and is not asked.
    failing.start_node(first)
    until(lambda: role(first) == "slave")
    assert await cache.get(ON[:1], "reader") == [hit(at(7, ON[0]))]
    await slots_without_a_node_are_named(failing, cache)
    await cache.close()


async def slots_without_a_node_are_named(cluster: Cluster, cache: RedisCache) -> None:
    last = cluster.primaries[2]
    last.stop()
    assert await complaint(cache) == f"Redis Cluster node at 127.0.0.1:{last.port} does not answer"
    for node in cluster.nodes:
        if node.is_running:
            node.run("CONFIG", "SET", "cluster-require-full-coverage", "yes")

    async def down() -> bool:
        return "is of a Redis Cluster that is down" in await complaint(cache)

    assert await becomes(down)
    assert await cache.get(ON, "reader") == [MISS] * 3


def test_a_url_that_names_no_cluster_is_told(own_redis: RedisServer) -> None:
    async def of(url: str) -> str:
        cache = RedisCache(url, timeout=PATIENCE)
        found = await complaint(cache)
        await cache.close()
        return found

    assert "is not Redis Cluster: REDIS_URL must begin with redis://" in asyncio.run(
        of(f"redis+cluster://127.0.0.1:{own_redis.port}")
    )
    own_redis.stop()
    address = f"127.0.0.1:{own_redis.port}"
    assert asyncio.run(of(f"redis+cluster://{address}")) == f"Redis Cluster at {address} does not answer"


def test_servers_share_a_cluster(redis_cluster: Cluster, cluster_url: str, database_url: str) -> None:
    chosen = settings(
        database_url=database_url,
        redis_url=cluster_url,
        cache_local_ttl_seconds=0.2,
        rate_shared_writes=True,
        rate_tenant_writes=1000.0,
    )
    keys = [f"team-a/service-{number}/prod/v1" for number in range(30)]
    with (
        serving(chosen) as one,
        serving(chosen) as other,
        Client(one.address) as first,
        Client(other.address) as second,
    ):
        for key in keys:
            first.create(key, OLD)
        assert {second.resolve(key).url for key in keys} == {OLD}
        for key in keys:
            first.update(key, url=NEW)
        assert eventually(lambda: {second.resolve(key).url for key in keys} == {NEW})
        assert {result.unwrap().url for result in second.batch_resolve(keys)} == {NEW}
        state = get_json(f"{other.http}/health/ready")[1]["dependencies"]["redis"]
        assert state["up"], state
    # Each node has some of it, in a third of the slots.
    assert all(node.run("DBSIZE") > 5 for node in redis_cluster.primaries)


def test_the_check_names_the_nodes(redis_cluster: Cluster, cluster_url: str, database_url: str) -> None:
    checked = run("pointsman-server", "check", DATABASE_URL=database_url, REDIS_URL=cluster_url, POINTSMAN_ROLES="api")
    named = ", ".join(f"127.0.0.1:{port}" for port in sorted(node.port for node in redis_cluster.primaries))
    assert f"up   redis: Redis Cluster, served by {named}" in checked.stdout
