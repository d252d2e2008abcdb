"""Clusters and their endpoints: an IP address by EDS, a name by LOGICAL_DNS."""

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from pointsman_server.xds.names import SUFFIX
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.targets import Slot, Target
from pointsman_server.xds.views import View

PORTS = {"http": 80, "https": 443}
CONNECT_SECONDS = 5


def cluster(_view: View, name: str, target: Target) -> Any:
    """Build the Cluster of a slot. It is called the same whatever it leads to, so that a cut-over changes no route."""
    cluster = pb.Cluster(name=name)
    cluster.connect_timeout.FromSeconds(CONNECT_SECONDS)
    slot = slot_of(name, target)
    if slot is not None and not is_literal(slot.url):
        cluster.type = pb.Cluster.LOGICAL_DNS
        cluster.dns_lookup_family = pb.Cluster.ALL
        _fill(cluster.load_assignment, name, slot)
        return cluster
    cluster.type = pb.Cluster.EDS
    cluster.eds_cluster_config.eds_config.ads.SetInParent()
    cluster.eds_cluster_config.eds_config.resource_api_version = 2  # V3
    cluster.eds_cluster_config.service_name = name
    return cluster


def load_assignment(_view: View, name: str, target: Target) -> Any:
    """Build the ClusterLoadAssignment of a slot; without endpoints where nothing is known."""
    assignment = pb.ClusterLoadAssignment(cluster_name=name)
    slot = slot_of(name, target)
    if slot is not None and is_literal(slot.url):
        _fill(assignment, name, slot)
    return assignment


def slot_of(name: str, target: Target) -> Slot | None:
    """Return the slot of a cluster; one that the target does not have any more is the first."""
    if not target.slots:
        return None
    suffix = name.partition(SUFFIX)[2]
    number = int(suffix) if suffix.isdecimal() else 0
    return target.slots[number if number < len(target.slots) else 0]


def is_literal(url: str) -> bool:
    """Return whether the host of ``url`` is an IP address."""
    try:
        ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    return True


def _fill(assignment: Any, name: str, slot: Slot) -> None:
    parts = urlsplit(slot.url)
    assignment.cluster_name = name
    locality = assignment.endpoints.add()
    locality.locality.region = "pointsman"
    locality.load_balancing_weight.value = 1
    endpoint = locality.lb_endpoints.add()
    address = endpoint.endpoint.address.socket_address
    address.address = parts.hostname or ""
    address.port_value = parts.port or PORTS.get(parts.scheme, 443)
    endpoint.load_balancing_weight.value = 1
