"""Fallbacks of Envoy: endpoints of falling priority in one cluster, each with TLS of its own."""

from collections.abc import Sequence
from typing import Any

from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.resources.destinations import Destination
from pointsman_server.xds.resources.endpoints import add_endpoint
from pointsman_server.xds.resources.tls import secure
from pointsman_server.xds.views import View

# After as many failed connections Envoy takes the next endpoint at once, for so long: it looks again each second.
FAILED_CONNECTIONS = 3
EJECTION_SECONDS = 5
PREVIOUS_PRIORITIES = "envoy.retry_priorities.previous_priorities"
# The metadata of endpoints that transport sockets are chosen by.
_MATCH = "envoy.transport_socket_match"
_PLACE = "place"


def add(cluster: Any, view: View, destinations: Sequence[Destination]) -> None:
    """Make Envoy connect to the first of ``destinations`` that it can connect to."""
    # The only type whose endpoints may be names and addresses together.
    cluster.type = pb.Cluster.STRICT_DNS
    # With ALL, each address of a name would get calls; a host need not listen at all of them.
    cluster.dns_lookup_family = pb.Cluster.V4_PREFERRED
    cluster.load_assignment.cluster_name = cluster.name
    for priority, destination in enumerate(destinations):
        locality = add_endpoint(cluster.load_assignment, view, destination)
        locality.priority = priority
        if destination.tls:
            locality.lb_endpoints[0].metadata.filter_metadata[_MATCH].update({_PLACE: str(priority)})
            match = cluster.transport_socket_matches.add(name=str(priority))
            match.match.update({_PLACE: str(priority)})
            secure(match, view, destination)
    _give_way(cluster)


def try_next(policy: Any, fallbacks: int) -> None:
    """Make Envoy try a call again that could not be connected, with each of the fallbacks.

    Nothing was sent yet, so any call may be. Without ``retry_priority`` it would go to the same host until that is
    ejected, which Envoy decides in another thread, and so too late for some calls.
    """
    policy.retry_on = "connect-failure"
    policy.num_retries.value = fallbacks
    policy.retry_priority.name = PREVIOUS_PRIORITIES
    policy.retry_priority.typed_config.Pack(pb.PreviousPriorities(update_frequency=1))


def _give_way(cluster: Any) -> None:
    """Let Envoy take the next cluster for some seconds when connections fail; answers of the host do not count."""
    rules = cluster.outlier_detection
    rules.split_external_local_origin_errors = True
    rules.consecutive_local_origin_failure.value = FAILED_CONNECTIONS
    rules.interval.FromSeconds(1)
    rules.base_ejection_time.FromSeconds(EJECTION_SECONDS)
    rules.max_ejection_time.FromSeconds(EJECTION_SECONDS)
    rules.max_ejection_percent.value = 100
    for other in ("consecutive_5xx", "consecutive_gateway_failure", "success_rate", "local_origin_success_rate"):
        getattr(rules, f"enforcing_{other}").SetInParent()
    cluster.common_lb_config.healthy_panic_threshold.SetInParent()
