"""Near-caches on real servers: they start, follow, survive what servers and networks do, and end."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from pointsman import (
    AsyncClient,
    CachedResolution,
    Client,
    NearCache,
    Resolution,
    RouteInactive,
    RouteNotFound,
)
from pointsman.change_sets import SetTraffic, Update
from pointsman.errors import AmbiguousVersion, FailedPrecondition, NoActiveVersion, NotFound
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
OTHER = "team-a/payments/prod/v2"
ONE, TWO = "https://one.internal", "https://two.internal"
READY_SECONDS = 20.0


@pytest.fixture(params=["grpcio", "envoy"])
def server(request: pytest.FixtureRequest, database_url: str, redis_url: str) -> Iterator[RunningServer]:
    with serving(settings(transport=request.param, database_url=database_url, redis_url=redis_url)) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def test_it_has_the_routes_and_follows_their_changes(client: Client, server: RunningServer) -> None:
    client.create(KEY, ONE)
    client.create(OTHER, TWO, active=False, labels={"tier": "1"})
    with Client(server.address) as writer, client.cached(tenants=["team-a"]) as cache:
        assert cache.wait_ready(READY_SECONDS)
        found = cache.resolve(KEY)
        assert isinstance(found, CachedResolution)
        assert (found.url, found.live, found.route.key) == (ONE, True, client.get(KEY).key)
        assert found.age < timedelta(seconds=10)
        with pytest.raises(RouteInactive):
            cache.resolve(OTHER)
        with pytest.raises(RouteNotFound) as absent:
            cache.resolve("team-a/payments/prod/v3")
        assert int(absent.value.metadata["revision"]) >= 2

        writer.activate(OTHER, exclusive=True)
        assert eventually(lambda: url_of(cache, OTHER) == TWO)
        with pytest.raises(RouteInactive):
            cache.resolve(KEY)
        assert (found.live, found.url) == (False, ONE)
        assert cache.resolve(OTHER).route == client.get(OTHER)
        writer.delete(OTHER)
        assert eventually(lambda: url_of(cache, OTHER) is None)


def test_own_writes_are_readable_at_once(client: Client) -> None:
    client.create(KEY, ONE)
    with client.cached(tenants=["team-a"]) as cache:
        assert cache.wait_ready(READY_SECONDS)
        for number in range(50):
            url = f"https://{number}.internal"
            client.update(KEY, url=url)
            assert cache.resolve(KEY).url == url
        client.create(OTHER, TWO, active=False)
        client.activate(OTHER, exclusive=True)
        assert url_of(cache, KEY) is None
        assert cache.resolve(OTHER).url == TWO
        client.delete(OTHER)
        assert url_of(cache, OTHER) is None
        assert eventually(lambda: not cache._table._behind)


def test_it_asks_the_server_while_it_loads_and_for_other_tenants(client: Client) -> None:
    client.create(KEY, ONE)
    client.create("team-b/payments/prod/v1", TWO)
    with client.cached(tenants=["team-a"]) as cache:
        assert cache.resolve(KEY).url == ONE
        assert isinstance(cache.resolve("team-b/payments/prod/v1"), Resolution)


def test_no_thread_is_left(client: Client) -> None:
    client.create(KEY, ONE)
    before = set(threading.enumerate())
    cache = client.cached(tenants=["team-a", "team-b"])
    assert cache.wait_ready(READY_SECONDS)
    cache.close()
    cache.close()
    assert eventually(lambda: {thread for thread in threading.enumerate() if thread not in before} == set())
    with pytest.raises(RuntimeError, match="closed"):
        cache.resolve(KEY)


async def test_the_asyncio_client_has_one_too(server: RunningServer) -> None:
    async with AsyncClient(server.address) as client:
        await client.create(KEY, ONE)
        async with client.cached() as cache:
            assert (await cache.resolve(KEY)).url == ONE
            assert await cache.wait_ready(READY_SECONDS)
            found = cache.peek(KEY)
            assert found is not None
            assert found.url == ONE
            await client.update(KEY, url=TWO)
            assert (await cache.resolve(KEY)).url == TWO


def url_of(cache: NearCache, key: str) -> str | None:
    try:
        return cache.resolve(key).url
    except (RouteNotFound, RouteInactive):
        return None


FAMILY = "team-a/payments/prod"
VERSIONS = ("v1", "v2", "v3")
STICKY_KEYS = [f"user-{number}" for number in range(40)]


def chosen(select: Callable[[str, str], Any], sticky_key: str) -> tuple[Any, ...]:
    """Return what is selected, or why nothing is."""
    try:
        found = select(FAMILY, sticky_key)
    except (NoActiveVersion, AmbiguousVersion) as error:
        return type(error), error.versions
    return found.choice, found.url, found.revision, found.traffic_revision


@pytest.mark.parametrize("seed", [1])
def test_it_selects_as_the_server_does(client: Client, seed: int) -> None:
    """Random routes, traffic and changes: as of the same revision both choose the same, and give the same errors."""
    random = Random(seed)
    with client.cached(tenants=["team-a"]) as cache:
        assert cache.wait_ready(READY_SECONDS)
        for number in range(20):
            for _ in range(random.randrange(1, 4)):
                change_at_random(client, random, number)
            there = [chosen(client.select, sticky_key) for sticky_key in STICKY_KEYS]
            # Own writes are readable at once, wherever the answer is from.
            assert [chosen(cache.select, sticky_key) for sticky_key in STICKY_KEYS] == there
            assert eventually(lambda: not cache._table._behind)
            calls = cache.statistics().calls
            assert [chosen(cache.select, sticky_key) for sticky_key in STICKY_KEYS] == there
            assert cache.statistics().calls == calls


def change_at_random(client: Client, random: Random, number: int) -> None:
    """Change a route or the traffic; what the rules forbid is not done."""
    key = f"{FAMILY}/{random.choice(VERSIONS)}"
    cut = random.choice([0, 1, 3_000, 10_000])
    first, second = random.sample(VERSIONS, 2)
    change = random.choice(
        [
            lambda: client.update(key, url=f"https://{number}.internal", allow_missing=True),
            lambda: client.activate(key),
            lambda: client.activate(key, exclusive=True),
            lambda: client.deactivate(key),
            lambda: client.delete(key),
            lambda: client.set_traffic(FAMILY, {first: cut, second: 10_000 - cut}),
            lambda: client.set_traffic(FAMILY, {first: 10_000}, fallbacks=[second]),
            lambda: client.delete_traffic(FAMILY),
        ]
    )
    with suppress(NotFound, FailedPrecondition):
        change()


def test_half_a_change_set_is_never_selected(client: Client, server: RunningServer) -> None:
    """A cut-over changes both URLs and the traffic together; who selects meanwhile sees both or neither."""
    for version in ("v1", "v2"):
        client.create(f"{FAMILY}/{version}", f"https://{version}-0.internal")
    client.set_traffic(FAMILY, {"v1": 10_000})
    interval = sys.getswitchinterval()
    stopped, seen, wrong = threading.Event(), set[int](), list[Any]()

    def read(cache: NearCache) -> None:
        while not stopped.is_set():
            found = cache.select(FAMILY, "user-1")
            version, number = found.url.removeprefix("https://").removesuffix(".internal").split("-")
            expected = "v1" if int(number) % 2 == 0 else "v2"
            if version != expected or found.version != version:
                wrong.append((found.url, found.choice, found.traffic_revision))
            seen.add(int(number))

    def others(number: int) -> Iterator[Update]:
        for version in range(50):
            yield Update(f"team-a/other/prod/v{version}", f"https://{number}.internal", allow_missing=True)

    with Client(server.address) as writer, client.cached(tenants=["team-a"]) as cache:
        assert cache.wait_ready(READY_SECONDS)
        reader = threading.Thread(target=read, args=(cache,))
        sys.setswitchinterval(1e-5)  # threads interrupt each other often
        reader.start()
        try:
            for number in range(1, 31):
                weights = {"v1": 0, "v2": 10_000} if number % 2 else {"v1": 10_000, "v2": 0}
                writer.commit(
                    [
                        Update(f"{FAMILY}/v1", f"https://v1-{number}.internal"),
                        *others(number),
                        SetTraffic(FAMILY, weights),
                        Update(f"{FAMILY}/v2", f"https://v2-{number}.internal"),
                    ]
                )
            assert eventually(lambda: 30 in seen)
        finally:
            stopped.set()
            reader.join()
            sys.setswitchinterval(interval)
    assert not wrong
    assert len(seen) > 3
