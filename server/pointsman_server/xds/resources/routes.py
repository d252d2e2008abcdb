"""Route configurations of gRPC clients: one for each name."""

from typing import Any

from pointsman_server.xds.names import Part, Role, cluster_name, is_family
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Needs
from pointsman_server.xds.resources.clusters import first_destination
from pointsman_server.xds.resources.destinations import Destination, destination_of
from pointsman_server.xds.resources.listeners import FAULT
from pointsman_server.xds.resources.verdicts import verdict_of
from pointsman_server.xds.targets import Target, Verdict
from pointsman_server.xds.views import View

UNAVAILABLE = 14
# Slots that a client of a family knows always, because each of its routes names them.
KNOWN_SLOTS = 2
# No call has this path: those of gRPC are /SERVICE/METHOD, and this is no name of a service.
NO_CALL = "/~/slots"


def is_live(view: View, target: Target) -> bool:
    """Return whether clients of ``view`` are let through to ``target``."""
    return verdict_of(view.kind, target) is Verdict.LIVE


def route_configuration(
    view: View, name: str, target: Target, *, introduces: bool = False, prepares: bool = False
) -> Any:
    """Build the RouteConfiguration of a root (gRFC A28).

    grpc-go and grpc-js fail calls at a cluster that they have not heard of, for a moment after a route first leads to
    it. So the route of a family names all slots, and one more, in a route that no call takes: a change between one
    version and two, or of one version more, finds its slots known. ``introduces``: before a change that leads to other
    new slots, only the names of these are new, and the slots that are known take all calls.

    grpc-go takes routes and clusters together, when all hosts that are names have been resolved, and lets calls through
    a moment before it has the hosts that they are led to: these calls would be UNAVAILABLE. So what is not live names a
    marker, a cluster that no call is led to. ``prepares``: what is live, before a client that has the marker; it lets
    no call through and does not name the marker. grpc-go forgets that when it has resolved and taken the clusters.
    """
    verdict = Verdict.NOT_LIVE if prepares else verdict_of(view.kind, target)
    host = pb.VirtualHost(name=name, domains=["*"])
    host.typed_per_filter_config[FAULT].Pack(fault(verdict))
    weighted = _weighted(view, target)
    marked = view.marks and not prepares and verdict is not Verdict.LIVE
    slots = max(KNOWN_SLOTS, len(target.slots) + 1) if is_family(name) else 0
    known = [cluster_name(name, Part(Role.SLOT, number)) for number in range(slots)]
    if marked:
        known.append(marker_of(name))
    if known:
        uncalled = host.routes.add()
        uncalled.match.path = NO_CALL
        for cluster in known:
            _add_cluster(uncalled.route, cluster, 1)
    if introduces:
        weighted = weighted[:KNOWN_SLOTS]
    route = host.routes.add()
    route.match.prefix = ""
    if len(weighted) > 1:
        for number, weight in weighted:
            _add_cluster(route.route, cluster_name(name, Part(Role.SLOT, number)), weight)
    else:
        route.route.cluster = name
    return pb.RouteConfiguration(name=name, virtual_hosts=[host])


def needs_of(view: View, name: str, target: Target) -> Needs:
    """Return what a client of a family must have before calls are led to slots that it may not know."""
    if not is_family(name):
        return ()
    needs: list[tuple[ResourceType, str]] = []
    for number, _ in _weighted(view, target)[KNOWN_SLOTS:]:
        member = cluster_name(name, Part(Role.MEMBER, number))
        needs += [(ResourceType.CDS, cluster_name(name, Part(Role.SLOT, number))), (ResourceType.CDS, member)]
        destination = first_destination(view, member, target)
        if destination is not None and destination.literal:
            needs.append((ResourceType.EDS, member))
    return tuple(needs)


def marker_of(root: str) -> str:
    """Return the name of the marker of a root."""
    return cluster_name(root, Part(Role.MARKER, 0))


def is_prepared(view: View, target: Target) -> bool:
    """Return whether a client that has the marker is to be prepared for a target: where a host is a name."""
    if not (view.marks and is_live(view, target)):
        return False
    destinations = (destination_of(view.kind, slot.url) for slot in (*target.slots, *target.fallbacks))
    return any(isinstance(destination, Destination) and not destination.literal for destination in destinations)


def _weighted(view: View, target: Target) -> list[tuple[int, int]]:
    """Return the slots that calls are led to, each with its weight, the heaviest first; none where it is not live."""
    live = is_live(view, target)
    return [(number, slot.weight) for number, slot in enumerate(target.slots) if slot.weight and live]


def _add_cluster(action: Any, name: str, weight: int) -> None:
    action.weighted_clusters.clusters.add(name=name).weight.value = weight


def fault(verdict: Verdict) -> Any:
    """Build the override of the fault filter (gRFC A33) that ends all calls with the verdict, or none."""
    # Both numbers change: grpcio ignores a change of the numerator alone.
    fault = pb.HttpFault()
    fault.abort.percentage.numerator = 0 if verdict is Verdict.LIVE else 100
    fault.abort.grpc_status = UNAVAILABLE if verdict is Verdict.LIVE else int(verdict)
    return fault
