"""What watches tell an observer, in the order in which it happens."""

import asyncio
from typing import Any

import pytest

from pointsman_server.domain.errors import Overloaded, RevisionCompacted
from pointsman_server.domain.routes import RouteKey
from pointsman_server.events.watch import watcher
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.observer import WatchObserver
from pointsman_server.ports.store import Clock
from pointsman_server.writes.mutations import Create
from tests.support.watches import INTENT, Replica, WatchServer, stopped

KEY = RouteKey("team-a", "payments", "prod", "v1")


class Recorder(WatchObserver):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def opened(self) -> None:
        self.told.append("opened")

    def closed(self) -> None:
        self.told.append("closed")

    def began(self, source: str) -> None:
        self.told.append(source)

    def queued(self, change_sets: int) -> None:
        self.told.append(change_sets)

    def ended_slow(self) -> None:
        self.told.append("slow")

    def made_snapshot(self) -> None:
        self.told.append("made")


@pytest.fixture
async def told(server: WatchServer) -> list[Any]:
    recorder = Recorder()
    for part in (server.hub, server.snapshots, server.streams):
        part._observer = recorder
    return recorder.told


@pytest.fixture
async def server() -> Any:
    one = WatchServer()
    await one.start()
    yield one
    await one.stop()


async def create(server: WatchServer, tenant: str = "team-a") -> None:
    key = KEY._replace(tenant=tenant, version=f"v{server.store.revision}")
    await server.committer.create(Create(key, "https://a.internal", {}), INTENT)
    await server.settle()


async def test_a_snapshot_and_the_change_sets_that_match(server, told):
    streams = [server.watch(Replica(server.eras, wanted)) for wanted in (Filter(), Filter(), Filter("team-b"))]
    await server.settle()
    await create(server)
    await create(server, "team-b")
    await create(server, "team-c")
    for stream in streams:
        await stopped(stream)

    assert told.count("snapshot") == told.count("opened") == told.count("closed") == 3
    assert told.count("made") == 2
    assert [count for count in told if isinstance(count, int)] == [2, 3, 2]


async def test_where_a_stream_that_resumes_begins(server, told):
    await create(server)
    replica = Replica(server.eras)
    stream = server.watch(replica)
    await server.settle()
    await stopped(stream)
    told.clear()
    for position, source in [(replica.position, "ring"), (Clock(server.store.epoch, 0), "history")]:
        server.hub.recent.complete_from = 1
        replica.position = position
        stream = server.watch(replica)
        await server.settle()
        assert await stopped(stream) is None or source == "history"
        assert told == ["opened", source, "closed"]
        told.clear()


async def test_a_slow_stream(server, told, monkeypatch):
    monkeypatch.setattr(watcher, "MOST_EVENTS", 1)
    replica = Replica(server.eras)
    stream = server.watch(replica)
    await server.settle()
    replica.gate.close()
    for _ in range(4):
        await create(server)
    replica.gate.open()
    with pytest.raises((Overloaded, RevisionCompacted)):
        await asyncio.wait_for(stream, 5)
    assert told.count("slow") == 1


def test_by_default_nothing_is_counted():
    silent = WatchObserver()
    silent.opened()
    silent.began("ring")
    silent.queued(3)
    silent.ended_slow()
    silent.made_snapshot()
    silent.closed()
