"""Counts xDS clients among the watchers that ``GetPropagation`` asks: their acknowledgements are their reports."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from pointsman_server.domain.errors import RetryLater
from pointsman_server.domain.identity import Scope
from pointsman_server.events.receipts.receipts import Receipts
from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import OpenWatch, WatchName
from pointsman_server.xds.clients.registry import Clients, Connected
from pointsman_server.xds.clients.visibility import roots_of
from pointsman_server.xds.names import key_of
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.stream import Observer, Stream

# Between two looks at the clients that lack what somebody asks about, and how long these go on after a question.
LOOK_SECONDS = 0.05
ASKED_SECONDS = 20.0
# Families of a client; of one that asks for more, the others are not counted.
MOST_WATCHES = 100
REPORTED_AT_ONCE = 100


class XdsReceipts(Observer):
    """Registers each client as a watch of each family that it asks for and may read.

    Clients are looked at only while somebody asks: those that are idle cost nothing.
    """

    def __init__(self, clients: Clients, receipts: Receipts, clock: Callable[[], Clock]) -> None:
        """``clock``: as of when what is served is true."""
        self._clients = clients
        self._receipts = receipts
        self._clock = clock
        self._watches: dict[Stream, Sequence[OpenWatch]] = {}
        # What each client is known to have by all servers.
        self._reported: dict[Stream, Clock] = {}
        self._wanted = 0
        self._give_up = 0.0
        self._work = asyncio.Event()

    @property
    def epoch(self) -> str:
        """The epoch of what is served."""
        return self._clock().epoch

    def request_progress(self, revision: int) -> None:
        """Report each client that has ``revision``, now or soon."""
        self._wanted = revision
        self._give_up = time.monotonic() + ASKED_SECONDS
        self._work.set()

    def subscribed(self, stream: Stream, roots: Collection[str]) -> None:
        self.register(stream)

    def acknowledged(self, stream: Stream, kind: ResourceType, seconds: float) -> None:
        # One that asks for all has other names after some changes.
        if kind is ResourceType.CDS and stream.session.wants_all:
            self.register(stream)

    def closed(self, stream: Stream) -> None:
        self._reported.pop(stream, None)
        for watch in self._watches.pop(stream, ()):
            self._receipts.close(watch)

    def register(self, stream: Stream) -> None:
        """Register what a client watches now, which another policy may change, too."""
        client = self._clients.of(stream)
        before = {watch.name: watch for watch in self._watches.get(stream, ())}
        opened = datetime.fromtimestamp(stream.client.opened, UTC)
        after = {name: before.get(name) or _watch(client, name, opened) for name in self._names(client)}
        for name in before.keys() - after.keys():
            self._receipts.close(before[name])
        for name in after.keys() - before.keys():
            self._receipts.open(after[name])
            self._reported.pop(stream, None)
        self._watches[stream] = tuple(after.values())

    async def run(self) -> None:
        """Report clients while somebody asks, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            while time.monotonic() < self._give_up and (behind := self._behind()):
                await self._report(behind)
                await asyncio.sleep(LOOK_SECONDS)

    def _behind(self) -> list[Connected]:
        """Return the clients that are not known to have what is wanted."""
        watching = [stream for stream, watches in self._watches.items() if watches]
        return [self._clients.of(stream) for stream in watching if not self._has_wanted(self._reported.get(stream))]

    async def _report(self, clients: Sequence[Connected]) -> None:
        """Report those of the clients that have what is wanted."""
        for start in range(0, len(clients), REPORTED_AT_ONCE):
            some = clients[start : start + REPORTED_AT_ONCE]
            ready = [client for client in some if self._has_wanted(client.acknowledged)]
            await asyncio.gather(*map(self._report_one, ready))
            # To look at two thousand takes some milliseconds.
            await asyncio.sleep(0)

    async def _report_one(self, client: Connected) -> None:
        stream, applied = client.stream, client.acknowledged
        watches = self._watches.get(stream)
        if watches is None or applied is None:
            return
        known = False
        with suppress(RetryLater):
            known = await self._receipts.note([watch.name for watch in watches], applied)
        if known and self._watches.get(stream) is watches:
            self._reported[stream] = applied

    def _has_wanted(self, applied: Clock | None) -> bool:
        return applied is not None and applied.epoch == self.epoch and applied.revision >= self._wanted

    def _names(self, client: Connected) -> Iterator[WatchName]:
        described = client.stream.client
        families: dict[tuple[str, str, str], None] = {}
        for family in _families(client):
            families[family] = None
            if len(families) == MOST_WATCHES:
                break
        identifier = f"xds-{self._clients.name_of(client)}"
        for tenant, service, env in families:
            yield WatchName(identifier, described.caller.subject, tenant, service, env)


def _watch(client: Connected, name: WatchName, opened: datetime) -> OpenWatch:
    described = client.stream.client
    return OpenWatch(name, described.node or described.agent, described.peer, opened)


def _families(client: Connected) -> Iterator[tuple[str, str, str]]:
    """Return the tenant, service and env of each family that a client asks for and may read; an empty part is any."""
    described = client.stream.client
    may_read = described.caller.may_read
    if client.stream.session.wants_all:
        split = [pattern.replace("*", "").split("/") for pattern in described.view.families or ("*/*/*",)]
        patterns = [(parts[0], parts[1], parts[2]) for parts in split if len(parts) == 3]
        if all(may_read(Scope(tenant, env)) for tenant, _, env in patterns):
            yield from patterns
            return
    for root in roots_of(client):
        key = key_of(root)
        if key is not None and may_read(Scope(key.tenant, key.env)):
            yield key.tenant, key.service, key.env
