"""AsyncNearCache: the table for asyncio."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from pointsman.keys import FamilyKey, RouteKey
from pointsman.near_cache.base import BaseNearCache
from pointsman.near_cache.options import Options
from pointsman.near_cache.table.entries import CachedResolution, Resolved
from pointsman.near_cache.table.fast_path import Select
from pointsman.near_cache.table.selections import CachedSelection, Selected
from pointsman.near_cache.watch.service import RemoteService
from pointsman.results import Resolution
from pointsman.traffic import Selection


class AsyncNearCache(BaseNearCache[None, None]):
    """Made by ``AsyncClient.cached``. Its threads use the synchronous gRPC, beside the event loop and not in it."""

    peek: Callable[[RouteKey | str], CachedResolution | None]
    """Return the live route of a key from the table, or None when the server must be asked: without ``await``.

    Raises RouteNotFound and RouteInactive where the table knows that, and NearCacheStale as ``resolve`` does.
    """

    peek_select: Select[CachedSelection | None]
    """Return the route that a caller is to use, or None when the server must be asked: without ``await``.

    Raises NoActiveVersion and AmbiguousVersion where the table knows that, and NearCacheStale as ``select`` does.
    """

    def __init__(
        self,
        options: Options,
        connect: Callable[[], RemoteService],
        on_close: Callable[[BaseNearCache[None, None]], None],
        call: Callable[..., Awaitable[Resolution]],
        call_select: Callable[..., Awaitable[Selection]],
        call_timeout: float,
    ) -> None:
        """``call`` and ``call_select``: ask the server, for ``call_timeout`` seconds by themselves."""
        super().__init__(options, connect, on_close, call_timeout)
        self._call = call
        self._call_select = call_select
        self.peek = self._fast.resolve
        self.peek_select = self._fast.select

    def _ask(self, key: str) -> None:
        """Leave it to ``resolve``."""

    async def resolve(self, key: RouteKey | str) -> Resolved:
        """See ``NearCache.resolve``. It waits for nothing when the table answers."""
        found = self.peek(key)
        return await self._call(key) if found is None else found

    def _ask_select(self, family: str, sticky_key: str) -> None:
        """Leave it to ``select``."""

    async def select(self, key: FamilyKey | str, sticky_key: str = "") -> Selected:
        """See ``NearCache.select``. It waits for nothing when the table answers."""
        found = self.peek_select(key, sticky_key)
        return await self._call_select(key, sticky_key) if found is None else found

    async def ask(self, key: str, timeout: float | None) -> Resolution:  # noqa: ASYNC109 - goes to the server
        """Ask the server, whatever the table has, for ``timeout`` seconds at most; no longer than its client does."""
        return await self._call(key, timeout=self._within(timeout))

    async def ask_select(self, family: str, sticky_key: str, timeout: float | None) -> Selection:  # noqa: ASYNC109
        """Let the server choose, in the same time."""
        return await self._call_select(family, sticky_key, timeout=self._within(timeout))

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
