"""``pointsman.aio.channel``: a gRPC channel to the URL that is live, for asyncio."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from pointsman.channels import garbage
from pointsman.channels.addresses import address_of
from pointsman.channels.aio import callables
from pointsman.channels.aio.dispatch import AsyncDispatch
from pointsman.channels.backends import Backend, Backends
from pointsman.channels.connectivity import aggregate
from pointsman.channels.options import (
    DRAIN_SECONDS,
    BackendOptions,
    Metadata,
    StickyKey,
    checked_drain,
    sticky_key_source,
)
from pointsman.channels.routes import AsyncNearCacheRoutes, AsyncRoutes
from pointsman.errors import PointsmanError
from pointsman.keys import FamilyKey, RouteKey, as_route_or_family

if TYPE_CHECKING:
    from pointsman.aio import AsyncClient
    from pointsman.near_cache.async_near_cache import AsyncNearCache


def channel(
    key: RouteKey | FamilyKey | str,
    *,
    cache: "AsyncNearCache | None" = None,
    client: "AsyncClient | None" = None,
    sticky_key: StickyKey = "",
    credentials: grpc.ChannelCredentials | None = None,
    plaintext: bool = True,
    options: Sequence[tuple[str, Any]] = (),
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    drain_seconds: float = DRAIN_SECONDS,
) -> "AsyncRouteChannel":
    """Return a ``grpc.aio.Channel`` whose calls go to the URL that is live for ``key``.

    The arguments and the errors are those of ``pointsman.channel``, but for two: ``interceptors`` are those of
    ``grpc.aio.insecure_channel``, and see calls that have a backend; and it does not survive a fork, as no channel of
    ``grpc.aio`` does: make it in the child. It belongs to the event loop of the first call.
    """
    text = str(as_route_or_family(key))
    if cache is not None and client is not None:
        raise ValueError("give cache or client, not both")
    checked_drain(drain_seconds)
    on_close: list[Callable[[], Awaitable[object]]] = []
    own = cache is None
    if cache is None:
        if client is None:
            from pointsman.aio import AsyncClient

            client = AsyncClient.from_environment()
            on_close.append(client.close)
        tenant, service, env = text.split("/")[:3]
        cache = client.cached(tenants=[tenant], service=service, env=env, on_stale="serve")
        on_close.insert(0, cache.close)
    made = AsyncRouteChannel(
        AsyncNearCacheRoutes(cache, text),
        partial(open_backend, BackendOptions(credentials, plaintext, options, compression, interceptors)),
        sticky_key=sticky_key_source(sticky_key),
        drain_seconds=drain_seconds,
        on_close=on_close,
    )
    if own:
        garbage.shut_down_with(made, cache)
    return made


def open_backend(chosen: BackendOptions, url: str) -> grpc.aio.Channel:
    """Return a channel to a URL. Raises FailedPrecondition if gRPC cannot carry it."""
    address = address_of(url, plaintext=chosen.plaintext)
    rest: dict[str, Any] = {
        "options": chosen.options,
        "compression": chosen.compression,
        "interceptors": list(chosen.interceptors),
    }
    if address.secure:
        return grpc.aio.secure_channel(address.target, chosen.tls(), **rest)
    return grpc.aio.insecure_channel(address.target, **rest)


class AsyncRouteChannel(grpc.aio.Channel):
    """A gRPC channel over others, one for each URL in use, in one event loop."""

    def __init__(
        self,
        routes: AsyncRoutes,
        open_channel: Callable[[str], grpc.aio.Channel],
        *,
        sticky_key: Callable[[Metadata | None], str],
        drain_seconds: float,
        on_close: Sequence[Callable[[], Awaitable[object]]] = (),
    ) -> None:
        """``open_channel``: opens a channel to a URL. ``on_close``: awaited in this order at the end of ``close``."""
        self._routes = routes
        self._open_channel = open_channel
        self._on_close = on_close
        self._backends: Backends[grpc.aio.Channel] = Backends(self._open, self._wake, drain_seconds=drain_seconds)
        self._dispatch = AsyncDispatch(routes, self._backends, sticky_key)
        # Held while changes are taken over, so that of two the later one is the last.
        self._changing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._changed: asyncio.Event | None = None
        self._unfollow = garbage.follow(routes, self._on_change)

    # grpc.aio.Channel

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> callables.UnaryUnary:
        return callables.UnaryUnary(self._dispatch, lambda channel: channel.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> callables.UnaryStream:
        return callables.UnaryStream(self._dispatch, lambda channel: channel.unary_stream(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> callables.StreamUnary:
        return callables.StreamUnary(self._dispatch, lambda channel: channel.stream_unary(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> callables.StreamStream:
        return callables.StreamStream(self._dispatch, lambda channel: channel.stream_stream(method, *args, **kwargs))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the backends that calls go to now: READY if any is.

        TRANSIENT_FAILURE: none can be reached, or nothing is live. ``try_to_connect`` begins to connect.
        """
        return self._state(try_to_connect)[0]

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait for another state. Raises UsageError if there will be none, as the channel is closed."""
        while True:
            self._changed = changed = asyncio.Event() if self._changed is None else self._changed
            state, states = self._state(connects=False)
            if state is not last_observed_state:
                return
            self._dispatch.check_open()
            waits: list[Coroutine[Any, Any, Any]] = [changed.wait()]
            waits += [backend.channel.wait_for_state_change(each) for backend, each in states.items()]
            tasks = [asyncio.ensure_future(each) for each in waits]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()

    async def channel_ready(self) -> None:
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """Wait for the calls in flight for ``grace`` seconds, cancel the rest, and close what it opened.

        The near-cache too, if it made that.
        """
        if self._backends.closed:
            return
        self._unfollow()
        backends = self._backends.close()
        self._tell()
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*(each.channel.close(grace) for each in backends), *self._closing)
        for each in self._on_close:
            await each()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._routes.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _state(
        self, connects: bool
    ) -> tuple[grpc.ChannelConnectivity, dict[Backend[grpc.aio.Channel], grpc.ChannelConnectivity]]:
        """Return the state of all, and those of the backends that calls go to now."""
        if self._backends.closed:
            return grpc.ChannelConnectivity.SHUTDOWN, {}
        self._loop = self._loop or asyncio.get_running_loop()
        if connects:
            self._routes.start()
        urls = self._routes.urls()
        for url in (urls or ()) if connects else ():
            with suppress(PointsmanError):
                self._backends.open(url)
        states = {each: each.channel.get_state(connects) for each in self._backends.current()}
        return aggregate(states.values(), live=urls is None or bool(urls)), states

    def _open(self, url: str) -> grpc.aio.Channel:
        self._loop = self._loop or asyncio.get_running_loop()
        self._tell()
        return self._open_channel(url)

    # Changes, in any thread

    def _on_change(self) -> None:
        """Let go of the backends that calls no longer go to."""
        with self._changing:
            urls = self._routes.urls()
            if urls is not None:
                self._backends.want(urls)
        self._in_loop(self._tell)

    def _wake(self) -> None:
        self._in_loop(self._close_due)

    def _in_loop(self, callback: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(callback)

    # In the event loop

    def _tell(self) -> None:
        """Let those go on that wait for a change."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _close_due(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._backends.closed:
            return
        ended, seconds = self._backends.due()
        for backend in ended:
            task = asyncio.ensure_future(backend.channel.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._close_due)
