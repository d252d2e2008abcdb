"""The feed on a real Kafka, PostgreSQL and Redis: every server applies every change."""

import asyncio
import os
from collections.abc import Sequence

import pytest

from pointsman import Client, ImportedRoute, NotFound
from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.ports.store import Clock
from tests.support.servers import serving, settings
from tests.support.waiting import eventually

PATIENCE = 30.0
KEYS = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(20)]


@pytest.mark.parametrize("kafka", ["with kafka", "without kafka"])
def test_a_write_of_one_server_reaches_the_cache_of_another(kafka, request, database_url, redis_url):
    """Redis is out for both, and the local caches live long: only the feed can tell."""
    servers = request.getfixturevalue("kafka_broker").bootstrap_servers if kafka == "with kafka" else ""
    chosen = settings(
        database_url=database_url,
        redis_url="redis://127.0.0.1:1/0",
        redis_timeout_seconds=0.01,
        kafka_bootstrap_servers=servers,
        kafka_topic=f"feed-{os.urandom(4).hex()}",
        cache_local_ttl_seconds=300,
        cache_negative_ttl_seconds=300,
        roles="api,relay" if servers else "api",
    )
    with (
        serving(chosen) as one,
        serving(chosen) as two,
        Client(one.address) as writer,
        Client(two.address) as reader,
    ):
        for server in (one, two):
            server.run(fed(server, 0))
        with pytest.raises(NotFound):
            reader.resolve(str(KEYS[0]))
        revision = writer.create(str(KEYS[0]), "https://new.internal").revision
        two.run(fed(two, revision))

        answer = reader.resolve(str(KEYS[0]), min_revision=0)
        again = reader.resolve(str(KEYS[0]), min_revision=revision)

        assert answer.route.url == again.route.url == "https://new.internal"
        assert again.source.value == "LOCAL"


async def fed(server, revision: int) -> None:
    """Wait until the feed of ``server`` is at ``revision``, and has begun."""
    async with asyncio.timeout(PATIENCE):
        while server.app.running.feed._epoch == "" or server.app.running.feed.revision < revision:  # noqa: ASYNC110 - another loop
            await asyncio.sleep(0.01)


def test_a_heartbeat_measures_how_stale_each_layer_is(kafka_broker, database_url, redis_url):
    chosen = settings(
        database_url=database_url,
        redis_url=redis_url,
        kafka_bootstrap_servers=kafka_broker.bootstrap_servers,
        kafka_topic=f"feed-{os.urandom(4).hex()}",
        heartbeat_seconds=0.3,
        roles="api,relay,cache",
    )
    with serving(chosen) as server:

        def measured(layer: str) -> float:
            name = "pointsman_cache_staleness_seconds_count"
            return server.app.metrics.registry.get_sample_value(name, {"layer": layer}) or 0.0

        assert eventually(lambda: measured("local") >= 3 and measured("redis") >= 3)


class Recorder:
    """A subscriber of the feed that records the sets it receives."""

    def __init__(self) -> None:
        self.sets: list[list[str]] = []

    def start_over(self, clock: Clock) -> None:
        self.sets.clear()

    def apply(self, changes: Sequence[Change]) -> None:
        self.sets.append([str(change.key) for change in changes])

    def advance(self, revision: int) -> None:
        """Not recorded."""

    def confirm(self, moment: float) -> None:
        """Not recorded."""


@pytest.mark.parametrize("kafka", ["with kafka", "without kafka"])
def test_a_subscriber_receives_what_its_own_server_and_another_one_write(kafka, request, database_url, redis_url):
    servers = request.getfixturevalue("kafka_broker").bootstrap_servers if kafka == "with kafka" else ""
    chosen = settings(
        database_url=database_url,
        redis_url=redis_url,
        kafka_bootstrap_servers=servers,
        kafka_topic=f"feed-{os.urandom(4).hex()}",
        roles="api,relay" if servers else "api",
    )
    with serving(chosen) as one, serving(chosen) as two:
        own = [f"team-a/imported/prod/v{number}" for number in range(1200)]
        recorder = Recorder()

        async def subscribe() -> None:
            one.app.running.feed.subscribe(recorder)

        for server in (one, two):
            server.run(fed(server, 0))
        one.run(subscribe())
        with Client(one.address) as here, Client(two.address) as there:
            here.create(str(KEYS[0]), "https://here.internal")
            there.create(str(KEYS[1]), "https://there.internal")
            revision = here.import_routes([ImportedRoute(key, "https://imported.internal") for key in own]).revision
            one.run(fed(one, revision))

    assert recorder.sets[0] == [str(KEYS[0])]
    assert [key for keys in recorder.sets for key in keys] == [str(KEYS[0]), str(KEYS[1]), *own]
    assert recorder.sets[-1] == own
