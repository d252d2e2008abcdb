"""Both ends of a stream without a transport."""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import Window
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.stream import Observer, Stream
from tests.support.xds_world import World, request


class WatchedWorld(World):
    """A world that notes who watches what, and tells of changes when it is flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[str, None] = {}
        self.watches_all = self.left = False
        self.news: dict[str, None] = {}
        self.clock = Clock("e", 10)
        self.advanced = asyncio.Event()

    async def reached(self, clock: Clock) -> None:
        await self.advanced.wait()
        assert not self.clock.is_before(clock)

    def watch(self, _stream: Stream, root: str) -> None:
        self.watched[root] = None

    def unwatch(self, _stream: Stream, root: str) -> None:
        del self.watched[root]

    def watch_all(self, _stream: Stream) -> None:
        self.watches_all = True

    def flush(self, stream: Stream) -> None:
        roots, self.news = self.news, {}
        if roots:
            stream.changed(tuple(roots))

    def has_news(self, _stream: Stream) -> bool:
        return bool(self.news)

    def leave(self, _stream: Stream) -> None:
        self.left = True
        self.watched = {}

    def set(self, root: str, **values: int) -> Collection[str]:
        changed = super().set(root, **values)
        self.news |= dict.fromkeys(changed)
        return changed


class Listener:
    """A stream that notes what its source tells it."""

    def __init__(self) -> None:
        self.roots: list[set[str]] = []
        self.checks = 0
        self.woken = 0

    def wake(self, window: Window) -> None:
        assert isinstance(window, Window)
        self.woken += 1

    def changed(self, roots: Collection[str]) -> None:
        self.roots.append(set(roots))

    def check(self) -> None:
        self.checks += 1


class Transport:
    """Gives requests, and takes responses: as many as ``room`` lets it, like one whose client does not read."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.responses: asyncio.Queue[Any] = asyncio.Queue()
        self.room = asyncio.Event()
        self.room.set()
        self.error: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (said := await self.requests.get()) is not None:
            yield said

    async def write(self, body: bytes) -> None:
        self.responses.put_nowait(pb.DiscoveryResponse.FromString(body))
        if self.error:
            raise self.error
        await self.room.wait()

    def ask(self, kind: str, *names: str, nonce: str = "", error: str | None = None) -> None:
        self.requests.put_nowait(request(kind, *names, nonce=nonce, error=error))

    def end(self) -> None:
        self.requests.put_nowait(None)

    async def read(self) -> Any:
        async with asyncio.timeout(10):
            return await self.responses.get()


class Notes(Observer):
    """Notes what streams do."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.seconds: list[float] = []

    def opened(self, _stream: Stream) -> None:
        self.notes.append(("opened",))

    def closed(self, _stream: Stream) -> None:
        self.notes.append(("closed",))

    def pushed(self, _stream: Stream, kind: ResourceType) -> None:
        self.notes.append(("pushed", kind))

    def acknowledged(self, _stream: Stream, kind: ResourceType, seconds: float) -> None:
        self.notes.append(("acknowledged", kind))
        self.seconds.append(seconds)

    def refused(self, _stream: Stream, kind: ResourceType, text: str) -> None:
        self.notes.append(("refused", kind, text))
