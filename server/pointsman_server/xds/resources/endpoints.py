"""Endpoints: one host in one locality, in the form that all clients take."""

from typing import Any

from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.resources.destinations import Destination
from pointsman_server.xds.views import ClientKind, View


def assignment(view: View, name: str, destination: Destination | None) -> Any:
    """Build a ClusterLoadAssignment with one endpoint, or none."""
    built = pb.ClusterLoadAssignment(cluster_name=name)
    if destination is not None:
        add_endpoint(built, view, destination)
    return built


def add_endpoint(assignment: Any, view: View, destination: Destination) -> Any:
    """Add a locality with one endpoint; returns the locality."""
    # gRPC clients refuse a locality without a name or a weight (gRFC A27).
    locality = assignment.endpoints.add()
    locality.locality.region = "pointsman"
    locality.load_balancing_weight.value = 1
    endpoint = locality.lb_endpoints.add()
    endpoint.load_balancing_weight.value = 1
    address = endpoint.endpoint.address.socket_address
    address.address = destination.host
    address.port_value = destination.port
    if view.kind is ClientKind.ENVOY:
        endpoint.endpoint.hostname = destination.authority
    return locality
