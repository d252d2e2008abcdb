"""``pointsman.channel``: a gRPC channel to the URL that is live, for threads."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from pointsman.channels import callables, garbage
from pointsman.channels.addresses import address_of
from pointsman.channels.backends import Backends
from pointsman.channels.connectivity import Connectivity
from pointsman.channels.dispatch import Dispatch
from pointsman.channels.options import (
    DRAIN_SECONDS,
    BackendOptions,
    Metadata,
    StickyKey,
    checked_drain,
    sticky_key_source,
)
from pointsman.channels.reaper import Reaper
from pointsman.channels.routes import NearCacheRoutes, SyncRoutes
from pointsman.errors import PointsmanError
from pointsman.keys import FamilyKey, RouteKey, as_route_or_family
from pointsman.near_cache import forks

if TYPE_CHECKING:
    from pointsman.client import Client
    from pointsman.near_cache.near_cache import NearCache

CLOSE_SECONDS = 5.0


def channel(
    key: RouteKey | FamilyKey | str,
    *,
    cache: "NearCache | None" = None,
    client: "Client | None" = None,
    sticky_key: StickyKey = "",
    credentials: grpc.ChannelCredentials | None = None,
    plaintext: bool = True,
    options: Sequence[tuple[str, Any]] = (),
    compression: grpc.Compression | None = None,
    interceptors: Sequence[Any] = (),
    drain_seconds: float = DRAIN_SECONDS,
) -> grpc.Channel:
    """Return a gRPC channel whose calls go to the URL that is live for ``key``; it follows cut-overs by itself.

    Args:
        key: ``tenant/service/env/version``, a route; or ``tenant/service/env``, whose traffic then divides the calls
            as ``NearCache.select`` does.
        cache: the near-cache that it reads, which stays open. Without one it makes one for the service of ``key``,
            which serves what it last knew for as long as no server can be reached.
        client: makes that near-cache; it stays open. Without one: ``Client.from_environment()``.
        sticky_key: keeps a caller at its version, where traffic divides the calls: one for all calls, or a function
            that returns the one of a call by its metadata.
        credentials: for backends by https or grpcs; by default the authorities that gRPC trusts. The certificate must
            be of the URL's host.
        plaintext: whether backends by http or grpc are called; False refuses them.
        options: of the channels to the backends, as of ``grpc.insecure_channel``.
        compression: the same.
        interceptors: as of ``grpc.intercept_channel``: they see each call once, and those without a backend too.
        drain_seconds: how long calls may go on at a URL that is no longer live. Then they end as CANCELLED.

    A call fails with NOT_FOUND if nothing is live, with FAILED_PRECONDITION if the URL has a path or a scheme
    besides these four, and otherwise with the status of ``NearCache.resolve``; no backend has seen it then. The
    ``grpc.RpcError`` has the PointsmanError as its ``__cause__``. It connects with the first call, and must be closed.

    Raises InvalidArgument for a key that is none, and ValueError or TypeError for arguments that make no sense.
    """
    text = str(as_route_or_family(key))
    if cache is not None and client is not None:
        raise ValueError("give cache or client, not both")
    checked_drain(drain_seconds)
    on_close: list[Callable[[], object]] = []
    own = cache is None
    if cache is None:
        if client is None:
            from pointsman.client import Client

            client = Client.from_environment()
            on_close.append(client.close)
        tenant, service, env = text.split("/")[:3]
        cache = client.cached(tenants=[tenant], service=service, env=env, on_stale="serve")
        on_close.insert(0, cache.close)
    made: grpc.Channel = RouteChannel(
        NearCacheRoutes(cache, text),
        partial(open_backend, BackendOptions(credentials, plaintext, options, compression)),
        sticky_key=sticky_key_source(sticky_key),
        drain_seconds=drain_seconds,
        on_close=on_close,
    )
    if own:
        garbage.shut_down_with(made, cache)
    return grpc.intercept_channel(made, *interceptors) if interceptors else made


def open_backend(chosen: BackendOptions, url: str) -> grpc.Channel:
    """Return a channel to a URL. Raises FailedPrecondition if gRPC cannot carry it."""
    address = address_of(url, plaintext=chosen.plaintext)
    if address.secure:
        return grpc.secure_channel(address.target, chosen.tls(), chosen.options, chosen.compression)
    return grpc.insecure_channel(address.target, chosen.options, chosen.compression)


class RouteChannel(grpc.Channel):
    """A gRPC channel over others, one for each URL in use. Safe to use from several threads.

    It survives a fork while none of its calls is in flight, as its near-cache does: its connections are closed before,
    and parent and child connect anew with their next calls.
    """

    def __init__(
        self,
        routes: SyncRoutes,
        open_channel: Callable[[str], grpc.Channel],
        *,
        sticky_key: Callable[[Metadata | None], str],
        drain_seconds: float,
        on_close: Sequence[Callable[[], object]] = (),
    ) -> None:
        """``open_channel``: opens a channel to a URL. ``on_close``: called in this order at the end of ``close``."""
        self._routes = routes
        self._on_close = on_close
        self._open_channel = open_channel
        self._reaper = Reaper(self._close_due)
        self._backends: Backends[grpc.Channel] = Backends(self._open, self._reaper.wake, drain_seconds=drain_seconds)
        self._dispatch = Dispatch(routes, self._backends, sticky_key)
        self._connectivity = Connectivity()
        # Held while changes are taken over, so that of two the later one is the last.
        self._changing = threading.Lock()
        self._inherited: list[Any] = []
        self._unfollow = garbage.follow(routes, self._on_change)
        forks.follow_forks(self)

    # grpc.Channel

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> callables.UnaryUnary:
        return callables.UnaryUnary(self._dispatch, lambda channel: channel.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> callables.UnaryStream:
        return callables.UnaryStream(self._dispatch, lambda channel: channel.unary_stream(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> callables.StreamUnary:
        return callables.StreamUnary(self._dispatch, lambda channel: channel.stream_unary(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> callables.StreamStream:
        return callables.StreamStream(self._dispatch, lambda channel: channel.stream_stream(method, *args, **kwargs))

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        """Call ``callback`` with the state of the backends that calls go to now, and with each other state.

        READY: any is; TRANSIENT_FAILURE: none can be reached, or nothing is live. ``try_to_connect`` connects without
        waiting for a call.
        """
        self._connectivity.subscribe(callback, connects=bool(try_to_connect))
        self._routes.start()
        self._on_change()

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._connectivity.unsubscribe(callback)

    def close(self) -> None:
        """End all calls in flight, as CANCELLED, and close what it opened; the near-cache too, if it made that."""
        if self._backends.closed:
            return
        self._unfollow()
        for backend in self._backends.close():
            backend.channel.close()
        self._reaper.stop(CLOSE_SECONDS)
        for each in self._on_close:
            each()

    def __enter__(self) -> Self:
        self._routes.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Changes

    def _on_change(self) -> None:
        """Let go of the backends that calls no longer go to; connect to the others if anyone waits for that."""
        with self._changing:
            urls = self._routes.urls()
            if urls is not None:
                self._backends.want(urls)
            if self._connectivity.wanted:
                for url in (urls or ()) if self._connectivity.connects else ():
                    with suppress(PointsmanError, ValueError):
                        self._backends.open(url)
                self._connectivity.follow(self._backends.current(), live=None if urls is None else bool(urls))

    def _open(self, url: str) -> grpc.Channel:
        opened = self._open_channel(url)
        if self._connectivity.wanted:
            self._reaper.wake()
        return opened

    def _close_due(self) -> float | None:
        ended, seconds = self._backends.due()
        for backend in ended:
            backend.channel.close()
        if self._connectivity.wanted:
            self._connectivity.follow(self._backends.current())
        return seconds

    # Forks

    fork_order = 1  # after the near-cache, whose threads call this

    def before_fork(self) -> None:
        """Close the connections that no call uses, and hold what threads may hold.

        The near-cache has been halted before: its threads may wait for the locks that are held from now on.
        """
        self._reaper.before_fork()
        for backend in self._backends.before_fork():
            backend.channel.close()
        self._reaper.hold()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._reaper.after_fork_in_parent()
        self._backends.after_fork_in_parent()
        if self._connectivity.wanted:
            # In a thread: what it waits for this one may hold until the other hooks have run.
            threading.Thread(target=self._on_change, name="pointsman-connectivity", daemon=True).start()

    def after_fork_in_child(self) -> None:
        """Begin without connections. Those of calls of the parent are kept, as closing them would end its calls."""
        self._changing = threading.Lock()
        self._inherited += self._backends.after_fork_in_child()
        self._reaper.after_fork_in_child()
        self._connectivity.after_fork_in_child()
