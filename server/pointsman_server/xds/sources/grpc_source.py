"""The resources that one client may have: of its view, and of the tenants that it may read."""

from collections.abc import Callable, Collection
from typing import Protocol

from pointsman_server.domain.identity import Scope
from pointsman_server.ports.store import Clock
from pointsman_server.xds.names import key_of, root_of
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource
from pointsman_server.xds.snapshot import ResourceSnapshot, Subscriber
from pointsman_server.xds.views import View


class Listener(Subscriber, Protocol):
    """A stream."""

    def changed(self, roots: Collection[str]) -> None:
        """Take note of a change of ``roots``."""

    def check(self) -> None:
        """Take note of a change of anything."""


class GrpcSource:
    """Resources by name. ``may_read`` says whether the client may read a tenant and env."""

    def __init__(self, snapshot: ResourceSnapshot, view: View, may_read: Callable[[Scope], bool]) -> None:
        self._snapshot = snapshot
        self._view = view
        self._may_read = may_read
        # Of the names that the stream watches: whether the client may not read them.
        self._forbidden: dict[str, bool] = {}

    @property
    def clock(self) -> Clock:
        return self._snapshot.clock

    async def reached(self, clock: Clock) -> None:
        await self._snapshot.reached(clock)

    async def prepare(self) -> None:
        """Nothing is built before it is asked for."""

    def resource(self, kind: ResourceType, name: str) -> Resource:
        root = root_of(name)
        forbidden = self._forbidden.get(root)
        if forbidden is None:
            forbidden = self._is_forbidden(root)
        return self._snapshot.resource(self._view, kind, name, forbidden=forbidden)

    def recheck(self) -> None:
        """Note that what the client may read may have changed."""
        self._forbidden = {root: self._is_forbidden(root) for root in self._forbidden}

    def names(self, kind: ResourceType, roots: Collection[str] | None = None) -> Collection[str]:  # noqa: ARG002 - of the protocol
        """No gRPC client asks for all."""
        return ()

    def dependents(self, kind: ResourceType, roots: Collection[str]) -> Collection[str]:  # noqa: ARG002
        """Every resource begins with its root."""
        return ()

    def watch(self, stream: Listener, root: str) -> None:
        self._snapshot.subscribe(root, stream)
        self._forbidden[root] = self._is_forbidden(root)

    def unwatch(self, stream: Listener, root: str) -> None:
        self._snapshot.unsubscribe(root, stream)
        del self._forbidden[root]

    def watch_all(self, stream: Listener) -> None:
        """A client that asks for all is given nothing."""

    def flush(self, stream: Listener) -> None:
        roots = self._snapshot.news(stream)
        if roots is None:
            stream.check()
        elif roots:
            stream.changed(roots)

    def has_news(self, stream: Listener) -> bool:
        return self._snapshot.has_news(stream)

    def leave(self, stream: Listener) -> None:
        for root in self._forbidden:
            self._snapshot.unsubscribe(root, stream)
        self._snapshot.leave(stream)

    def _is_forbidden(self, root: str) -> bool:
        key = key_of(root)
        return key is not None and not self._may_read(Scope(key.tenant, key.env))
