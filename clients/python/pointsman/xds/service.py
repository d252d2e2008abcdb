"""XdsServiceClient: asks one server about its xDS clients. It is served on the xDS port."""

from datetime import UTC
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from pointsman.methods.calls import SyncCalls
from pointsman.rpc.operations import Operation, Page
from pointsman.v1 import xds_service_pb2 as pb
from pointsman.v1.xds_service_pb2_grpc import XdsServiceStub
from pointsman.xds.results import ClientKind, XdsClient, XdsClients, XdsExplanation, XdsName, XdsRefusal

PAGE_SIZE = 1000
_KINDS = {pb.XDS_CLIENT_KIND_GRPC: ClientKind.GRPC, pb.XDS_CLIENT_KIND_ENVOY: ClientKind.ENVOY}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class XdsServiceClient(SyncCalls):
    """A connection to the xDS port of one server. Its arguments and errors are those of ``Client``."""

    def _prepare(self) -> None:
        super()._prepare()
        self._stub: Any = XdsServiceStub(self._channel)

    def clients(self, *, name_prefix: str = "", timeout: float | None = None) -> XdsClients:
        """Return who is connected, in the order in which they connected.

        Of a server with several workers, they are those of the worker that this connection leads to.

        Args:
            name_prefix: only clients that ask for a name that begins with this.
            timeout: in seconds, for each page of 1,000.
        """
        last = pb.ListXdsClientsResponse()

        def read(response: pb.ListXdsClientsResponse) -> Page[XdsClient]:
            nonlocal last
            last = response
            return Page(tuple(map(_client, response.clients)), response.next_page_token)

        request = pb.ListXdsClientsRequest(name_prefix=name_prefix, page_size=PAGE_SIZE)
        found = tuple(self._pages(Operation("ListXdsClients", read), request, timeout))
        # A server of an earlier version does not say how many workers it has.
        return XdsClients(found, last.revision, last.worker, max(1, last.worker_count))

    def explain(self, key: str, *, kind: ClientKind = ClientKind.UNKNOWN, timeout: float | None = None) -> XdsName:
        """Return what clients of a kind, or of both, are sent for a route or a family.

        ``key`` is ``tenant/service/env/version``, ``tenant/service/env``, or a name as clients write it.
        """
        number = next((number for number, each in _KINDS.items() if each is kind), pb.XDS_CLIENT_KIND_UNSPECIFIED)
        return self._call(Operation("ExplainXds", _name), pb.ExplainXdsRequest(key=key, kind=number), timeout)


def _client(message: pb.XdsClient) -> XdsClient:
    refusals = (
        XdsRefusal(each.resource_type, each.message, each.refuse_time.ToDatetime(tzinfo=UTC))
        for each in message.refusals
    )
    return XdsClient(
        id=message.id,
        node_id=message.node_id,
        user_agent=message.user_agent,
        kind=_KINDS.get(message.kind, ClientKind.UNKNOWN),
        address=message.address,
        subject=message.subject,
        connect_time=message.connect_time.ToDatetime(tzinfo=UTC),
        acknowledged_revision=message.acknowledged_revision,
        names=tuple(message.names),
        name_count=message.name_count,
        refusals=tuple(refusals),
    )


def _name(response: pb.ExplainXdsResponse) -> XdsName:
    return XdsName(response.name, response.revision, tuple(map(_explanation, response.explanations)))


def _explanation(message: pb.XdsExplanation) -> XdsExplanation:
    return XdsExplanation(
        kind=_KINDS.get(message.kind, ClientKind.UNKNOWN),
        status=_CODES.get(message.status, grpc.StatusCode.UNKNOWN),
        reason=message.reason,
        limitations=tuple(message.limitations),
        resources=tuple(MessageToDict(each) for each in message.resources),
    )
