"""xds.clients.receipts: which watches a client is, and when it is reported."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from pointsman_server.events.receipts.propagation import Propagation
from pointsman_server.events.receipts.receipts import Receipts
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.hub import WatchHub
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.xds.clients import receipts as module
from pointsman_server.xds.clients.receipts import XdsReceipts
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.views import ClientKind, View
from tests.support.changes import make_change
from tests.support.waiting import becomes
from tests.support.watcher_registry import MemoryWatcherRegistry
from tests.support.xds_connections import Connections, FakeCaller

ROOT = "v1~prod~pay~acme"
LDS, RDS, CDS, EDS = ResourceType
PAY = Filter("acme", "pay", "prod")


class Scene:
    """Two servers on one registry: one with xDS clients, and one that is asked."""

    def __init__(self) -> None:
        self.world = Connections(make_change(1))
        self.registry = MemoryWatcherRegistry(lambda: 0.0)
        self.near, self.far = self._receipts("near"), self._receipts("far")
        clock = lambda: self.world.snapshot.clock  # noqa: E731 - one line twice
        self.xds = XdsReceipts(self.world.clients, self.near, clock)
        self.near.ask_also(self.xds)
        self.world.observers.append(self.xds)

    def _receipts(self, server: str) -> Receipts:
        async def clock() -> Clock:
            return self.world.snapshot.clock

        hub = WatchHub(FairShare())
        return Receipts(hub, self.registry, clock, lambda: self.world.snapshot.clock, server=server)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.xds.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def found(self, revision: int, of: Filter = PAY) -> Propagation:
        await self.near.step()
        return await self.far.propagation(revision, of)

    async def counts(self, revision: int, of: Filter = PAY) -> tuple[int, int]:
        found = await self.found(revision, of)
        return found.watchers, found.applied


async def test_a_client_counts_from_its_acknowledgement_on() -> None:
    scene = Scene()
    async with scene.running():
        connection = scene.world.connect("checkout", subject="key:checkout")
        await connection.ask(LDS, ROOT)
        assert await scene.counts(1) == (1, 0)
        (behind,) = (await scene.found(1)).behind
        assert (behind.watch.title, behind.watch.name.subject) == ("checkout", "key:checkout")
        await connection.answer()
        assert await scene.counts(1) == (1, 0)
        for kind in (RDS, CDS, EDS):
            await connection.ask(kind, ROOT)
            await connection.answer()

        async def applied() -> bool:
            return await scene.counts(1) == (1, 1)

        assert await becomes(applied)
        connection.close()
        assert await scene.counts(1) == (0, 0)
        assert not scene.xds._reported


async def test_a_client_that_refuses_is_behind() -> None:
    scene = Scene()
    async with scene.running():
        connection = scene.world.connect()
        await connection.ask(LDS, ROOT)
        await connection.answer("no")
        assert await scene.counts(1) == (1, 0)


async def test_nobody_is_looked_at_before_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    looks: list[object] = []
    behind = scene.xds._behind
    monkeypatch.setattr(scene.xds, "_behind", lambda: looks.append(None) or behind())
    async with scene.running():
        connection = scene.world.connect()
        await connection.ask(LDS, ROOT)
        await connection.answer()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not looks
        scene.xds.request_progress(1)
        for _ in range(3):
            await asyncio.sleep(0)
        assert looks


async def test_other_families_are_not_concerned_and_unread_ones_not_watched() -> None:
    scene = Scene()
    await scene.world.connect(tenants=["acme"]).ask(LDS, ROOT, "v1~prod~pay~other", "nonsense")
    assert await scene.counts(1) == (1, 0)
    assert await scene.counts(1, Filter("acme", "ads", "prod")) == (0, 0)
    assert await scene.counts(1, Filter("other", "pay", "prod")) == (0, 0)
    assert await scene.counts(1, Filter()) == (1, 0)


async def test_a_client_watches_what_it_asks_for_now() -> None:
    scene = Scene()
    connection = scene.world.connect()
    await connection.ask(LDS, ROOT)
    await connection.answer()
    await connection.ask(LDS, "v1~prod~ads~acme")
    assert await scene.counts(1) == (0, 0)
    assert await scene.counts(1, Filter("acme", "ads", "prod")) == (1, 0)


async def test_another_policy_changes_what_it_watches() -> None:
    scene = Scene()
    connection = scene.world.connect(tenants=["acme"])
    await connection.ask(LDS, ROOT)
    caller = connection.stream.client.caller
    assert isinstance(caller, FakeCaller)
    caller.tenants = []
    scene.xds.register(connection.stream)
    assert await scene.counts(1) == (0, 0)


async def test_of_a_client_with_very_many_families_some_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WATCHES", 2)
    scene = Scene()
    await scene.world.connect().ask(LDS, *(f"v1~prod~s{number}~acme" for number in range(5)))
    await scene.near.step()
    assert len(await scene.registry.watches()) == 2


@pytest.mark.parametrize(
    ("tenants", "families", "filters"),
    [
        (None, (), {("", "", "")}),
        (None, ("acme/*/prod",), {("acme", "", "prod")}),
        (["acme"], ("acme/*/*", "other/*/*"), {("acme", "pay", "prod")}),
        (None, ("malformed",), set()),
    ],
)
async def test_an_envoy_watches_the_families_that_it_selects(
    monkeypatch: pytest.MonkeyPatch, tenants: list[str] | None, families: tuple[str, ...], filters: set[object]
) -> None:
    scene = Scene()
    connection = scene.world.connect(tenants=tenants, view=View(ClientKind.ENVOY, families=families))
    monkeypatch.setattr(type(connection.stream.session), "wants_all", property(lambda _session: True))
    await connection.ask(CDS, ROOT)
    scene.xds.register(connection.stream)
    await scene.near.step()
    assert {each.watch.name[2:] for each in await scene.registry.watches()} == filters
