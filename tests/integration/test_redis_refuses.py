"""A Redis that answers but does not do all of its work: what callers get, and what the health says."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pointsman import Client
from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.adapters.redis.quota import RedisQuota
from pointsman_server.adapters.redis.usage_log import RedisUsageLog
from pointsman_server.adapters.redis.watcher_registry import RedisWatcherRegistry
from pointsman_server.domain.routes import Snapshot
from pointsman_server.ports.quota import Taking
from pointsman_server.ports.store import Clock
from pointsman_server.ports.usage_log import Reads
from pointsman_server.ports.watcher_registry import OpenWatch, Report, WatchName
from tests.support.changes import make_change
from tests.support.processes import get_json
from tests.support.redis_server import RedisServer, full, read_only_replica
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
OTHER = "team-a/payments/prod/v2"
OLD, NEW = "https://old.internal", "https://new.internal"
OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
USER = "app"
PASSWORD = "secret"


class Scene:
    """Servers on one database and one Redis."""

    def __init__(self, database_url: str, stack: ExitStack) -> None:
        self._database_url = database_url
        self._stack = stack

    def start(self, redis_url: str) -> RunningServer:
        chosen = settings(database_url=self._database_url, redis_url=redis_url, cache_local_ttl_seconds=0.2)
        return self._stack.enter_context(serving(chosen))


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(database_url, stack)


def detail(server: RunningServer) -> str:
    _, body = get_json(f"{server.http}/health/ready")
    state = body["dependencies"]["redis"]
    return "up" if state["up"] else str(state["detail"])


def without_scripts(server: RedisServer) -> None:
    server.run("ACL", "SETUSER", USER, "-@scripting")


def without_writes(server: RedisServer) -> None:
    server.run("ACL", "SETUSER", USER, "-hset")


def without_our_keys(server: RedisServer) -> None:
    server.run("ACL", "SETUSER", USER, "resetkeys", "~other:*")


FAULTS = [
    (read_only_replica, "is a read-only replica: REDIS_URL must name the primary"),
    (full, "is full and evicts nothing"),
    (without_scripts, "does not let the user of REDIS_URL run scripts"),
    (without_writes, "does not let the user of REDIS_URL run a command that the cache needs"),
    (without_our_keys, "does not let the user of REDIS_URL use the keys"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_answers_stay_right_and_the_health_says_what_is_wrong(
    own_redis: RedisServer, scene: Scene, fault, words: str
) -> None:
    own_redis.run("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "+@all")
    url = own_redis.url_of(USER, PASSWORD)
    first = scene.start(url)
    with Client(first.address) as client:
        client.create(KEY, OLD)
        assert client.resolve(KEY).url == OLD
        assert detail(first) == "up"
        fault(own_redis)
        assert client.update(KEY, url=NEW).url == NEW
        assert client.create(OTHER, NEW).url == NEW
        assert client.resolve(KEY).url == client.resolve(OTHER).url == NEW
    second = scene.start(url)
    with Client(second.address) as client:
        assert client.resolve(KEY).url == client.resolve(OTHER).url == NEW
    for server in (first, second):
        assert eventually(lambda server=server: words in detail(server)), detail(server)
        assert f"Redis at 127.0.0.1:{own_redis.port} " in detail(server)
        assert PASSWORD not in detail(server)


def snapshot(as_of: int) -> Snapshot:
    change = make_change(as_of)
    return Snapshot(change.key, change.after, as_of)


async def held(cache: RedisCache) -> Snapshot | None:
    (found,) = await cache.get([snapshot(1).key], "reader")
    return found.snapshot


async def test_the_documented_rights_are_enough(own_redis: RedisServer) -> None:
    line = next(line for line in OPERATING.read_text().splitlines() if "+evalsha" in line)
    own_redis.run("ACL", "SETUSER", USER, "on", f">{PASSWORD}", *line.strip().strip("`").split())
    url, failures = own_redis.url_of(USER, PASSWORD), []
    cache = RedisCache(url, timeout=5.0, failed=lambda: failures.append("cache"))
    quota = RedisQuota(url, timeout=5.0, failed=lambda: failures.append("quota"))
    old, new = snapshot(1), snapshot(2)
    await cache.ping()
    assert await held(cache) is None
    await cache.fill([old], "reader")
    await cache.mark([new.key], "writer")
    await cache.settle([new], "writer")
    await cache.consume([old])
    assert await held(cache) == new
    await cache.mark_held([new.key], "writer")
    await cache.drop_older([new.key], [2], Clock("no-epoch", 2), "writer")
    await cache.invalidate([old.key], [1], "no-epoch")
    await cache.peek(new.key)
    await cache.publish_clock(Clock("no-epoch", 3))
    await quota.take([Taking("reads", "ann", 1000, 1_000_000)])
    assert await held(cache) == new
    registry = RedisWatcherRegistry(url, timeout=5.0, failed=lambda: failures.append("registry"))
    name = WatchName("watcher-0123456789", "ann")
    await registry.publish("a", [OpenWatch(name, "", "", datetime.now(UTC))], [])
    await registry.report([Report(name, Clock("e", 1))])
    await registry.inquire(Clock("e", 1))
    await registry.inquire(Clock("e", 1))
    await registry.inquiry()
    await registry.applied("a", [name])
    assert [watch.applied for watch in await registry.watches()] == [Clock("e", 1)]
    await registry.publish("a", [], [name])
    await registry.withdraw("a")
    usage = RedisUsageLog(url, timeout=5.0, most_keys=1, most_subjects=1, failed=lambda: failures.append("usage"))
    other = old.key._replace(version="another")
    assert [await usage.add([Reads(key, who, 1)]) for key in (old.key, other) for who in "ab"] == [0, 1, 1, 1]
    await usage.keep()
    never_read = old.key._replace(version="never-read")
    await usage.readers(old.key, 1)
    await usage.readers_of([old.key, never_read], 1)
    assert failures == []
    for on_redis in (cache, quota, registry, usage):
        await on_redis.close()
