"""What a channel reads: which URL the next call goes to."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from pointsman.keys import FamilyKey, RouteKey, as_route_or_family
from pointsman.near_cache.async_near_cache import AsyncNearCache
from pointsman.near_cache.base import BaseNearCache, TableChange
from pointsman.near_cache.near_cache import NearCache
from pointsman.near_cache.table.families import is_family

CacheT = TypeVar("CacheT", bound=BaseNearCache[Any, Any])


class Routes(Protocol):
    """What every channel needs. All methods may be called from any thread, and none of them waits."""

    @property
    def key(self) -> str:
        """``tenant/service/env/version``, or ``tenant/service/env``."""
        ...

    def start(self) -> None:
        """Begin to load what ``urls`` returns, if that has not begun."""

    def find(self, sticky_key: str) -> str | None:
        """Return the URL for a call, or None when the server must be asked. It counts as a read of the route.

        Raises PointsmanError: NotFound if nothing is live.
        """

    def urls(self) -> frozenset[str] | None:
        """Return the URLs that ``find`` may return now, without reading; None if that is not known."""

    def follow(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed``, in any thread, after ``urls`` may have changed. Returns what ends that."""
        ...


class SyncRoutes(Routes, Protocol):
    """What a channel for threads needs besides."""

    def ask(self, sticky_key: str, timeout: float | None) -> str:
        """Ask the server for the URL for a call, for ``timeout`` seconds at most; no longer than its client does."""
        ...


class AsyncRoutes(Routes, Protocol):
    """What a channel for asyncio needs besides."""

    async def ask(self, sticky_key: str, timeout: float | None) -> str:  # noqa: ASYNC109 - goes to the server
        """Do what ``SyncRoutes.ask`` does."""
        ...


class CachedRoutes(Generic[CacheT]):
    """A route or a family in a near-cache: what both kinds of channel share."""

    def __init__(self, cache: CacheT, key: RouteKey | FamilyKey | str) -> None:
        """Raises InvalidArgument for a key that names neither, and ValueError for one that the near-cache lacks."""
        self.cache = cache
        self.key = str(as_route_or_family(key))
        self.family = is_family(self.key)
        self._fresh, self._fresh_select = cache.fast_path.fresh, cache.fast_path.fresh_select
        if not cache.table_reads.covers(self.key):
            raise ValueError(f"the near-cache does not have {self.key}: each call would ask the server")

    def start(self) -> None:
        """See ``Routes.start``."""
        self.cache.start()

    def find(self, sticky_key: str) -> str | None:
        """See ``Routes.find``."""
        fresh = self._fresh_select(self.key, sticky_key) if self.family else self._fresh(self.key)
        if fresh is not None:
            return fresh.url
        self.cache.start()
        reads = self.cache.table_reads
        found = reads.select(self.key, sticky_key) if self.family else reads.resolve(self.key)
        return None if found is None else found.url

    def urls(self) -> frozenset[str] | None:
        """See ``Routes.urls``."""
        return self.cache.table_reads.urls(self.key)

    def follow(self, changed: Callable[[], None]) -> Callable[[], None]:
        """See ``Routes.follow``."""
        prefix = f"{self.key}/"

        def on_change(change: TableChange) -> None:
            keys = change.keys
            if keys is None or any(key == self.key or key.startswith(prefix) for key in keys):
                changed()

        return self.cache.on_change(on_change)


class NearCacheRoutes(CachedRoutes[NearCache]):
    """A route or a family in a near-cache for threads."""

    def ask(self, sticky_key: str, timeout: float | None) -> str:
        """See ``SyncRoutes.ask``."""
        if self.family:
            return self.cache.ask_select(self.key, sticky_key, timeout).url
        return self.cache.ask(self.key, timeout).url


class AsyncNearCacheRoutes(CachedRoutes[AsyncNearCache]):
    """A route or a family in a near-cache for asyncio."""

    async def ask(self, sticky_key: str, timeout: float | None) -> str:  # noqa: ASYNC109 - goes to the server
        """See ``AsyncRoutes.ask``."""
        if self.family:
            return (await self.cache.ask_select(self.key, sticky_key, timeout)).url
        return (await self.cache.ask(self.key, timeout)).url
