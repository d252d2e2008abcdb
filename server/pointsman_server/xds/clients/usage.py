"""Counts the clients that are connected as readers of the routes that they are led to."""

import asyncio
from collections.abc import Callable, Collection

from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.identity import Scope
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.usage import FLUSH_SECONDS
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.xds.clients.registry import Clients, Connected
from pointsman_server.xds.clients.visibility import roots_of
from pointsman_server.xds.names import key_of
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.stream import Observer, Stream
from pointsman_server.xds.targets import Verdict

# Names that are counted in a turn: a fraction of a millisecond.
COUNTED_IN_A_TURN = 50
# Clients between two pauses.
COUNTED_AT_ONCE = 10


class XdsUsage(Observer):
    """Each client counts as one read of each such route when it asks for it, and again every FLUSH_SECONDS.

    A fallback that is not used is not read.
    """

    def __init__(
        self, clients: Clients, counts: ReadCounts, snapshot: Callable[[], ResourceSnapshot], fair_share: FairShare
    ) -> None:
        self._clients = clients
        self._counts = counts
        self._snapshot = snapshot
        self._fair_share = fair_share

    def subscribed(self, stream: Stream, roots: Collection[str]) -> None:
        self._count(stream, roots)

    async def run(self) -> None:
        """Count each client every ``FLUSH_SECONDS``, a few at a time, until cancelled.

        To count thousands together would take a tenth of a second, in which other calls take longer.
        """
        while True:
            clients = tuple(self._clients)
            parts = max(1, len(clients) // COUNTED_AT_ONCE)
            for part in range(parts):
                await asyncio.sleep(FLUSH_SECONDS / parts)
                for client in clients[part::parts]:
                    await self._count_all(client)

    async def _count_all(self, client: Connected) -> None:
        roots = roots_of(client) if client.stream in self._clients else ()
        for start in range(0, len(roots), COUNTED_IN_A_TURN):
            await self._fair_share.take()
            self._count(client.stream, roots[start : start + COUNTED_IN_A_TURN])

    def _count(self, stream: Stream, roots: Collection[str]) -> None:
        snapshot, caller = self._snapshot(), stream.client.caller
        subject = caller.subject
        for root in roots:
            key, target = key_of(root), snapshot.target(root)
            if key is None or target.verdict is not Verdict.LIVE or not caller.may_read(Scope(key.tenant, key.env)):
                continue
            # One without a weight has the version of the first.
            for version in {slot.version for slot in target.slots}:
                self._counts.add(key_to_bytes(key._replace(version=version)), subject, 1)
