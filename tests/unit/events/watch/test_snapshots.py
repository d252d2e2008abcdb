"""Snapshots: made once, shared, bounded, and admitted a few at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from pointsman.v1.watch_pb2 import WatchResponse
from pointsman_server.domain.errors import Overloaded, StoreUnavailable
from pointsman_server.domain.routes import RouteKey
from pointsman_server.events.watch import encoding, snapshots
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.snapshots import EncodedSnapshot, Snapshots
from pointsman_server.ports.store import RouteQuery
from pointsman_server.ports.store import Table as Scanned
from pointsman_server.runtime.fair_share import FairShare
from tests.support.changes import make_traffic
from tests.support.fakes import ManualClock, MemoryStore

ALL = Filter()


class Table:
    """Snapshots of a store with some routes; ``usable`` is what the hub says."""

    def __init__(self, routes: int = 3, concurrency: int = 16) -> None:
        self.store = MemoryStore()
        self.put(routes)
        self.now = ManualClock()
        self.usable = True
        share = FairShare()
        self.snapshots = Snapshots(self.store, share, lambda _clock: self.usable, concurrency=concurrency, now=self.now)

    def put(self, routes: int) -> None:
        for _ in range(routes):
            self.store.put(RouteKey("team-a", f"service-{self.store.revision:05}", "prod", "v1"))


def counts_of(snapshot: EncodedSnapshot, wanted: Filter = ALL) -> list[tuple[int, int]]:
    """Return how many routes and traffic each batch has. The last event says how many there are."""
    events = [WatchResponse.FromString(event) for event in snapshot.events_of(wanted)]
    counts = [(len(event.snapshot.routes), len(event.snapshot.traffic)) for event in events[:-1]]
    end = events[-1].end_of_snapshot
    assert (end.route_count, end.traffic_count) == tuple(map(sum, zip((0, 0), *counts, strict=True)))
    assert {event.snapshot.as_of.revision for event in events[:-1]} <= {snapshot.clock.revision}
    assert end.as_of.revision == snapshot.clock.revision
    return counts


def routes_of(snapshot: EncodedSnapshot) -> list[int]:
    counts = counts_of(snapshot)
    assert not any(traffic for _, traffic in counts)
    return [routes for routes, _ in counts]


async def test_it_is_made_once_for_streams_that_begin_together() -> None:
    table = Table()
    table.store.before_scan.close()
    streams = [asyncio.create_task(table.snapshots.get(ALL)) for _ in range(50)]
    await table.store.before_scan.arrivals()
    await asyncio.sleep(0)
    assert table.store.before_scan.waiting == 1
    table.store.before_scan.open()
    assert len({id(one) for one in await asyncio.gather(*streams)}) == 1


async def test_it_is_given_to_later_streams_for_some_seconds() -> None:
    table = Table()
    first = await table.snapshots.get(ALL)
    table.put(1)
    table.now.advance(snapshots.KEPT_SECONDS - 1)
    assert await table.snapshots.get(ALL) is first
    # Also when it was used meanwhile.
    table.now.advance(1)
    assert routes_of(await table.snapshots.get(ALL)) == [4]


async def test_it_is_made_again_when_streams_cannot_go_on_from_it() -> None:
    table = Table()
    first = await table.snapshots.get(ALL)
    table.usable = False
    assert await table.snapshots.get(ALL) is not first


async def test_each_filter_has_its_own() -> None:
    table = Table()
    assert routes_of(await table.snapshots.get(ALL)) == [3]
    assert routes_of(await table.snapshots.get(Filter("", "service-00001"))) == [1]
    assert routes_of(await table.snapshots.get(Filter("nobody"))) == []


async def test_traffic_follows_the_routes_for_those_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    table, wanted = Table(), ALL._replace(traffic=True)
    scan, scans = table.store.scan, []
    traffic = [make_traffic(number, f"service-{number}") for number in range(1, 6)]

    @asynccontextmanager
    async def with_traffic(query: RouteQuery) -> AsyncIterator[Scanned]:
        scans.append(query)
        async with scan(query) as scanned:
            yield replace(scanned, traffic=traffic)

    monkeypatch.setattr(table.store, "scan", with_traffic)
    monkeypatch.setattr(encoding, "SNAPSHOT_BYTES", 2 * len(encoding.traffic(traffic[0])) + 1)
    one, other = await asyncio.gather(table.snapshots.get(wanted), table.snapshots.get(ALL))
    assert one is other
    assert len(scans) == 1
    batches = counts_of(one, wanted)
    assert [of_traffic for of_routes, of_traffic in batches if not of_routes] == [2, 2, 1]
    assert [of_routes for of_routes, of_traffic in batches if not of_traffic] == routes_of(one)
    assert sorted(batches, key=lambda batch: not batch[0]) == batches


async def test_what_is_old_leaves_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "KEPT_SECONDS", 0.01)
    table = Table()
    await table.snapshots.get(ALL)
    assert table.snapshots._kept
    table.now.advance(1)
    async with asyncio.timeout(10):
        while table.snapshots._kept:  # noqa: ASYNC110 - a timer drops it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("page", [1, 2, 100])
async def test_a_batch_is_bounded_by_bytes(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(routes=5)
    size = len(encoding.route(next(iter(table.store.routes.values()))))
    monkeypatch.setattr(snapshots, "PAGE", page)
    monkeypatch.setattr(encoding, "SNAPSHOT_BYTES", 2 * size + 1)
    assert routes_of(await table.snapshots.get(ALL)) == [2, 2, 1]
    monkeypatch.setattr(encoding, "SNAPSHOT_BYTES", 1)
    table.usable = False
    assert routes_of(await table.snapshots.get(ALL)) == [1] * 5


async def test_a_failure_reaches_all_who_wait_and_the_next_one_tries_again() -> None:
    table = Table()
    table.store.failure = StoreUnavailable()
    outcomes = await asyncio.gather(*(table.snapshots.get(ALL) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
    table.store.failure = None
    assert routes_of(await table.snapshots.get(ALL)) == [3]


async def test_it_is_finished_when_the_stream_that_began_it_has_gone() -> None:
    table = Table()
    table.store.before_scan.close()
    first, second = (asyncio.create_task(table.snapshots.get(ALL)) for _ in range(2))
    await table.store.before_scan.arrivals()
    first.cancel()
    table.store.before_scan.open()
    assert routes_of(await second) == [3]


async def test_a_few_are_sent_at_once_and_others_are_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "PATIENCE_SECONDS", 0.01)
    table = Table(concurrency=2)
    async with table.snapshots.turn(), table.snapshots.turn():
        with pytest.raises(Overloaded) as refused:
            async with table.snapshots.turn():
                raise AssertionError("admitted")
    least, most = snapshots.RETRY_SECONDS
    assert least <= refused.value.retry_delay <= most
    async with table.snapshots.turn():
        pass


async def test_one_that_waits_gets_the_turn_of_one_that_ends() -> None:
    table = Table(concurrency=1)

    async def wait() -> None:
        async with table.snapshots.turn():
            return

    async with table.snapshots.turn():
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
    await waiting


async def test_a_client_that_reads_slowly_loses_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "TURN_SECONDS", 0.01)
    table = Table(concurrency=1)
    async with table.snapshots.turn(), table.snapshots.turn():
        pass
    # Each turn has ended once: one more than one at a time would be admitted otherwise.
    assert table.snapshots._turns._value == 1
