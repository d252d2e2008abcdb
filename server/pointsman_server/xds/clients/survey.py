"""Sets the gauges of names that cannot be served to all clients, every few seconds."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain

from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.xds.clients.registry import Clients, Connected
from pointsman_server.xds.clients.visibility import roots_of
from pointsman_server.xds.resources.envoy import collisions
from pointsman_server.xds.resources.verdicts import verdict_of
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.table import Table
from pointsman_server.xds.targets import Verdict
from pointsman_server.xds.views import ClientKind

SURVEY_SECONDS = 15.0
# Names that are looked at in a turn: a fraction of a millisecond.
LOOKED_AT_IN_A_TURN = 50
FAMILIES_IN_A_TURN = 500
CLIENTS_IN_A_TURN = 10


class Survey:
    """Sets the gauges of names that differ in case alone, and of those with a URL that clients cannot be led to."""

    def __init__(
        self, clients: Clients, snapshot: Callable[[], ResourceSnapshot], metrics: Metrics, fair_share: FairShare
    ) -> None:
        self._clients = clients
        self._snapshot = snapshot
        self._metrics = metrics
        self._fair_share = fair_share
        self._compared: Clock | None = None

    async def run(self) -> None:
        """Set the gauges every ``SURVEY_SECONDS``, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(SURVEY_SECONDS)

    async def look(self) -> None:
        """Set the gauges."""
        not_carried = await self._not_carried()
        for kind in ClientKind:
            self._metrics.xds_not_carried.labels(kind).set(not_carried[kind])
        snapshot = self._snapshot()
        if snapshot.clock != self._compared:
            self._compared = snapshot.clock
            roots = await self._roots(snapshot.table)
            # In a thread: for 100,000 routes it takes a tenth of a second.
            self._metrics.xds_collisions.set(len(await asyncio.to_thread(collisions, roots)))

    async def _roots(self, table: Table) -> Sequence[str]:
        """Return all names, in turns with other work: some may change meanwhile, and are looked at the next time."""
        families = list(table.families())

        def versions(family: str) -> Sequence[str]:
            return [f"{version}~{family}" for version in table.versions(family)]

        found = await self._fair_share.map(versions, families, size=FAMILIES_IN_A_TURN)
        return [*families, *chain.from_iterable(found)]

    async def _not_carried(self) -> Counter[ClientKind]:
        asked: dict[tuple[ClientKind, str], None] = {}

        def ask(client: Connected) -> None:
            asked.update(dict.fromkeys((client.stream.client.view.kind, root) for root in roots_of(client)))

        def is_not_carried(one: tuple[ClientKind, str]) -> bool:
            kind, root = one
            return verdict_of(kind, self._snapshot().target(root)) is Verdict.NOT_CARRIED

        await self._fair_share.map(ask, tuple(self._clients), size=CLIENTS_IN_A_TURN)
        names = tuple(asked)
        found = await self._fair_share.map(is_not_carried, names, size=LOOKED_AT_IN_A_TURN)
        return Counter(kind for (kind, _), refused in zip(names, found, strict=True) if refused)
