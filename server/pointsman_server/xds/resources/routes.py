"""Route configurations of gRPC clients: one for each name."""

from typing import Any

from pointsman_server.xds.names import Part, Role, cluster_name, is_family
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.resources.listeners import FAULT
from pointsman_server.xds.resources.verdicts import verdict_of
from pointsman_server.xds.targets import Target, Verdict
from pointsman_server.xds.views import View

UNAVAILABLE = 14
# No call has this path: those of gRPC are /SERVICE/METHOD, and this is no name of a service.
NO_CALL = "/~/slots"


def is_live(view: View, target: Target) -> bool:
    """Return whether clients of ``view`` are let through to ``target``."""
    return verdict_of(view.kind, target) is Verdict.LIVE


def route_configuration(view: View, name: str, target: Target) -> Any:
    """Build the RouteConfiguration of a root (gRFC A28).

    grpc-go fails calls at a cluster that its balancer has not heard of, for a moment after a route first names it. So
    the route of a family names all slots, and one more, in a route that no call takes; a change between one version and
    two, or of one version more, finds its slots known.
    """
    verdict = verdict_of(view.kind, target)
    live = verdict is Verdict.LIVE
    host = pb.VirtualHost(name=name, domains=["*"])
    host.typed_per_filter_config[FAULT].Pack(fault(verdict))
    weighted = [(number, slot.weight) for number, slot in enumerate(target.slots) if slot.weight and live]
    if is_family(name):
        known = host.routes.add()
        known.match.path = NO_CALL
        for number in range(max(1, len(target.slots)) + 1):
            _add_slot(known.route, name, number, 1)
    route = host.routes.add()
    route.match.prefix = ""
    if len(weighted) > 1:
        for number, weight in weighted:
            _add_slot(route.route, name, number, weight)
    else:
        route.route.cluster = name
    return pb.RouteConfiguration(name=name, virtual_hosts=[host])


def _add_slot(action: Any, root: str, number: int, weight: int) -> None:
    name = cluster_name(root, Part(Role.SLOT, number))
    action.weighted_clusters.clusters.add(name=name).weight.value = weight


def fault(verdict: Verdict) -> Any:
    """Build the override of the fault filter (gRFC A33) that ends all calls with the verdict, or none."""
    # Both numbers change: grpcio ignores a change of the numerator alone.
    fault = pb.HttpFault()
    fault.abort.percentage.numerator = 0 if verdict is Verdict.LIVE else 100
    fault.abort.grpc_status = UNAVAILABLE if verdict is Verdict.LIVE else int(verdict)
    return fault
