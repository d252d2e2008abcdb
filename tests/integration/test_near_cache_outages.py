"""Near-caches when servers, networks and databases fail: they say how old they are, and heal by themselves."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pointsman import Client, DeadlineExceeded, NearCache, NearCacheStale, RouteInactive, RouteNotFound, Unavailable
from pointsman.near_cache.watch import protocol
from pointsman_server.cli.database.restore import begin_epoch
from tests.support.engines import back_up, drop_database, restore
from tests.support.servers import RunningServer, serving, settings
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

KEY, GONE = "team-a/payments/prod/v1", "team-a/payments/prod/v0"
ONE, TWO, THREE = "https://one.internal", "https://two.internal", "https://three.internal"
READY_SECONDS = 20.0
HEALING_SECONDS = 30.0


@pytest.fixture
def server(database_url: str, redis_url: str) -> Iterator[RunningServer]:
    with serving(settings(database_url=database_url, redis_url=redis_url)) as running:
        yield running


@pytest.fixture
def writer(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as client:
        client.create(KEY, ONE)
        yield client


def shows(cache: NearCache, url: str | None) -> bool:
    try:
        return cache.resolve(KEY).url == url
    except (RouteNotFound, RouteInactive):
        return url is None
    except NearCacheStale:
        return False


def test_a_disk_serves_at_once_without_an_answer_of_a_server(
    server: RunningServer, writer: Client, tmp_path: Path
) -> None:
    path = tmp_path / "routes.snapshot"
    with writer.cached(tenants=["team-a"], path=path) as cache:
        assert cache.wait_ready(READY_SECONDS)
        position = (cache.revision, cache.resolve(KEY).epoch)
    assert path.exists()
    with (
        TcpProxy(server.address) as silent,
        Client(silent.address, timeout=10 * READY_SECONDS) as client,
    ):
        silent.swallow = True
        cache = client.cached(tenants=["team-a"], path=path)
        begun = time.monotonic()
        found = cache.resolve(KEY)
        assert time.monotonic() - begun < READY_SECONDS
        assert (found.url, found.live, found.route.labels) == (ONE, False, {})
        assert found.age.total_seconds() > 0
        assert (cache.revision, found.epoch) == position
        assert not cache.live
        assert cache.statistics().calls == 0


def test_a_disk_goes_on_from_where_it_was(server: RunningServer, writer: Client, tmp_path: Path) -> None:
    path = tmp_path / "routes.snapshot"
    with writer.cached(tenants=["team-a"], path=path) as cache:
        assert cache.wait_ready(READY_SECONDS)
    writer.update(KEY, url=TWO)
    with Client(server.address) as client, client.cached(tenants=["team-a"], path=path) as cache:
        assert cache.wait_ready(READY_SECONDS)
        assert shows(cache, TWO)
        assert cache.statistics().snapshots == 0
        assert eventually(lambda: cache.statistics().disk_writes)
        with client.cached(tenants=["team-a"], path=path) as second:
            assert second.wait_ready(READY_SECONDS)
            assert "another near-cache writes" in second.disk_problem
            assert cache.disk_problem == ""


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_a_server_that_restarts(database_url: str, redis_url: str, transport: str) -> None:
    chosen = settings(database_url=database_url, redis_url=redis_url, transport=transport)
    with serving(chosen) as first:
        port = first.address.rpartition(":")[2]
        with Client(first.address) as writer:
            writer.create(KEY, ONE)
        client = Client(first.address)
        cache = client.cached()
        assert cache.wait_ready(READY_SECONDS)
    assert eventually(lambda: not cache.live)
    assert shows(cache, ONE)
    assert not cache.resolve(KEY).live
    again = chosen.model_copy(update={"listen": f"127.0.0.1:{port}"})
    with serving(again) as second:
        with Client(second.address) as writer:
            writer.update(KEY, url=TWO)
        assert eventually(lambda: cache.live and shows(cache, TWO), HEALING_SECONDS)
        assert cache.statistics().snapshots == 1
        client.close()


def test_a_connection_that_is_half_open(server: RunningServer, writer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets are dropped without a reset. The pings of the transport are too slow here: the silence tells."""
    monkeypatch.setattr(protocol, "SILENCE_SECONDS", 6.0)
    quiet = (("grpc.keepalive_time_ms", 3_600_000),)
    with (
        TcpProxy(server.address) as proxy,
        Client(proxy.address, options=quiet) as client,
        client.cached(max_stale=5.0, on_stale="raise") as cache,
    ):
        assert cache.wait_ready(READY_SECONDS)
        assert shows(cache, ONE)
        proxy.swallow = True
        writer.update(KEY, url=TWO)
        assert eventually(lambda: not cache.healthy)
        with pytest.raises(NearCacheStale):
            cache.resolve(KEY)
        proxy.swallow = False
        assert eventually(lambda: cache.live and shows(cache, TWO), HEALING_SECONDS)
        assert proxy.connections > 1


