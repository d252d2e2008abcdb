"""Watch: what thousands of watchers cost, how soon they have a change, and what the others notice of it.

The watchers run in a process of their own on the core of the load (``watch_client``), and beside them one that resolves
at a fixed rate (``bystander``). A delay counts from the time of the change in the store, which is before its commit.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Self

from pointsman_server.embedded.tied import tied_to_this_process
from tests.bench import cores
from tests.bench.children import ROOT, Child, ChildFailed
from tests.bench.contests import Contest, Row, Sample, at_most, no_more_than
from tests.bench.rig import Rig
from tests.support.memory import MEGABYTE, resident

WATCHERS, FEW, CONNECTIONS = 5_000, 5, 52
STEADY_WATCHERS, TENANTS, CHANGES_PER_SECOND = 1_000, 20, 200
CHANGES = 8
BYSTANDER_SECONDS = 6.0
ENDED = "a client of the benchmark ended: its error is above"


@contextmanager
def part(rig: Rig, transport: str) -> Iterator[Contest]:
    """Measure one transport."""
    crowd, alone, steady = f"{transport}, {WATCHERS:,} watchers", f"{transport}, no watchers", f"{transport}, steady"
    yield Contest(
        f"Watch ({transport})",
        {
            alone: lambda: _alone(rig, transport),
            crowd: lambda: _crowd(rig, transport),
            steady: lambda: _steady(rig, transport),
        },
        [
            _row(transport, "memory", "a watcher", crowd, no_more_than(30), "kB"),
            _row(transport, "all", "one change to all, p99", crowd, no_more_than(250), "ms"),
            _row(transport, "few", f"one change to the {FEW} that filter for it, p99", crowd, no_more_than(20), "ms"),
            _row(transport, "resolve", "Resolve meanwhile, p99", crowd, at_most(2), "ms", alone),
            _row(transport, "reconnect", "all reconnect at once", crowd, no_more_than(10), "s"),
            _row(transport, "reconnecting", "Resolve while all reconnect, p99", crowd, at_most(3), "ms", alone),
            _row(transport, "growth", "memory after that, more than before", crowd, no_more_than(20), "MB"),
            _row(
                transport,
                "steady",
                f"{STEADY_WATCHERS:,} watchers, {CHANGES_PER_SECOND} changes/s, p99",
                steady,
                no_more_than(60),
                "ms",
            ),
        ],
        rounds=3,
    )


def _row(transport: str, figure: str, what: str, ours: str, target: Any, unit: str, theirs: str = "") -> Row:
    return Row(f"watches.{transport}.{figure}", what, ours, target, theirs=theirs, figure=figure, unit=unit)


def _alone(rig: Rig, transport: str) -> Sample:
    with rig.server(transport) as server, bystander(rig, server) as seen:
        p99 = seen()["p99"]
    return {"resolve": p99, "reconnecting": p99}


def _crowd(rig: Rig, transport: str) -> Sample:
    with rig.server(transport) as server, SteppedClient(rig, "watch_client", server.address) as client:
        pid = server.process.pid
        client.step(do="open", watchers={"first": 1}, connections=1)
        before = resident(pid)
        client.step(do="open", watchers={"crowd": WATCHERS, "few": FEW}, connections=CONNECTIONS)
        memory = (resident(pid) - before) / 1024 / (WATCHERS + FEW)
        few = client.step(do="change", tenant="few", times=CHANGES)
        with bystander(rig, server) as seen:
            everyone = client.step(do="change", tenant="crowd", times=CHANGES)
            resolve = seen()["p99"]
        full = resident(pid)
        with bystander(rig, server) as seen:
            reconnect = client.step(do="reconnect", connections=CONNECTIONS)
            reconnecting = seen()["p99"]
        client.step(do="change", tenant="crowd", times=1)
        return {
            "memory": memory,
            "all": everyone["p99"],
            "few": few["p99"],
            "resolve": resolve,
            "reconnect": reconnect["seconds"],
            "reconnecting": reconnecting,
            "growth": (resident(pid) - full) / MEGABYTE,
        }


def _steady(rig: Rig, transport: str) -> Sample:
    tenants = [f"t{number}" for number in range(TENANTS)]
    with rig.server(transport) as server, SteppedClient(rig, "watch_client", server.address) as client:
        client.step(do="open", watchers=dict.fromkeys(tenants, STEADY_WATCHERS // TENANTS), connections=CONNECTIONS)
        seconds = max(2.0, 2 * rig.seconds)
        return {"steady": client.step(do="steady", tenants=tenants, rate=CHANGES_PER_SECOND, seconds=seconds)["p99"]}


class SteppedClient:
    """The process of a module that takes steps from its standard input."""

    def __init__(self, rig: Rig, module: str, *arguments: str) -> None:
        self._process = start(rig, module, *arguments, token(rig))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def step(self, **step: Any) -> dict[str, float]:
        """Have it take a step. Raises ChildFailed."""
        pipes = self._process
        assert pipes.stdin
        assert pipes.stdout
        pipes.stdin.write(json.dumps(step) + "\n")
        pipes.stdin.flush()
        return read(pipes.stdout)


@contextmanager
def bystander(rig: Rig, server: Child) -> Iterator[Any]:
    """Resolve cached routes meanwhile; gives a function that waits until that is over and returns what it saw."""
    process = start(rig, "bystander", server.address, str(BYSTANDER_SECONDS), token(rig))
    try:
        assert process.stdout
        output = process.stdout
        if not output.readline():
            raise ChildFailed(ENDED)
        yield lambda: read(output)
    finally:
        process.kill()
        process.wait()


def read(output: IO[str]) -> dict[str, float]:
    line = output.readline()
    if not line:
        raise ChildFailed(ENDED)
    return dict(json.loads(line))


def start(rig: Rig, module: str, *arguments: str) -> "subprocess.Popen[str]":
    with cores.pinned(rig.load_core):
        return subprocess.Popen(
            tied_to_this_process([sys.executable, "-m", f"tests.bench.{module}", *arguments]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )


def token(rig: Rig) -> str:
    return rig.guard.headers["authorization"].removeprefix("Bearer ")
