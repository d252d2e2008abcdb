"""The memory of a server that nobody has asked anything yet, everything on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.bench.contests import Contest, Row, Sample, no_more_than
from tests.bench.rig import TRANSPORTS, Rig
from tests.support.memory import MEGABYTE, resident

# What a server does once after it has begun to serve is over by then.
SETTLING_SECONDS = 1.5


@contextmanager
def part(rig: Rig) -> Iterator[Contest]:
    """Measure both transports."""
    yield Contest(
        "Memory of a server when empty",
        {transport: _empty(rig, transport) for transport in TRANSPORTS},
        [
            Row(f"memory.{transport}", transport, transport, no_more_than(90), figure="megabytes", unit="MB")
            for transport in TRANSPORTS
        ],
        rounds=3,
    )


def _empty(rig: Rig, transport: str) -> Callable[[], Sample]:
    def run() -> Sample:
        with rig.server(transport) as server:
            time.sleep(SETTLING_SECONDS)
            return {"megabytes": resident(server.process.pid) / MEGABYTE}

    return run
