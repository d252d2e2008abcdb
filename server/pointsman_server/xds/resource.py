"""One resource as it is sent, and where resources are from."""

from collections.abc import Collection
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

from google.protobuf.any_pb2 import Any as AnyMessage

from pointsman_server.domain.codec import encoded_field
from pointsman_server.xds.protocol.types import ResourceType

_RESOURCES = 2  # of DiscoveryResponse

# Names of resources, each with its type.
Needs = tuple[tuple[ResourceType, str], ...]


class Resource(NamedTuple):
    """A resource as it is sent: ``body`` is a field of a ``DiscoveryResponse``.

    - ``version``: a hash of type, name and content, of 64 bits.
    - ``live``: False for a RouteConfiguration that lets no call through, and for an empty ClusterLoadAssignment, which
      a client that has endpoints need not be sent.
    - ``closed``: True for a Cluster, and for its endpoints, to which no call is let through.
    - ``introduction``: sent first to a client that has another resource of this name, and lacks one of ``needs``.
    - ``preparation``: sent first to a client that has the Cluster ``marker``, until it has that no more.
    - ``leads_to``: the members of a Cluster, or its endpoints, which a gRPC client asks for when it has the Cluster.
    """

    name: str
    version: int
    body: bytes
    live: bool = True
    introduction: "Resource | None" = None
    needs: Needs = ()
    closed: bool = False
    preparation: "Resource | None" = None
    marker: str = ""
    leads_to: Needs = ()


class Source(Protocol):
    """The resources that one client may have. What it returns changes only before ``Session.change`` says so."""

    def resource(self, kind: ResourceType, name: str) -> Resource:
        """Return a resource; every name has one."""

    def names(self, kind: ResourceType, roots: Collection[str] | None = None) -> Collection[str]:
        """Return the names of all resources, for a client that asks for all; with ``roots``, those of these roots."""

    def dependents(self, kind: ResourceType, roots: Collection[str]) -> Collection[str]:
        """Return the names of the resources that contain ``roots`` without beginning with one of them."""


def encode(type_url: str, name: str, content: Any, *, live: bool = True) -> Resource:
    """Encode a message, or its bytes, as a resource; equal contents have equal versions on every server."""
    value = content if isinstance(content, bytes) else content.SerializeToString(deterministic=True)
    packed = AnyMessage(type_url=type_url, value=value).SerializeToString(deterministic=True)
    digest = blake2b(packed, digest_size=8, key=name.encode()[:64])
    return Resource(name, int.from_bytes(digest.digest(), "big"), encoded_field(_RESOURCES, packed), live)
