"""The services of the xDS port that are for people and tools: XdsService, and that of client status."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from pointsman.v1 import xds_service_pb2 as pb
from pointsman.v1.xds_service_pb2_grpc import XdsServiceServicer
from pointsman_server.rpc.transport.registration import Behaviour, unimplemented
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.xds.clients.caller import Caller
from pointsman_server.xds.clients.registry import Clients
from pointsman_server.xds.clients.status import ClientStatusRequest, ClientStatusResponse, client_status
from pointsman_server.xds.clients.xds_service import XdsMethods
from pointsman_server.xds.protocol import messages
from pointsman_server.xds.server import NO_DELTA, DiscoveryServer


class XdsServicer(XdsServiceServicer):
    """XdsService: as ``XdsMethods``, for the caller of each call."""

    def __init__(self, methods: XdsMethods, caller: Callable[[Any], Caller]) -> None:
        self._methods = methods
        self._caller = caller

    async def ListXdsClients(self, request: pb.ListXdsClientsRequest, context: Any) -> pb.ListXdsClientsResponse:
        return await self._methods.list_clients(request, self._caller(context))

    async def ExplainXds(self, request: pb.ExplainXdsRequest, context: Any) -> pb.ExplainXdsResponse:
        return await self._methods.explain(request, self._caller(context))


def discovery_methods(discovery: DiscoveryServer) -> dict[str, Behaviour]:
    """Return the methods of AggregatedDiscoveryService."""

    parse = messages.DiscoveryRequest.FromString
    return {
        "StreamAggregatedResources": Behaviour(discovery.stream, parse, streaming=True),
        "DeltaAggregatedResources": unimplemented(NO_DELTA, streaming=True),
    }


def client_status_methods(
    clients: Clients, caller: Callable[[Any], Caller], fair_share: FairShare
) -> dict[str, Behaviour]:
    """Return the methods of ClientStatusDiscoveryService."""

    async def fetch(request: Any, context: Any) -> Any:
        return await client_status(request, clients, caller(context), fair_share)

    async def stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield await client_status(request, clients, caller(context), fair_share)

    parse, encode = ClientStatusRequest.FromString, ClientStatusResponse.SerializeToString
    return {
        "FetchClientStatus": Behaviour(fetch, parse, encode),
        "StreamClientStatus": Behaviour(stream, parse, encode, streaming=True),
    }
