"""Clusters and their endpoints: an IP address by EDS, a name by LOGICAL_DNS, a slot with fallbacks by their order.

The name of a slot's cluster does not change with what it leads to. So a cut-over changes clusters and endpoints, which
all clients follow without a failed call, and no route: grpc-go fails calls at a name that is new in a route.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from pointsman_server.xds.names import Part, Role, cluster_name, is_family, part_of, root_of
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Needs
from pointsman_server.xds.resources import priorities
from pointsman_server.xds.resources.destinations import Destination, NotCarried, destination_of
from pointsman_server.xds.resources.endpoints import assignment
from pointsman_server.xds.resources.tls import secure
from pointsman_server.xds.resources.verdicts import fallbacks_of
from pointsman_server.xds.targets import Target, Verdict
from pointsman_server.xds.views import ClientKind, View

CONNECT_SECONDS = 5
AGGREGATE = "envoy.clusters.aggregate"
HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# Both gRPC clients (gRFC A32) and Envoy end calls beyond 1,024 at a time to one cluster, unless they are told more.
# Envoy tries no more than 3 again at a time.
MAX_CALLS = 1_000_000_000
V3 = 2


def cluster(view: View, name: str, target: Target) -> Any:
    """Build the Cluster called ``name`` (gRFC A27, A37)."""
    cluster = pb.Cluster(name=name)
    cluster.connect_timeout.FromSeconds(CONNECT_SECONDS)
    members = members_of(view, name, target)
    if members:
        cluster.cluster_type.name = AGGREGATE
        cluster.cluster_type.typed_config.Pack(pb.AggregateCluster(clusters=members))
        return cluster
    _allow_calls(cluster)
    if view.kind is ClientKind.ENVOY:
        _add_options_of_envoy(cluster)
    destinations = destinations_of(view, name, target)
    if len(destinations) > 1:
        priorities.add(cluster, view, destinations)
        return cluster
    destination = destinations[0] if destinations else None
    if destination is not None and not destination.literal:
        cluster.type = pb.Cluster.LOGICAL_DNS
        cluster.dns_lookup_family = pb.Cluster.ALL
        cluster.load_assignment.CopyFrom(assignment(view, name, destination))
    else:
        cluster.type = pb.Cluster.EDS
        cluster.eds_cluster_config.eds_config.ads.SetInParent()
        cluster.eds_cluster_config.eds_config.resource_api_version = V3
        cluster.eds_cluster_config.service_name = name
    if destination is not None and destination.tls:
        secure(cluster, view, destination)
    return cluster


def asked_with(view: View, cluster: Any, target: Target) -> Needs:
    """Return what a gRPC client asks for when it has a Cluster that ``cluster`` built."""
    if cluster.HasField("cluster_type"):
        return tuple((ResourceType.CDS, member) for member in members_of(view, cluster.name, target))
    return ((ResourceType.EDS, cluster.name),) if cluster.type == pb.Cluster.EDS else ()


def load_assignment(view: View, name: str, target: Target) -> Any:
    """Build the ClusterLoadAssignment of a cluster; without endpoints where it leads nowhere."""
    # Also of a cluster that has fallbacks, and so its endpoints itself: an Envoy may just have asked for it as it was.
    destination = None if members_of(view, name, target) else first_destination(view, name, target)
    return assignment(view, name, destination if destination is not None and destination.literal else None)


def cluster_names(view: View, root: str, target: Target) -> Sequence[str]:
    """Return the names of all clusters of ``root``, for clients that want all."""
    slots = [slot_name(view, root, target, number) for number in range(max(1, len(target.slots)))]
    members = dict.fromkeys(member for name in slots for member in members_of(view, name, target))
    return [*slots, *members]


def slot_name(view: View, root: str, target: Target, number: int) -> str:
    """Return the name of the cluster of a slot.

    An Envoy puts the path of a URL before that of a call by its route, not by its cluster. So a slot has another
    cluster where it has another path: a call that was led to one by its route comes to the host of this path.
    """
    slot = target.slots[number] if number < len(target.slots) else None
    return cluster_name(root, Part(Role.SLOT, number, _tag(destination_of(view.kind, slot.url)) if slot else ""))


def members_of(view: View, name: str, target: Target) -> Sequence[str]:
    """Return the clusters that a slot's cluster tries in order; none where it leads to a host itself.

    For gRPC clients the slots of a family always have members: grpcio 1.85 dies of a segmentation fault when a cluster
    that it calls becomes an aggregate one. The first member of a slot is the same whether or not it is used: grpcio
    fails calls at a cluster of which it knows no member yet. Envoy has no members: 1.39 dies, too, now and then, when
    those of an aggregate cluster change.
    """
    role, number, _ = part_of(name)
    root = root_of(name)
    if view.kind is ClientKind.ENVOY or role is not Role.SLOT or not is_family(root):
        return ()
    count = len(fallbacks_of(view.kind, target))
    fallbacks = (cluster_name(root, Part(Role.FALLBACK, each)) for each in range(count))
    members = (cluster_name(root, Part(Role.MEMBER, number)), *fallbacks)
    # By where they lead: grpc-go 1.85 never rests while two members resolve one name, and what failed fails again.
    destinations = {_address(first_destination(view, member, target)): member for member in reversed(members)}
    return tuple(member for member in members if member in destinations.values())


def destinations_of(view: View, name: str, target: Target) -> Sequence[Destination]:
    """Return where a cluster without members leads: for Envoy, to that of a slot and then to those of its fallbacks."""
    destination = first_destination(view, name, target)
    if destination is None:
        return ()
    if view.kind is ClientKind.GRPC or not is_family(root_of(name)):
        return (destination,)
    found = (destination_of(view.kind, slot.url) for slot in fallbacks_of(view.kind, target))
    return (destination, *(each for each in found if isinstance(each, Destination)))


def first_destination(view: View, name: str, target: Target) -> Destination | None:
    """Return where a cluster without members leads first; None where that is nowhere.

    gRPC clients connect to what they have before they are asked to, and wait up to two minutes after failures. So they
    are not led to a route that is not active: it may have no server yet, and is reached at once when it is activated.
    """
    if view.kind is ClientKind.GRPC and target.verdict is not Verdict.LIVE:
        return None
    role, number, tag = part_of(name)
    if role is Role.MARKER:
        return None
    slots = fallbacks_of(view.kind, target) if role is Role.FALLBACK else target.slots
    slot = slots[number] if number < len(slots) else next(iter(target.slots), None)
    found = destination_of(view.kind, slot.url) if slot else None
    return found if isinstance(found, Destination) and _tag(found) == tag else None


def _tag(destination: Destination | NotCarried) -> str:
    path = destination.path if isinstance(destination, Destination) else ""
    return blake2b(path.encode(), digest_size=4).hexdigest() if path else ""


def _address(destination: Destination | None) -> tuple[str, int] | None:
    return None if destination is None else (destination.host, destination.port)


def _add_options_of_envoy(cluster: Any) -> None:
    """Speak to the host as the caller speaks to Envoy: HTTP/2 for gRPC."""
    options = pb.HttpProtocolOptions()
    options.use_downstream_protocol_config.http_protocol_options.SetInParent()
    options.use_downstream_protocol_config.http2_protocol_options.SetInParent()
    cluster.typed_extension_protocol_options[HTTP_PROTOCOL_OPTIONS].Pack(options)


def _allow_calls(cluster: Any) -> None:
    thresholds = cluster.circuit_breakers.thresholds.add()
    for limit in ("max_connections", "max_pending_requests", "max_requests", "max_retries"):
        getattr(thresholds, limit).value = MAX_CALLS
