"""Route configurations: of a gRPC client one for each name, of an Envoy one virtual host for each name."""

from typing import Any

from pointsman_server.xds.names import SUFFIX
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.resources.listeners import FAULT
from pointsman_server.xds.targets import Target, Verdict
from pointsman_server.xds.views import ClientKind, View

UNAVAILABLE = 14


def is_live(_view: View, target: Target) -> bool:
    """Return whether clients of ``view`` are let through to ``target``."""
    return target.verdict is Verdict.LIVE


def route_configuration(view: View, name: str, target: Target) -> Any:
    """Build the RouteConfiguration of a root, for gRPC (gRFC A28)."""
    configuration = pb.RouteConfiguration(name=name)
    configuration.virtual_hosts.append(virtual_host(view, name, target, domain="*"))
    return configuration


def virtual_host(view: View, root: str, target: Target, *, domain: str) -> Any:
    """Build the virtual host of a root."""
    host = pb.VirtualHost(name=root, domains=[domain])
    live = is_live(view, target)
    fault = _fault(Verdict.LIVE if live else target.verdict)
    if view.kind is ClientKind.ENVOY:
        grpc = host.routes.add()
        grpc.match.prefix = "/"
        grpc.match.grpc.SetInParent()
        _forward(grpc.route, root, target)
        grpc.typed_per_filter_config[FAULT].Pack(fault)
        other = host.routes.add()
        other.match.prefix = "/"
        if live:
            _forward(other.route, root, target)
        else:
            other.direct_response.status = 404
        return host
    host.typed_per_filter_config[FAULT].Pack(fault)
    route = host.routes.add()
    route.match.prefix = ""
    _forward(route.route, root, target)
    return host


def _forward(action: Any, root: str, target: Target) -> None:
    weighted = [(number, slot.weight) for number, slot in enumerate(target.slots)]
    if len(weighted) < 2:
        action.cluster = root
        return
    for number, weight in weighted:
        action.weighted_clusters.clusters.add(name=slot_name(root, number)).weight.value = weight


def slot_name(root: str, number: int) -> str:
    """Return the name of the cluster of a slot: the first one is called as the root."""
    return f"{root}{SUFFIX}{number}" if number else root


def _fault(verdict: Verdict) -> Any:
    # Both numbers change: grpcio ignores a change of the numerator alone.
    fault = pb.HttpFault()
    fault.abort.percentage.numerator = 0 if verdict is Verdict.LIVE else 100
    fault.abort.grpc_status = UNAVAILABLE if verdict is Verdict.LIVE else int(verdict)
    return fault
