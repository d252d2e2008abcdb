"""A primary behind Sentinels: servers follow a failover without a restart, and refuse what the old primary became."""

import asyncio
from collections.abc import Iterator

import pytest

from pointsman import Client
from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.adapters.redis.deployment import Deployment
from pointsman_server.adapters.redis.usage_log import RedisUsageLog
from pointsman_server.ports.cache import CacheUnavailable
from pointsman_server.ports.usage_log import Reads
from tests.support.processes import get_json, run
from tests.support.redis_cluster import Watched, role, running, until
from tests.support.route_cache import K1, PATIENCE, at, complaint, hit, settle
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import becomes, eventually

CANARY = "canary-0123456789"
KEY = "team-a/payments/prod/v1"
OLD, NEW, NEWEST = "https://old.internal", "https://new.internal", "https://newest.internal"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    watched = Watched(tmp_path_factory.mktemp("sentinel"))
    with running(watched):
        yield watched


@pytest.fixture
def watched(site: Watched) -> Watched:
    site.primary.run("FLUSHALL")
    return site


async def test_what_is_wrong_is_told(watched: Watched, unused_tcp_port: int) -> None:
    assert await complaint(watched.url) == ""
    nobody = f"127.0.0.1:{unused_tcp_port}"
    assert await complaint(f"redis+sentinel://{nobody}/x") == f"Sentinel at {nobody} does not answer"
    one = f"127.0.0.1:{watched.sentinels[0].port}"
    assert (
        await complaint(f"redis+sentinel://{nobody},{one}/x") == f"Sentinel at {nobody},{one} knows no primary named x"
    )
    # One that answers is enough.
    assert await complaint(f"redis+sentinel://{nobody},{one}/{watched.NAME}") == ""


async def test_a_switch_is_followed_while_the_old_primary_still_answers(watched: Watched) -> None:
    cache = RedisCache(watched.url, timeout=PATIENCE)
    log = RedisUsageLog(watched.url, timeout=PATIENCE)
    await settle(cache, at(5))
    old, new = watched.primary, watched.replica
    past = RedisCache(old.url, timeout=PATIENCE)
    await asyncio.to_thread(until, lambda: new.run("DBSIZE") == old.run("DBSIZE"))
    await asyncio.to_thread(watched.switch)

    async def followed() -> bool:
        await cache.ping()
        return str(new.port) in cache.serving

    assert await becomes(followed)
    assert cache.serving == f"Redis at 127.0.0.1:{new.port}, the primary {watched.NAME} of Sentinel"
    assert await cache.get([K1], "reader") == [hit(at(5))]
    await settle(cache, at(6))
    assert await cache.get([K1], "reader") == [hit(at(6))]

    async def counted() -> bool:
        return await log.add([Reads(K1, "a", 1)]) == 0

    assert await becomes(counted)
    # Who names the old one by itself is told, and gets nothing from it.
    with pytest.raises(CacheUnavailable, match="is a read-only replica: REDIS_URL must name the primary"):
        await past.ping()
    (found,) = await past.get([K1], "reader")
    assert found.snapshot is None
    for each in (cache, log, past):
        await each.close()


def detail(server: RunningServer) -> str:
    state = get_json(f"{server.http}/health/ready")[1]["dependencies"]["redis"]
    return str(state["detail"]) if state["up"] else f"down: {state['detail']}"


def test_servers_go_on_when_the_primary_is_lost(watched: Watched, database_url: str) -> None:
    chosen = settings(database_url=database_url, redis_url=watched.url, cache_local_ttl_seconds=0.2)
    lost, other = watched.primary, watched.replica
    with serving(chosen) as server, Client(server.address) as client:
        client.create(KEY, OLD)
        assert eventually(lambda: str(lost.port) in detail(server)), detail(server)
        lost.stop()
        assert client.update(KEY, url=NEW).url == NEW
        assert client.resolve(KEY).url == NEW
        assert eventually(lambda: detail(server).startswith("down:") or str(other.port) in detail(server))
        assert eventually(lambda: str(other.port) in detail(server)), detail(server)
        assert role(other) == "master"
        assert client.update(KEY, url=NEWEST).url == NEWEST
        assert client.resolve(KEY).url == NEWEST
        # What the new primary holds is the newest as well.
        with serving(chosen) as late, Client(late.address) as reader:
            assert reader.resolve(KEY).url == NEWEST
        assert eventually(lambda: other.client.keys("pointsman:*team-a*"))
    watched.return_as_replica(lost)
    until(lambda: role(lost) == "slave")


def test_the_check_names_the_primary_and_no_password(watched: Watched, database_url: str) -> None:
    for sentinel in watched.sentinels:
        sentinel.run("ACL", "SETUSER", "check", "reset", "on", f">{CANARY}", "-@all", "+sentinel|master")
    environ = {"POINTSMAN_REDIS_SENTINEL_USER": "check", "POINTSMAN_REDIS_SENTINEL_PASSWORD": CANARY}
    environ |= {"DATABASE_URL": database_url, "REDIS_URL": watched.url, "POINTSMAN_ROLES": "api"}
    checked = run("pointsman-server", "check", **environ)
    named = f"Redis at 127.0.0.1:{watched.primary.port}, the primary {watched.NAME} of Sentinel"
    assert f"up   redis: {named}" in checked.stdout
    assert CANARY not in checked.stdout + checked.stderr


async def test_sentinels_may_have_users(watched: Watched) -> None:
    for sentinel in watched.sentinels:
        sentinel.run("ACL", "SETUSER", "app", "reset", "on", ">secret", "-@all", "+sentinel|master")
        sentinel.run("ACL", "SETUSER", "default", "-sentinel")
    try:
        assert "does not let our user ask for the primary" in await complaint(watched.url)
        named = Deployment.parse(watched.url).with_sentinel_credentials("app", "secret")
        assert await complaint(named) == ""
        wrong = await complaint(Deployment.parse(watched.url).with_sentinel_credentials("app", "guess"))
        assert "refuses the user or the password" in wrong
        assert "guess" not in wrong
    finally:
        for sentinel in watched.sentinels:
            sentinel.run("ACL", "SETUSER", "default", "+sentinel")
