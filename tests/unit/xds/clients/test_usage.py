"""xds.clients.usage: which routes a client reads, and when that is counted."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.xds.clients import usage as module
from pointsman_server.xds.clients.usage import XdsUsage
from pointsman_server.xds.protocol.types import ResourceType
from tests.support.changes import make_change, make_traffic_change
from tests.support.xds_connections import Connections

KEY = RouteKey("acme", "pay", "prod", "v1")
LDS = ResourceType.LDS


class Scene:
    def __init__(self, *changes: Change) -> None:
        self.world = Connections(*changes)
        self.counts = ReadCounts()
        self.usage = XdsUsage(self.world.clients, self.counts, lambda: self.world.snapshot, FairShare())
        self.world.observers.append(self.usage)

    def readers(self, version: str = "v1") -> dict[str, int]:
        return dict(self.counts.of_key(key_to_bytes(KEY._replace(version=version))))


@pytest.mark.parametrize("root", ["v1~prod~pay~acme", "prod~pay~acme"])
async def test_who_asks_for_a_name_reads_the_route_that_it_leads_to(root: str) -> None:
    scene = Scene(make_change(1))
    await scene.world.connect(subject="key:checkout").ask(LDS, root, "v9~prod~pay~acme", "nonsense")
    assert scene.readers() == {"key:checkout": 1}
    assert scene.readers("v9") == {}


async def test_what_the_caller_may_not_read_is_not_counted() -> None:
    scene = Scene(make_change(1))
    await scene.world.connect(tenants=["other"]).ask(LDS, "v1~prod~pay~acme")
    assert scene.readers() == {}


async def test_the_routes_of_another_env_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(make_change(1))
    connection = scene.world.connect()
    monkeypatch.setattr(connection.stream.client.caller, "may_read", lambda scope: scope == Scope("acme", "test"))
    await connection.ask(LDS, "v1~prod~pay~acme")
    assert scene.readers() == {}
    monkeypatch.setattr(connection.stream.client.caller, "may_read", lambda scope: scope == Scope("acme", "prod"))
    await connection.ask(LDS, "prod~pay~acme")
    assert scene.readers() == {"anonymous": 1}


async def test_of_a_family_the_versions_with_a_weight_are_read() -> None:
    changes = [_version(number, f"v{number}") for number in (1, 2, 3)]
    division = Division((Target("v1", 9_000), Target("v2", 1_000)), ("v3",))
    set_traffic = make_traffic_change(4)
    assert set_traffic.traffic_after
    set_traffic = replace(set_traffic, traffic_after=replace(set_traffic.traffic_after, division=division))
    scene = Scene(*changes, set_traffic)
    await scene.world.connect().ask(LDS, "prod~pay~acme")
    assert [scene.readers(version) for version in ("v1", "v2", "v3")] == [{"anonymous": 1}, {"anonymous": 1}, {}]


async def test_an_open_stream_is_counted_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > 3:
            raise asyncio.CancelledError

    scene = Scene()
    connection = scene.world.connect()
    await connection.ask(LDS, "v1~prod~pay~acme", "prod~pay~acme", "v9~prod~pay~acme")
    assert scene.readers() == {}
    monkeypatch.setattr(module, "COUNTED_IN_A_TURN", 2)
    # Live only after the client asked for it.
    scene.world.change(make_change(1))
    fake: Any = type("Asyncio", (), {"sleep": staticmethod(sleep)})
    monkeypatch.setattr(module, "asyncio", fake)
    with pytest.raises(asyncio.CancelledError):
        await scene.usage.run()
    # By the route, and by its family.
    assert scene.readers() == {"anonymous": 3 * 2}
    assert set(pauses) == {module.FLUSH_SECONDS}


async def test_many_streams_are_counted_evenly_over_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counted_at: list[float] = []
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now > module.FLUSH_SECONDS:
            raise asyncio.CancelledError

    scene = Scene(make_change(1))
    connections = [scene.world.connect() for _ in range(3 * module.COUNTED_AT_ONCE)]
    for connection in connections:
        await connection.ask(LDS, "v1~prod~pay~acme")
    monkeypatch.setattr(ReadCounts, "add", lambda *_: counted_at.append(now))
    fake: Any = type("Asyncio", (), {"sleep": staticmethod(sleep)})
    monkeypatch.setattr(module, "asyncio", fake)
    with pytest.raises(asyncio.CancelledError):
        await scene.usage.run()
    part = module.FLUSH_SECONDS / 3
    assert [counted_at.count(pytest.approx(part * number)) for number in (1, 2, 3)] == [module.COUNTED_AT_ONCE] * 3


async def test_a_stream_that_has_ended_meanwhile_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(make_change(1))
    connection = scene.world.connect()
    await connection.ask(LDS, "v1~prod~pay~acme")
    [client] = scene.world.clients
    connection.close()
    await scene.usage._count_all(client)
    assert scene.readers() == {"anonymous": 1}


def _version(revision: int, version: str) -> Change:
    change, key = make_change(revision), KEY._replace(version=version)
    assert change.after
    return replace(change, key=key, after=replace(change.after, key=key))
