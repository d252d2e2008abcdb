"""app.gauges: what the gauges show after a health check, with and without each role."""

from types import SimpleNamespace
from typing import Any

import pytest

from pointsman_server.app.gauges import set_gauges
from pointsman_server.app.roles import RunningRoles
from pointsman_server.ops.health_monitor import DependencyState
from pointsman_server.ports.broker import RelayState
from pointsman_server.telemetry.metrics import Metrics


class FakeConsumer:
    async def lag(self) -> int:
        return 12


class Scene:
    """A server whose store is at revision 40 and whose relay has 5 changes to publish."""

    def __init__(self, **running: Any) -> None:
        self.metrics = Metrics()
        self.running = RunningRoles(**running)
        states = {
            "postgres": DependencyState("postgres", required=True, up=True),
            "redis": DependencyState("redis", required=False, up=False),
        }
        self.monitor: Any = SimpleNamespace(states=states)
        checks = SimpleNamespace(revision=40, relay_state=RelayState(35, 40, 2.5), clock_skew=1.5)
        numbers = {"pool_size": 8, "pool_available": 3, "requests_waiting": 2, "pool_max": 10}
        self.cache = SimpleNamespace(breaker_is_open=False)
        self.epochs = SimpleNamespace(lost="")
        self.certificates: Any = None
        self.dependencies: Any = SimpleNamespace(
            checks=checks,
            database=SimpleNamespace(stats=lambda: numbers),
            cache=self.cache,
            epochs=self.epochs,
            replicated=None,
        )

    async def set(self) -> None:
        await set_gauges(self.metrics, self.monitor, self.dependencies, self.running, self.certificates)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"pointsman_{name}", labels)


def a_feed(revision: int, *, connected: bool) -> Any:
    return SimpleNamespace(revision=revision, connected=connected)


async def test_the_dependencies_and_the_pool_show() -> None:
    scene = Scene()
    await scene.set()
    assert scene.value("dependency_up", dependency="postgres") == 1
    assert scene.value("dependency_up", dependency="redis") == 0
    assert scene.value("store_pool_connections", state="idle") == 3
    assert scene.value("store_pool_connections", state="used") == 5
    assert scene.value("store_pool_waiting") == 2
    assert scene.value("store_pool_max_connections") == 10
    assert scene.value("clock_skew_seconds") == 1.5


async def test_each_replica_shows_what_it_lacks() -> None:
    scene = Scene()
    replicas = [SimpleNamespace(address="a:5432", lag=0), SimpleNamespace(address="b:5432", lag=12)]
    scene.dependencies.replicated = SimpleNamespace(replicas=replicas)
    await scene.set()
    assert scene.value("store_replica_lag_revisions", replica="a:5432") == 0
    assert scene.value("store_replica_lag_revisions", replica="b:5432") == 12


async def test_an_open_breaker_shows_until_it_closes() -> None:
    scene = Scene()
    scene.cache.breaker_is_open = True
    await scene.set()
    assert scene.value("cache_breaker_open") == 1
    scene.cache.breaker_is_open = False
    await scene.set()
    assert scene.value("cache_breaker_open") == 0


async def test_a_store_that_is_behind_what_is_known_shows() -> None:
    scene = Scene()
    await scene.set()
    assert scene.value("store_restored") == 0
    scene.epochs.lost = "it is at revision 3, and was at 5"
    await scene.set()
    assert scene.value("store_restored") == 1


async def test_certificates_show_when_they_end() -> None:
    scene = Scene()
    await scene.set()
    assert scene.value("certificate_expiry_timestamp_seconds", certificate="server") is None
    scene.certificates = SimpleNamespace(times=lambda: {"server": 1700000000.0})
    await scene.set()
    assert scene.value("certificate_expiry_timestamp_seconds", certificate="server") == 1700000000.0


async def test_a_server_without_roles_leaves_their_gauges_alone() -> None:
    scene = Scene()
    await scene.set()
    names = ["feed_revision", "feed_lag_revisions", "relay_lag_revisions", "audit_chain_revision", "relay_leader"]
    assert [scene.value(name) for name in names] == [0] * len(names)
    assert scene.value("consumer_lag_messages", consumer="cache") is None


@pytest.mark.parametrize(("reached", "lag"), [(37, 3), (40, 0), (43, 0)])
async def test_the_feed_shows_how_far_it_is_behind_and_never_less_than_not_at_all(reached: int, lag: int) -> None:
    """It may be ahead of the last health check."""
    scene = Scene(feed=a_feed(reached, connected=True))
    await scene.set()
    assert scene.value("feed_revision") == reached
    assert scene.value("feed_lag_revisions") == lag
    assert scene.value("feed_connected") == 1


async def test_a_feed_without_kafka_shows() -> None:
    scene = Scene(feed=a_feed(40, connected=False))
    scene.metrics.feed_connected.set(1)
    await scene.set()
    assert scene.value("feed_connected") == 0


async def test_consumers_the_audit_log_and_the_relay_show_where_they_run() -> None:
    consumers: Any = {"cache": FakeConsumer(), "audit": FakeConsumer()}
    scene = Scene(consumers=consumers, relay=SimpleNamespace(leader=True), audit_backfill=SimpleNamespace(chained=38))
    await scene.set()
    assert scene.value("consumer_lag_messages", consumer="cache") == 12
    assert scene.value("consumer_lag_messages", consumer="audit") == 12
    assert scene.value("audit_chain_revision") == 38
    assert scene.value("relay_leader") == 1
    assert scene.value("relay_lag_revisions") == 5
    assert scene.value("relay_lag_seconds") == 2.5
