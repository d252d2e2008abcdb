"""AggregatedDiscoveryService: opens a stream for each client, with the resources that this client may have."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from pointsman_server.domain.errors import FieldViolation, InvalidField, StoreUnavailable
from pointsman_server.xds.clients.caller import Caller
from pointsman_server.xds.session import Session
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.sources.envoy_source import EnvoySource
from pointsman_server.xds.sources.grpc_source import GrpcSource
from pointsman_server.xds.stream import Client, Observer, Stream
from pointsman_server.xds.views import ClientKind, view_of

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
# The text of the status UNIMPLEMENTED of DeltaAggregatedResources.
NO_DELTA = "this server has no incremental xDS: ask for the state of the world, by StreamAggregatedResources"

# Bytes of the Node of a client; characters that are kept of its id and of its user agent.
LARGEST_NODE = 64 * 1024
KEPT = 256
# Then the stream ends, so that the client can ask another server.
LOAD_SECONDS = 10.0


class DiscoveryServer:
    """Serves the snapshot.

    ``loaded`` is awaited before a stream is answered: an empty answer would withdraw routes. ``caller`` returns
    whose stream the context of a call is.
    """

    def __init__(
        self,
        snapshot: Callable[[], ResourceSnapshot],
        loaded: Callable[[], Awaitable[Any]],
        caller: Callable[[Any], Caller],
        *,
        observers: Sequence[Observer] = (),
        load_seconds: float = LOAD_SECONDS,
    ) -> None:
        self._snapshot = snapshot
        self._loaded = loaded
        self._caller = caller
        self._observers = observers
        self._load_seconds = load_seconds

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        """Serve StreamAggregatedResources until the client ends it.

        Raises StoreUnavailable where there is no table yet, or an older one than the client has, and InvalidField for
        a request beyond the limits.
        """
        await self._wait_for_table()
        first = await anext(aiter(requests), None)
        if first is None:
            return
        stream, source = self._open(first.node, context)
        await source.prepare()
        # So that nothing here holds on to it while the stream is open: a parsed request is some kilobytes.
        incoming = [first]
        del first
        await stream.run(incoming.pop(), requests)

    async def _wait_for_table(self) -> None:
        try:
            async with asyncio.timeout(self._load_seconds):
                await self._loaded()
        except TimeoutError:
            raise StoreUnavailable from None

    def _open(self, node: Any, context: Any) -> tuple[Stream, GrpcSource]:
        if node.ByteSize() > LARGEST_NODE:
            text = f"{node.ByteSize()} bytes: a node has at most {LARGEST_NODE}"
            raise InvalidField([FieldViolation("node", text)])
        view, caller = view_of(node), self._caller(context)
        client = Client(node.id[:KEPT], _agent(node)[:KEPT], context.peer(), view, caller, time.time())
        source_of = EnvoySource if view.kind is ClientKind.ENVOY else GrpcSource
        source = source_of(self._snapshot(), view, caller.may_read)
        session = Session(source, warms=view.kind is ClientKind.ENVOY, nonces=secrets.token_hex(4))
        return Stream(client, session, source, context.write, observers=self._observers), source


def _agent(node: Any) -> str:
    """Return what program a client is, and its version, which Envoy says in numbers."""
    version = node.user_agent_version
    if node.HasField("user_agent_build_version"):
        numbers = node.user_agent_build_version.version
        version = f"{numbers.major_number}.{numbers.minor_number}.{numbers.patch}"
    return f"{node.user_agent_name} {version}".strip()
