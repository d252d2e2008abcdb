"""``ports.WatcherRegistry``: every implementation, and Redis that is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from itertools import count

import pytest
import redis

from pointsman_server.adapters.redis.watcher_registry import PART, RedisWatcherRegistry
from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import (
    OpenWatch,
    RegistryUnavailable,
    Report,
    WatcherRegistry,
    WatchName,
)
from tests.support.waiting import becomes
from tests.support.watcher_registry import MemoryWatcherRegistry

SINCE = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
LONG, SHORT = 60.0, 0.3
Make = Callable[..., WatcherRegistry]


def watch(number: int = 0, *, subject: str = "jwt:cache", tenant: str = "team-a", title: str = "checkout") -> OpenWatch:
    name = WatchName(f"watcher-{number:012d}", subject, tenant)
    return OpenWatch(name, title, f"ipv4:127.0.0.1:{number}", SINCE)


@pytest.fixture(params=["memory", "redis", "cluster"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    if request.param == "memory":
        yield lambda **options: MemoryWatcherRegistry(time.monotonic, **options)
        return
    url, made = request.getfixturevalue(f"{request.param}_url"), []

    def on_redis(**options: float) -> RedisWatcherRegistry:
        made.append(RedisWatcherRegistry(url, timeout=5, **options))
        return made[-1]

    yield on_redis
    for registry in made:
        await registry.close()


@pytest.fixture
def registry(make: Make) -> WatcherRegistry:
    return make(ttl=LONG, inquiry_ttl=LONG)


async def test_watches_of_all_servers_are_known(registry):
    one, two, three = watch(1), watch(2, title="ünï", subject="sub ject\n"), watch(3)
    assert await registry.publish("a", [one, two], []) == 2
    assert await registry.publish("b", [three, one], []) == 2

    found = {(entry.server, entry.watch, entry.applied) for entry in await registry.watches()}

    assert found == {("a", one, None), ("a", two, None), ("b", three, None), ("b", one, None)}


async def test_a_server_adds_and_removes_and_keeps_the_others(registry):
    await registry.publish("a", [watch(1), watch(2)], [])

    assert await registry.publish("a", [watch(3)], [watch(1).name, watch(9).name]) == 2
    assert await registry.publish("a", [], []) == 2

    assert {entry.watch for entry in await registry.watches()} == {watch(2), watch(3)}


async def test_a_server_that_withdraws_has_none(registry):
    await registry.publish("a", [watch(1)], [])
    await registry.publish("b", [watch(2)], [])
    await registry.report([Report(watch(1).name, Clock("e", 5))])

    await registry.withdraw("a")

    assert [entry.watch for entry in await registry.watches()] == [watch(2)]
    assert await registry.publish("a", [watch(1)], []) == 1
    assert await registry.applied("a", [watch(1).name]) == [None]


async def test_watches_of_a_server_that_does_not_renew_them_vanish(make):
    registry = make(ttl=SHORT)
    await registry.publish("a", [watch(1)], [])
    await registry.report([Report(watch(1).name, Clock("e", 5))])

    async def gone() -> bool:
        return not await registry.watches()

    assert await becomes(gone)
    assert await registry.publish("a", [watch(1)], []) == 1
    assert await registry.applied("a", [watch(1).name]) == [None]


async def test_watches_that_are_renewed_stay_with_their_reports(make):
    registry = make(ttl=1.0)
    await registry.publish("a", [watch(1)], [])
    await registry.report([Report(watch(1).name, Clock("e", 5))])
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert await registry.publish("a", [], []) == 1
        await asyncio.sleep(0.1)

    assert [entry.applied for entry in await registry.watches()] == [Clock("e", 5)]


async def test_a_report_is_kept_where_the_watch_is_published_and_nowhere_else(registry):
    await registry.publish("a", [watch(1)], [])
    await registry.publish("b", [watch(1), watch(2)], [])
    reported = Clock("e", 2**53 + 1)

    assert await registry.report([Report(watch(1).name, reported), Report(watch(3).name, reported)]) == [True, False]

    assert await registry.applied("a", [watch(1).name, watch(3).name]) == [reported, None]
    assert await registry.applied("b", [watch(2).name, watch(1).name]) == [None, reported]
    await registry.publish("a", [watch(3)], [])
    assert await registry.applied("a", [watch(3).name]) == [None]


@pytest.mark.parametrize(
    "other",
    [
        watch(1).name._replace(subject="jwt:mallory"),
        watch(1).name._replace(tenant=""),
        watch(1).name._replace(service="payments"),
        watch(1).name._replace(env="prod"),
        watch(1).name._replace(id="watcher-another-one"),
    ],
)
async def test_a_report_for_another_subject_or_filter_is_for_another_watch(registry, other):
    await registry.publish("a", [watch(1)], [])

    assert await registry.report([Report(other, Clock("e", 5))]) == [False]

    assert await registry.applied("a", [watch(1).name]) == [None]


async def test_the_highest_revision_of_an_epoch_is_kept(registry):
    await registry.publish("a", [watch(1)], [])
    for revision, kept in [(9, 9), (10, 10), (9, 10), (2**53 + 1, 2**53 + 1), (2**53, 2**53 + 1)]:
        await registry.report([Report(watch(1).name, Clock("e", revision))])
        assert await registry.applied("a", [watch(1).name]) == [Clock("e", kept)]


async def test_a_report_of_another_epoch_replaces_a_higher_one(registry):
    await registry.publish("a", [watch(1)], [])
    await registry.report([Report(watch(1).name, Clock("old", 900))])
    await registry.report([Report(watch(1).name, Clock("new one", 3))])

    assert await registry.applied("a", [watch(1).name]) == [Clock("new one", 3)]


async def test_a_watch_that_is_added_again_keeps_its_report_and_one_that_was_removed_does_not(registry):
    await registry.publish("a", [watch(1), watch(2)], [])
    await registry.report([Report(watch(number).name, Clock("e", 5)) for number in (1, 2)])

    await registry.publish("a", [watch(1, title="again")], [watch(2).name])
    await registry.publish("a", [watch(2)], [])

    assert await registry.applied("a", [watch(1).name, watch(2).name]) == [Clock("e", 5), None]


async def test_many(registry):
    many = [watch(number) for number in range(2 * PART + 1)]
    assert await registry.publish("a", many, []) == len(many)
    reports = [Report(one.name, Clock("e", number)) for number, one in enumerate(many)]
    assert all(await registry.report(reports))

    assert {entry.watch: entry.applied for entry in await registry.watches()} == {
        one: Clock("e", number) for number, one in enumerate(many)
    }
    assert await registry.applied("a", [one.name for one in many]) == [report.applied for report in reports]
    assert await registry.publish("a", [], [one.name for one in many[1:]]) == 1


async def test_nothing_asked_and_nothing_reported(registry):
    assert await registry.inquiry() is None
    assert await registry.watches() == []
    assert await registry.report([]) == []
    assert await registry.applied("a", []) == []
    assert await registry.publish("a", [], []) == 0


async def test_the_highest_inquiry_of_an_epoch_is_kept_and_another_epoch_replaces_it(registry):
    for given, kept in [
        (Clock("old", 9), Clock("old", 9)),
        (Clock("old", 10), Clock("old", 10)),
        (Clock("old", 9), Clock("old", 10)),
        (Clock("new", 3), Clock("new", 3)),
    ]:
        await registry.inquire(given)
        assert await registry.inquiry() == kept


async def test_an_inquiry_is_forgotten_unless_it_is_made_again(make):
    registry = make(inquiry_ttl=1.0)
    await registry.inquire(Clock("e", 5))
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        await registry.inquire(Clock("e", 4))
        assert await registry.inquiry() == Clock("e", 5)
        await asyncio.sleep(0.1)

    async def forgotten() -> bool:
        return await registry.inquiry() is None

    assert await becomes(forgotten)


async def test_redis_that_is_away(unused_tcp_port: int):
    failures = count()
    registry = RedisWatcherRegistry(f"redis://127.0.0.1:{unused_tcp_port}/0", failed=lambda: next(failures) and None)
    for call in (
        registry.publish("a", [watch()], []),
        registry.withdraw("a"),
        registry.report([Report(watch().name, Clock("e", 1))]),
        registry.applied("a", [watch().name]),
        registry.watches(),
        registry.inquire(Clock("e", 1)),
        registry.inquiry(),
    ):
        with pytest.raises(RegistryUnavailable):
            await call
    # The breaker opens after five.
    assert next(failures) == 5
    await registry.close()


async def test_what_is_not_ours_in_redis_is_passed_over(redis_url: str):
    registry = RedisWatcherRegistry(redis_url, timeout=5)
    await registry.publish("a", [watch(1)], [])
    with redis.Redis.from_url(redis_url) as client:
        client.hset("pointsman:watches:a", "x", "[1, 2]")
        client.hset("pointsman:watches:a:applied", "y", "no revision")
        client.set("pointsman:watches-inquiry", "no revision")

    assert [entry.watch for entry in await registry.watches()] == [watch(1)]
    assert await registry.inquiry() is None
    await registry.close()
