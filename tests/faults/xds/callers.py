"""One xDS client: a probe that calls by every name all the time."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from pointsman.xds.options import ControlPlane, Program
from tests.faults.xds.names import ENV, NAMES, TENANT, UNKNOWN
from tests.faults.xds.records import NOTHING, Answer
from tests.support.xds_clients.clients import XdsClient, wait_for_door, xds_client

# Calls a second by each name.
RATE = 8.0


class Caller:
    """A client, and what it is answered."""

    def __init__(self, client: XdsClient) -> None:
        self.kind = str(client.kind)
        self._client = client
        self._probe = client.probe

    def begin(self) -> None:
        """Call by all names from now on."""
        wait_for_door(self._client)
        for name in NAMES:
            self._client.call(name, "/".join(reversed(name.split("~"))), rate=RATE)

    def lacks(self, backend: str) -> list[str]:
        """Say by which names it does not reach ``backend``; by the one that is unknown it must reach none."""
        found = []
        for name in NAMES:
            last = self._probe.changes(name)[-1:]
            if [each.backend for each in last] != [NOTHING if name == UNKNOWN else backend]:
                found.append(f"{self.kind} of {name}: {last[0] if last else 'no call has ended'}")
        return found

    def answers(self, name: str) -> list[Answer]:
        """Return the answers by a name that were others than the one before."""
        wall = time.time() - time.monotonic()
        return [
            Answer(
                each.began / 1e9 - wall,
                each.at / 1e9 - wall,
                each.code.name,
                each.backend,
                each.text,
                each.last / 1e9 - wall,
            )
            for each in self._probe.changes(name)
        ]

    def counts(self) -> Counter[str]:
        """Return how many calls had which status. Raises OSError or AssertionError where the client has died."""
        found: Counter[str] = Counter()
        for name in NAMES:
            for (code, _), calls in self._probe.summary(name).items():
                found[code.name] += calls
        return found


@contextmanager
def running(kind: Program, address: str) -> Iterator[Caller]:
    """Run a client that asks the servers at an address, until the block ends."""
    with xds_client(kind, ControlPlane((address,)), families=(f"{TENANT}/*/{ENV}",)) as client:
        yield Caller(client)
