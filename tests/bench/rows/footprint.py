"""The memory of a server before its first call."""

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
    """Measure both transports as they come, and one with tokens and permissions."""
    guarded = "envoy, tokens checked"
    targets = {**dict.fromkeys(TRANSPORTS, no_more_than(110)), guarded: None}
    yield Contest(
        "Memory of a server when empty",
        {transport: _empty(rig, transport, guarded=False) for transport in TRANSPORTS}
        | {guarded: _empty(rig, "envoy", guarded=True)},
        [
            Row(f"memory.{name.replace(', ', '.').replace(' ', '-')}", name, name, target, figure="rss", unit="MB")
            for name, target in targets.items()
        ],
        rounds=3,
    )


def _empty(rig: Rig, transport: str, *, guarded: bool) -> Callable[[], Sample]:
    def run() -> Sample:
        with rig.server(transport, guarded=guarded) as server:
            time.sleep(SETTLING_SECONDS)
            return {"rss": resident(server.process.pid) / MEGABYTE}

    return run
