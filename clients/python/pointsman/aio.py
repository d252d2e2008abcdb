"""AsyncClient: the API for asyncio. Every method is the one of Client, awaited. ``channel``: a gRPC channel."""

# ruff: noqa: ASYNC109 - the timeout is a gRPC deadline: it goes to the server and bounds the retries too.

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pointsman import chunks
from pointsman.chunks import Chunk, Importable
from pointsman.connection.tls import PathLike
from pointsman.keys import RouteKey, as_key
from pointsman.methods.async_change_sets import AsyncChangeSetMethods
from pointsman.methods.async_selection import AsyncSelectionMethods
from pointsman.methods.async_traffic import AsyncTrafficMethods
from pointsman.results import (
    Activation,
    BatchResult,
    Change,
    Consistency,
    Existing,
    ImportResult,
    Resolution,
    Route,
)
from pointsman.rpc import operations, requests
from pointsman.rpc.requests import Moment
from pointsman.rpc.session import left_out, newer
from pointsman.rpc.streams import events
from pointsman.rpc.trace_context import trace_metadata
from pointsman.v1.watch_pb2 import WatchRequest, WatchResponse

if TYPE_CHECKING:
    from pointsman.channels.aio.channel import channel as channel
    from pointsman.near_cache.async_near_cache import AsyncNearCache
    from pointsman.near_cache.options import OnStale
    from pointsman.watchers import Propagation, Usage


def __getattr__(name: str) -> object:
    """Load ``channel`` on first use: most programs have none."""
    if name != "channel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pointsman.channels.aio.channel import channel

    return channel


