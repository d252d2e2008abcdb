"""xDS: the table of a hundred thousand routes, in this process: its memory, and what one change costs.

A change is applied to the table, and the four resources of its name are built again, as those who watch it need them.
"""

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pointsman_server.domain.routes import Change, ChangeKind, Route, RouteKey
from pointsman_server.ports.store import Clock
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.table import Table
from pointsman_server.xds.views import ClientKind, View
from tests.bench.contests import Contest, Row, Sample, no_more_than
from tests.bench.rig import Rig
from tests.support.memory import MEGABYTE

ROUTES, WATCHED, CHANGES = 100_000, 2_000, 2_000
VIEWS = {
    "grpc": View(),
    "envoy": View(ClientKind.ENVOY, ca_file="/etc/ssl/certs/ca-certificates.crt", listen="127.0.0.1:10000"),
}
NOW = datetime.now(UTC)


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure the table, and changes for a client of each kind."""
    table = f"{ROUTES:,} routes"
    yield Contest(
        f"xDS, {ROUTES:,} routes",
        {table: _table, **{kind: lambda kind=kind: _changes(VIEWS[kind]) for kind in VIEWS}},
        [
            Row("xds.table.memory", "the table", table, no_more_than(50), figure="megabytes", unit="MB"),
            Row("xds.table.fill", "filling it, of routes in memory", table, None, figure="seconds", unit="s"),
            *(
                Row(f"xds.table.{kind}.{figure}", f"{kind}: one change, {figure}", kind, target, "", figure, "ms")
                for kind in VIEWS
                for figure, target in (("p50", no_more_than(1)), ("p99", None))
            ),
        ],
        rounds=3,
    )


def _table() -> Sample:
    begun = time.perf_counter()
    table = _filled()
    seconds = time.perf_counter() - begun
    del table
    tracemalloc.start()
    try:
        table = _filled()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table) == ROUTES
    return {"megabytes": size / MEGABYTE, "seconds": seconds}


def _changes(view: View) -> Sample:
    snapshot = ResourceSnapshot(_filled())
    names = [f"v1~prod~{key.service}~{key.tenant}" for key in map(_key, range(0, ROUTES, ROUTES // WATCHED))]
    for name in names:
        snapshot.subscribe(name, _Nobody())
        _build(snapshot, view, name)
    taken = []
    for number in range(CHANGES):
        place = number % WATCHED
        change = _change(number + 1, place * (ROUTES // WATCHED))
        begun = time.perf_counter()
        snapshot.apply([change])
        _build(snapshot, view, names[place])
        taken.append((time.perf_counter() - begun) * 1000)
    taken.sort()
    return {"p50": taken[CHANGES // 2], "p99": taken[CHANGES * 99 // 100]}


def _build(snapshot: ResourceSnapshot, view: View, name: str) -> None:
    for kind in ResourceType:
        snapshot.resource(view, kind, name)


def _filled() -> Table:
    return Table(Clock("bench", 0), (_route(number) for number in range(ROUTES)))


def _key(number: int) -> RouteKey:
    return RouteKey(f"team-{number % 100}", f"service-{number}", "prod", "v1")


def _route(number: int) -> Route:
    url = f"https://service-{number}.internal.example:8443"
    return Route(_key(number), url, True, {"team": "payments"}, 1, NOW, NOW)


def _change(revision: int, number: int) -> Change:
    route = _route(number)
    after = replace(route, url=f"http://10.0.{revision % 250}.1:{revision + 1024}", revision=revision)
    return Change(revision, "", ChangeKind.UPDATED, route.key, route, after, "", "", "", NOW, "bench")


class _Nobody:
    def wake(self, window: Any) -> None:
        """Is not there."""
