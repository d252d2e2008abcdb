"""NearCache: the table for threads."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from pointsman.keys import RouteKey
from pointsman.near_cache.base import BaseNearCache
from pointsman.near_cache.options import Options
from pointsman.near_cache.table.entries import Resolved
from pointsman.near_cache.table.fast_path import Select
from pointsman.near_cache.table.selections import Selected
from pointsman.near_cache.watch.service import RemoteService
from pointsman.results import Resolution
from pointsman.traffic import Selection


class NearCache(BaseNearCache[Resolution, Selection]):
    """Made by ``Client.cached``. Make one, share it between threads, close it at the end (or use ``with``)."""

    resolve: Callable[[RouteKey | str], Resolved]
    """Return the live route of a key: from the table, or from the server where the table cannot answer.

    Raises what ``Client.resolve`` raises, and NearCacheStale where ``on_stale`` is ``"raise"``.
    """

    select: Select[Selected]
    """Return the route that a caller is to use, as ``Client.select`` does: by the traffic in the table, or from the
    server where the table cannot answer. A server of an earlier release knows no traffic: then Unimplemented is raised.

    ``choice`` of the result says which version was chosen, and why. Raises what ``Client.select`` raises, and
    NearCacheStale where ``on_stale`` is ``"raise"``.
    """

    def __init__(
        self,
        options: Options,
        connect: Callable[[], RemoteService],
        on_close: Callable[[BaseNearCache[Resolution, Selection]], None],
        call: Callable[..., Resolution],
        call_select: Callable[..., Selection],
        call_timeout: float,
    ) -> None:
        """``call`` and ``call_select``: ask the server, for ``call_timeout`` seconds by themselves."""
        super().__init__(options, connect, on_close, call_timeout)
        self._call = call
        self._call_select = call_select
        self.resolve = self._fast.resolve
        self.select = self._fast.select

    def _ask(self, key: str) -> Resolution:
        return self._call(key)

    def _ask_select(self, family: str, sticky_key: str) -> Selection:
        return self._call_select(family, sticky_key)

    def ask(self, key: str, timeout: float | None) -> Resolution:
        """Ask the server, whatever the table has, for ``timeout`` seconds at most; no longer than its client does."""
        return self._call(key, timeout=self._within(timeout))

    def ask_select(self, family: str, sticky_key: str, timeout: float | None) -> Selection:
        """Let the server choose, in the same time."""
        return self._call_select(family, sticky_key, timeout=self._within(timeout))

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until every watch has brought everything, for ``timeout`` seconds at most. Returns whether it has."""
        return self._wait_ready(timeout)

    def close(self) -> None:
        """End every thread and the connection, and write the disk once more."""
        self.shut_down()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
