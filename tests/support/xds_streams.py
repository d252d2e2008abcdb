"""An xDS client as small as can be: it subscribes, acknowledges or refuses, and shows what it was sent."""

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.server import SERVICE
from tests.support.xds_world import RDS, answer, request

PATIENCE_SECONDS = 15.0
# gRPC status of the calls of a name, by the fault of its virtual host (google.rpc.Code).
LIVE = 14


class XdsStream:
    """One stream, read by the thread of the test."""

    def __init__(self, call: Any, outgoing: "queue.SimpleQueue[Any]", node: Any) -> None:
        self.call = call
        self._outgoing = outgoing
        self._node = node
        self._names: dict[str, Sequence[str]] = {}
        # The last response of each type.
        self.last: dict[str, Any] = {}

    def describe(self, metadata: Mapping[str, Any]) -> None:
        """Add to what the first request says of the client."""
        self._node.metadata.update(metadata)

    def subscribe(self, kind: ResourceType, *names: str, version: str = "") -> None:
        """Ask for resources by name; ``version`` is what the client has of another stream."""
        self._names[kind] = names
        last = self.last.get(kind)
        asked = request(kind, *names, version=version) if last is None else answer(last, names)
        if self._node is not None:
            asked.node.CopyFrom(self._node)
            self._node = None
        self._outgoing.put(asked)

    def subscribe_all(self, root: str) -> None:
        """Ask for all that a gRPC client has of a route whose URL is an address."""
        for kind in ResourceType:
            self.subscribe(kind, root)

    def read(self) -> Any:
        """Return the next response."""
        response = next(self.call)
        self.last[response.type_url] = response
        return response

    def acknowledge(self, response: Any) -> None:
        self._outgoing.put(answer(response, self._names[response.type_url]))

    def refuse(self, response: Any, text: str) -> None:
        """Refuse a response: a NACK."""
        self._outgoing.put(answer(response, self._names[response.type_url], text))

    def read_until(self, found: Callable[[Any], bool], *, acknowledging: bool = True) -> Any:
        """Read until a response satisfies ``found``; return it, acknowledged too."""
        while True:
            response = self.read()
            if acknowledging:
                self.acknowledge(response)
            if found(response):
                return response

    def status(self, root: str) -> int:
        """Subscribe to the route of ``root`` and return the status that its calls end with: LIVE if they do not."""
        self.subscribe(RDS, root)
        return status_of(self.read_until(lambda response: response.type_url == RDS), root)


def status_of(response: Any, root: str) -> int:
    """Return the status of the fault of ``root`` in a response of RDS."""
    for packed in response.resources:
        route = pb.RouteConfiguration.FromString(packed.value)
        if route.name == root:
            fault = pb.HttpFault.FromString(route.virtual_hosts[0].typed_per_filter_config["fault"].value)
            return int(fault.abort.grpc_status)
    raise AssertionError(f"no {root} in the response")


@contextmanager
def stream(
    channel: grpc.Channel,
    *,
    node: str = "test",
    user_agent: str = "gRPC test",
    metadata: Mapping[str, str] | None = None,
    seconds: float = 4 * PATIENCE_SECONDS,
) -> Iterator[XdsStream]:
    """Open a stream for ``seconds``; cancel it in the end."""
    outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
    method = channel.stream_stream(
        f"/{SERVICE}/StreamAggregatedResources",
        request_serializer=pb.DiscoveryRequest.SerializeToString,
        response_deserializer=pb.DiscoveryResponse.FromString,
    )
    call = method(iter(outgoing.get, None), timeout=seconds, metadata=tuple((metadata or {}).items()))
    first = pb.DiscoveryRequest().node
    first.id, first.user_agent_name = node, user_agent
    try:
        yield XdsStream(call, outgoing, first)
    finally:
        call.cancel()
        outgoing.put(None)
