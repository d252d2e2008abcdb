"""AsyncNearCache: the table for asyncio."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from pointsman.keys import RouteKey
from pointsman.near_cache.base import BaseNearCache
from pointsman.near_cache.options import Options
from pointsman.near_cache.table.entries import CachedResolution, Resolved
from pointsman.near_cache.watch.service import RemoteService
from pointsman.results import Resolution


class AsyncNearCache(BaseNearCache[None]):
    """Made by ``AsyncClient.cached``. Its threads use the synchronous gRPC, beside the event loop and not in it."""

    peek: Callable[[RouteKey | str], CachedResolution | None]
    """Return the live route of a key from the table, or None when the server must be asked: without ``await``.

    Raises RouteNotFound and RouteInactive where the table knows that, and NearCacheStale as ``resolve`` does.
    """

    def __init__(
        self,
        options: Options,
        connect: Callable[[], RemoteService],
        on_close: Callable[[BaseNearCache[None]], None],
        call: Callable[[RouteKey | str], Awaitable[Resolution]],
    ) -> None:
        """``call``: asks the server."""
        super().__init__(options, connect, on_close)
        self._call = call
        self.peek = self._fast.resolve

    def _ask(self, key: str) -> None:
        """Leave it to ``resolve``."""

    async def resolve(self, key: RouteKey | str) -> Resolved:
        """See ``NearCache.resolve``. It waits for nothing when the table answers."""
        found = self.peek(key)
        return await self._call(key) if found is None else found

    async def wait_ready(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - of the other client, too
        """See ``NearCache.wait_ready``."""
        return await asyncio.to_thread(self._wait_ready, timeout)

    async def close(self) -> None:
        """See ``NearCache.close``."""
        await asyncio.to_thread(self.shut_down)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
