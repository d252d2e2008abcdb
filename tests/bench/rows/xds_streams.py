"""xDS: what thousands of streams cost, how soon they have a change, and what other calls notice of it.

The clients run in a process of their own on the core of the load (``xds_client``), and beside them one that resolves at
a fixed rate (``bystander``). One server process has the roles api and xds. A delay counts from the time of the change
in the store, which is before its commit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.bench.children import Child
from tests.bench.contests import Contest, Row, Sample, at_most, no_more_than
from tests.bench.rig import Rig
from tests.bench.rows.watches import SteppedClient, bystander
from tests.support.memory import MEGABYTE, resident
from tests.support.processes import free_port

STREAMS, NAMES, SUBSCRIBERS = 2_000, 5, 5
# Each name but the one that all have is asked for by SUBSCRIBERS.
ROUTES = STREAMS * (NAMES - 1) // SUBSCRIBERS
CHANGES, CHANGES_TO_ALL = 40, 8


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure both transports of RouteService; that of xDS is grpcio always."""
    contestants = {}
    rows: list[Row] = []
    for transport in ("grpcio", "envoy"):
        crowd, alone = f"{transport}, {STREAMS:,} streams", f"{transport}, no streams"
        contestants[alone] = lambda transport=transport: _alone(rig, transport)
        contestants[crowd] = lambda transport=transport: _crowd(rig, transport)
        rows += [
            _row(transport, "connect", f"until {STREAMS:,} have {NAMES} names", crowd, no_more_than(5), "s"),
            _row(transport, "memory", "a stream", crowd, no_more_than(60), "kB"),
            _row(transport, "few", f"one change to its {SUBSCRIBERS} subscribers, p99", crowd, no_more_than(30), "ms"),
            _row(transport, "all", "one change to all, until the last has it", crowd, no_more_than(500), "ms"),
            _row(transport, "resolve", "Resolve meanwhile, p99", crowd, at_most(2), "ms", alone),
            _row(transport, "growth", "memory after that, more than before", crowd, no_more_than(20), "MB"),
            _row(transport, "generator", "of its core the clients used to connect", crowd, no_more_than(1), "of 1"),
        ]
    yield Contest(f"xDS, {STREAMS:,} streams", contestants, rows, rounds=3)


def _row(transport: str, figure: str, what: str, ours: str, target: Any, unit: str, theirs: str = "") -> Row:
    return Row(f"xds.{transport}.{figure}", what, ours, target, theirs=theirs, figure=figure, unit=unit)


@contextmanager
def _server(rig: Rig, transport: str) -> Iterator[tuple[Child, str]]:
    xds = f"127.0.0.1:{free_port()}"
    with rig.server(transport, roles="api,xds", chosen={"POINTSMAN_XDS_LISTEN": xds}) as server:
        yield server, xds


def _alone(rig: Rig, transport: str) -> Sample:
    with _server(rig, transport) as (server, _), bystander(rig, server) as seen:
        return {"resolve": seen()["p99"]}


def _crowd(rig: Rig, transport: str) -> Sample:
    with _server(rig, transport) as (server, xds), SteppedClient(rig, "xds_client", xds, server.address) as clients:
        pid = server.process.pid
        clients.step(do="make", routes=ROUTES)
        clients.step(do="open", clients=1, names=NAMES, routes=ROUTES)
        before = resident(pid)
        opened = clients.step(do="open", clients=STREAMS, names=NAMES, routes=ROUTES)
        full = resident(pid)
        few = clients.step(do="change", service="own", times=CHANGES, routes=ROUTES)
        with bystander(rig, server) as seen:
            everyone = clients.step(do="change", service="shared", times=CHANGES_TO_ALL)
            resolve = seen()["p99"]
        return {
            "connect": opened["seconds"],
            "generator": opened["busy"],
            "memory": (full - before) / 1024 / STREAMS,
            "few": few["p99"],
            "all": everyone["last"],
            "resolve": resolve,
            "growth": (resident(pid) - full) / MEGABYTE,
        }
