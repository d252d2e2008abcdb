"""AggregatedDiscoveryService: runs a session for each stream."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from typing import Any

from pointsman_server.domain.identity import Identity, Permission, Scope
from pointsman_server.xds.names import root_of
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.resource import Resource
from pointsman_server.xds.session import Push, Session
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.sources import GrpcSource
from pointsman_server.xds.views import ClientKind, view_of

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
# Whether a caller may read a tenant and env.
MayRead = Callable[[Identity, Scope], bool]
PERMISSION = Permission.READ


class DiscoveryServer:
    """Serves the snapshot. ``loaded`` is awaited before a stream is answered: an empty answer would withdraw routes."""

    def __init__(
        self,
        snapshot: Callable[[], ResourceSnapshot],
        loaded: Callable[[], Any],
        identity: Callable[[], Identity],
        may_read: MayRead,
    ) -> None:
        self._snapshot = snapshot
        self._loaded = loaded
        self._identity = identity
        self._may_read = may_read

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        """Serve StreamAggregatedResources until the client ends it."""
        await self._loaded()
        first = await anext(aiter(requests), None)
        if first is None:
            return
        view, identity = view_of(first.node), self._identity()
        snapshot = self._snapshot()
        source = GrpcSource(snapshot, view, lambda scope: self._may_read(identity, scope))
        stream = _Stream(Session(source, rewarms=view.kind is ClientKind.ENVOY), snapshot, context.write)
        writing = asyncio.create_task(stream.write())
        try:
            stream.receive(first)
            async for request in requests:
                stream.receive(request)
        finally:
            stream.close()
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing


class _Stream:
    """Connects a session to a stream and to the changes of the snapshot."""

    def __init__(self, session: Session, snapshot: ResourceSnapshot, write: Callable[[bytes], Any]) -> None:
        self.session = session
        self._snapshot = snapshot
        self._write = write
        self._roots: set[str] = set()
        self._work = asyncio.Event()

    def receive(self, request: Any) -> None:
        self.session.receive(request)
        roots = {root_of(name) for name in self.session.wanted}
        for root in roots - self._roots:
            self._snapshot.subscribe(root, self)
        for root in self._roots - roots:
            self._snapshot.unsubscribe(root, self)
        self._roots = roots
        self._work.set()

    def changed(self, roots: Collection[str]) -> None:
        self.session.change(roots)
        self._work.set()

    def close(self) -> None:
        for root in self._roots:
            self._snapshot.unsubscribe(root, self)

    async def write(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            for push in self.session.take():
                await self._write(response(push))


def response(push: Push) -> bytes:
    """Encode a response: the resources are encoded already, once for all streams."""
    head = pb.DiscoveryResponse(version_info=push.version, type_url=push.kind, nonce=push.nonce)
    return b"".join((*map(_body, push.resources), head.SerializeToString()))


def _body(resource: Resource) -> bytes:
    return resource.body