class AsyncClient(AsyncSelectionMethods, AsyncTrafficMethods, AsyncChangeSetMethods):
    """A connection to Pointsman. Make one for each event loop, share it between tasks, use ``async with``.

    The arguments, the rules and the errors are those of ``pointsman.Client``; the function that returns the token may
    be asynchronous, and its time counts towards the timeout of the call. The connection belongs to the event loop of
    the first call; the client itself may be made before there is a loop.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection and the near-caches. Calls under way end as cancelled."""
        for near_cache in self._session.near_caches:
            await asyncio.to_thread(near_cache.shut_down)
        await self._channel.close()

    async def resolve(
        self,
        key: RouteKey | str,
        *,
        min_revision: int | None = None,
        epoch: str = "",
        consistency: Consistency = Consistency.MINIMIZE_LATENCY,
        timeout: float | None = None,
    ) -> Resolution:
        """See ``Client.resolve``."""
        name = as_key(key)
        request = requests.resolve(name, self._session.floor(name, min_revision, epoch), consistency)
        return await self._call(operations.RESOLVE, request, timeout)

    async def batch_resolve(
        self,
        keys: Iterable[RouteKey | str],
        *,
        min_revision: int | None = None,
        epoch: str = "",
        consistency: Consistency = Consistency.MINIMIZE_LATENCY,
        timeout: float | None = None,
    ) -> tuple[BatchResult, ...]:
        """See ``Client.batch_resolve``."""
        floor = self._session.floor_of_all(min_revision, epoch)
        seconds_left = self._session.countdown(timeout)
        results: tuple[BatchResult, ...] = ()
        for request in requests.batch_resolve(keys, floor, consistency):
            found = await self._call(operations.BATCH_RESOLVE, request, seconds_left())
            while rest := left_out(found):
                [more] = requests.batch_resolve(rest, floor, consistency)
                found = newer(found, await self._call(operations.BATCH_RESOLVE, more, seconds_left()))
            for late in requests.batch_resolve(*self._session.again(found, min_revision), consistency):
                found = newer(found, await self._call(operations.BATCH_RESOLVE, late, seconds_left()))
            results += found
        return results

    def cached(
        self,
        *,
        tenants: Iterable[str] | None = None,
        service: str = "",
        env: str = "",
        path: PathLike | None = None,
        max_stale: float = 30.0,
        on_stale: "OnStale" = "call",
        name: str = "",
    ) -> "AsyncNearCache":
        """See ``Client.cached``. Call it in the event loop if the function that returns the token is asynchronous."""
        from pointsman.near_cache.async_near_cache import AsyncNearCache
        from pointsman.near_cache.options import options

        chosen = options(tenants, service, env, path, max_stale, on_stale, name)
        ask = (self.resolve, self.select, self._session.timeout)
        near_cache = AsyncNearCache(chosen, self._near_cache_service(), self._leave, *ask)
        self._session.near_caches += (near_cache,)
        return near_cache

    async def create(
        self,
        key: RouteKey | str,
        url: str,
        *,
        labels: Mapping[str, str] | None = None,
        active: bool = True,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> Route:
        """See ``Client.create``."""
        request = requests.create(key, url, labels, active, request_id, reason)
        return await self._call(operations.CREATE, request, timeout)

    async def update(
        self,
        key: RouteKey | str,
        *,
        url: str | None = None,
        labels: Mapping[str, str] | None = None,
        expected_revision: int = 0,
        allow_missing: bool = False,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> Route:
        """See ``Client.update``."""
        request = requests.update(key, url, labels, expected_revision, allow_missing, request_id, reason)
        return await self._call(operations.UPDATE, request, timeout)

    async def activate(
        self,
        key: RouteKey | str,
        *,
        expected_revision: int = 0,
        exclusive: bool = False,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> Activation:
        """See ``Client.activate``."""
        request = requests.activate(key, expected_revision, exclusive, request_id, reason)
        return await self._call(operations.ACTIVATE, request, timeout)

    async def deactivate(
        self,
        key: RouteKey | str,
        *,
        expected_revision: int = 0,
        if_unused_for: timedelta | None = None,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> Route:
        """See ``Client.deactivate``."""
        request = requests.deactivate(key, expected_revision, request_id, reason, if_unused_for)
        return await self._call(operations.DEACTIVATE, request, timeout)

    async def delete(
        self,
        key: RouteKey | str,
        *,
        expected_revision: int = 0,
        if_unused_for: timedelta | None = None,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> int:
        """See ``Client.delete``."""
        request = requests.delete(key, expected_revision, request_id, reason, if_unused_for)
        return await self._call(operations.DELETE, request, timeout)

    async def import_routes(
        self,
        routes: Iterable[Importable],
        *,
        existing: Existing = Existing.UPDATE,
        import_id: str = "",
        reason: str = "",
        concurrency: int = chunks.CONCURRENCY,
        done: Callable[[ImportResult], object] | None = None,
        timeout: float = chunks.TIMEOUT,
    ) -> ImportResult:
        """See ``Client.import_routes``."""
        total = ImportResult()
        calls: deque[asyncio.Task[ImportResult]] = deque()
        try:
            for chunk in chunks.made(routes, existing, import_id, reason):
                calls.append(asyncio.create_task(self.import_chunk(chunk, timeout)))
                if len(calls) >= concurrency:
                    total = chunks.added(total, await calls.popleft(), done)
                else:
                    await asyncio.sleep(0)  # the call goes out while the next chunk is made
            while calls:
                total = chunks.added(total, await calls.popleft(), done)
        finally:
            # Calls in flight end before this returns, so that none continues unobserved.
            await asyncio.gather(*calls, return_exceptions=True)
        return total

    async def import_chunk(self, chunk: Chunk, timeout: float = chunks.TIMEOUT) -> ImportResult:
        """See ``Client.import_chunk``."""
        with chunk.named():
            return await self._call(operations.IMPORT, chunk.request, timeout)

    async def get(self, key: RouteKey | str, *, as_of: Moment | None = None, timeout: float | None = None) -> Route:
        """See ``Client.get``."""
        return await self._call(operations.get(as_of), requests.get(key, as_of), timeout)

    def list(
        self,
        *,
        tenant: str = "",
        service: str = "",
        env: str = "",
        active: bool | None = None,
        as_of: Moment | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncIterator[Route]:
        """See ``Client.list``."""
        request = requests.list_routes(tenant, service, env, active, page_size, as_of)
        return self._pages(operations.list_routes(as_of), request, timeout)

    def changes(
        self,
        *,
        tenant: str = "",
        service: str = "",
        env: str = "",
        version: str = "",
        after_revision: int = 0,
        before_revision: int = 0,
        after_time: datetime | None = None,
        before_time: datetime | None = None,
        actor: str = "",
        newest_first: bool = False,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncIterator[Change]:
        """See ``Client.changes``."""
        request = requests.list_changes(
            tenant,
            service,
            env,
            version,
            after_revision,
            before_revision,
            actor,
            newest_first,
            page_size,
            after_time,
            before_time,
        )
        return self._pages(operations.list_changes(after_time, before_time), request, timeout)

    async def get_propagation(
        self, revision: int, *, tenant: str = "", service: str = "", env: str = "", timeout: float | None = None
    ) -> "Propagation":
        """See ``Client.get_propagation``."""
        request = requests.get_propagation(revision, tenant, service, env)
        return await self._call(operations.GET_PROPAGATION, request, timeout)

    async def get_usage(self, key: RouteKey | str, *, timeout: float | None = None) -> "Usage":
        """See ``Client.get_usage``."""
        return await self._call(operations.GET_USAGE, requests.get_usage(key), timeout)

    async def watch_events(self, request: WatchRequest) -> AsyncIterator[WatchResponse]:
        """See ``Client.watch_events``. To close the stream, close the iterator."""
        token = await self._session.bearer.token_within(self._session.countdown(None)())
        metadata = ((("authorization", f"Bearer {token}"),) if token else ()) + trace_metadata()
        return events(self._session, self._stub.Watch(request, metadata=metadata))
