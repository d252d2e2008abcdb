"""What each part of a server costs on a transport: servers that have ever more of the parts, under the same load.

``python -m tests.bench.variants TRANSPORT VARIANT`` serves one of them until SIGTERM.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from pointsman.v1.route_service_pb2_grpc import RouteServiceServicer
from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.telemetry import logs
from tests.bench import cores, noop
from tests.bench.children import Child, child, cpu_seconds
from tests.bench.generators import H2load
from tests.bench.parts import Parts
from tests.bench.rig import TRANSPORTS

SECONDS = 1.5
ROUNDS = 3

Make = Callable[[Parts], tuple[RouteServiceServicer, Interceptor | None]]


def _stages(parts: Parts, *without: str) -> Interceptor:
    return Interceptor(tuple(stage for name, stage in parts.stages().items() if name not in without))


VARIANTS: Mapping[str, Make] = {
    "no-op": lambda _: (noop.Noop(), None),
    "no-op behind an interceptor without stages": lambda _: (noop.Noop(), Interceptor(())),
    "no-op behind every stage": lambda parts: (noop.Noop(), _stages(parts)),
    "Resolve alone": lambda parts: (parts.servicer, None),
    "Resolve behind every stage but validate": lambda parts: (parts.servicer, _stages(parts, "validate")),
    "Resolve behind every stage": lambda parts: (parts.servicer, _stages(parts)),
}


def table(h2load: H2load, work: Path) -> list[str]:
    """Load each variant on each transport, in turn, and render a Markdown table."""
    available = cores.available()
    ours, theirs = (available[0], available[-1]) if len(available) > 1 else (None, None)
    with ExitStack() as stack:
        with cores.pinned(ours):
            servers = {pair: stack.enter_context(_started(*pair, work)) for pair in _pairs()}
        with cores.pinned(theirs):
            costs = [{pair: _costs(server, h2load) for pair, server in servers.items()} for _ in range(ROUNDS)]
    heads = " | ".join(f"{transport} µs | switches" for transport in TRANSPORTS)
    return [f"| server | {heads} |", "|---|--:|--:|--:|--:|", *(_row(name, costs) for name in VARIANTS)]


def _row(name: str, rounds: list[dict[tuple[str, str], tuple[float, float]]]) -> str:
    cells = [name]
    for transport in TRANSPORTS:
        microseconds, switches = zip(*(costs[transport, name] for costs in rounds), strict=True)
        cells += [f"{median(microseconds):.0f}", f"{median(switches):.1f}"]
    return f"| {' | '.join(cells)} |"


def _pairs() -> Iterator[tuple[str, str]]:
    return ((transport, name) for transport in ("grpcio",) for name in VARIANTS)


def _started(transport: str, name: str, work: Path) -> Any:
    number = list(VARIANTS).index(name)
    return child(["tests.bench.variants", transport, str(number)], work / f"{transport}-{number}.log")


def _costs(server: Child, h2load: H2load) -> tuple[float, float]:
    """Measure processor time and switches between threads, both for one call."""
    pid = server.process.pid
    cpu, switches = cpu_seconds([pid]), _switches(pid)
    calls = h2load.run(server.address, "Resolve", SECONDS).calls
    return (cpu_seconds([pid]) - cpu) / calls * 1e6, (_switches(pid) - switches) / calls


def _switches(pid: int) -> int:
    lines = (line for task in Path(f"/proc/{pid}/task").glob("*/status") for line in task.read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


if __name__ == "__main__":
    logs.configure("info", "json")
    servicer, interceptor = list(VARIANTS.values())[int(sys.argv[2])](Parts())
    asyncio.run(noop.serve(servicer, interceptor))