@pytest.mark.parametrize("on_stale", ["call", "serve", "raise"])
def test_an_outage_longer_than_max_stale(server: RunningServer, writer: Client, on_stale: str) -> None:
    with (
        TcpProxy(server.address) as proxy,
        Client(proxy.address, timeout=0.5) as client,
        client.cached(max_stale=1.0, on_stale=on_stale) as cache,  # type: ignore[arg-type]
    ):
        assert cache.wait_ready(READY_SECONDS)
        proxy.refuse = True
        proxy.cut()
        assert eventually(lambda: not cache.healthy)
        writer.update(KEY, url=TWO)
        if on_stale == "serve":
            found = cache.resolve(KEY)
            assert (found.url, found.live) == (ONE, False)
            assert found.age.total_seconds() > 1.0
        else:
            with pytest.raises(NearCacheStale if on_stale == "raise" else (Unavailable, DeadlineExceeded)):
                cache.resolve(KEY)
        proxy.refuse = False
        assert eventually(lambda: cache.live and shows(cache, TWO), HEALING_SECONDS)
        assert cache.last_error is None


def test_an_outage_longer_than_the_history_is_kept(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url=database_url, redis_url=redis_url, watch_recent_changes=1, watch_history_changes=2)
    with serving(chosen) as server, Client(server.address) as writer, TcpProxy(server.address) as proxy:
        writer.create(KEY, ONE)
        writer.create(GONE, ONE)
        with Client(proxy.address) as client, client.cached(tenants=["team-a"], on_stale="serve") as cache:
            assert cache.wait_ready(READY_SECONDS)
            seen: list[object] = []
            cache.on_change(seen.append)
            proxy.refuse = True
            proxy.cut()
            assert eventually(lambda: not cache.live)
            writer.delete(GONE)
            for url in (THREE, ONE, THREE, TWO):
                writer.update(KEY, url=url)
            proxy.refuse = False
            assert eventually(lambda: cache.live and shows(cache, TWO), HEALING_SECONDS)
            assert cache.keys() == [KEY]
            assert cache.statistics().snapshots == 2
            assert [change.keys for change in seen] == [None]  # type: ignore[attr-defined]


def test_a_database_that_is_restored(database_url: str, redis_url: str) -> None:
    with serving(settings(database_url=database_url, redis_url=redis_url)) as server, Client(server.address) as client:
        client.create(KEY, ONE)
        backup = back_up(database_url)
        try:
            with client.cached(tenants=["team-a"]) as cache:
                assert eventually(lambda: updated(client, TWO))
                assert cache.wait_ready(READY_SECONDS)
                assert eventually(lambda: shows(cache, TWO))
                epoch = cache.resolve(KEY).epoch
                held = cache.resolve(KEY)
                restore(database_url, backup)
                begin_epoch(database_url)
                assert eventually(lambda: shows(cache, ONE) and cache.live, HEALING_SECONDS)
                assert cache.resolve(KEY).epoch != epoch
                assert (held.epoch, held.live) == (epoch, False)
                assert eventually(lambda: updated(client, THREE))
                assert shows(cache, THREE)
        finally:
            drop_database(backup)


def updated(client: Client, url: str) -> bool:
    try:
        return client.update(KEY, url=url).url == url
    except Unavailable:
        return False  # a connection from before the backup
