"""The one RouteConfiguration of an Envoy: a virtual host for each name, encoded once, and one for all other names."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from pointsman_server.domain.codec import encoded_field
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.resources import priorities
from pointsman_server.xds.resources.clusters import slot_name
from pointsman_server.xds.resources.destinations import Destination, destination_of
from pointsman_server.xds.resources.listeners import ENVOY_LISTENER, FAULT
from pointsman_server.xds.resources.routes import fault
from pointsman_server.xds.resources.verdicts import fallbacks_of, verdict_of
from pointsman_server.xds.targets import UNKNOWN, Slot, Target, Verdict
from pointsman_server.xds.views import View

_VIRTUAL_HOSTS = 2  # of RouteConfiguration
# The HTTP status of calls that are not gRPC, where a name is not live, and its body.
HTTP: Mapping[Verdict, tuple[int, str]] = {
    Verdict.NOT_A_NAME: (404, "no route is called so\n"),
    Verdict.NOT_LIVE: (404, "nothing is live under this name\n"),
    Verdict.FORBIDDEN: (403, "this proxy may not read the tenant and env\n"),
    Verdict.NOT_CARRIED: (502, "the URL of this name cannot be reached through xDS\n"),
}
# Where calls to unknown names are led to by their routes; the fault ends them before.
NOWHERE = "pointsman~~nowhere"
_MILLION = 1_000_000


def virtual_host(view: View, root: str, target: Target) -> bytes:
    """Build the virtual host of a root, as a field of a RouteConfiguration."""
    return _encoded(_virtual_host(view, root, root, target))


def join(virtual_hosts: Iterable[bytes]) -> bytes:
    """Join virtual hosts to a RouteConfiguration, which answers NOT_FOUND for all other names."""
    head = pb.RouteConfiguration(name=ENVOY_LISTENER)
    # As is the rule for a configuration from xDS: there is no cluster for unknown names.
    head.validate_clusters.SetInParent()
    return b"".join((head.SerializeToString(deterministic=True), *virtual_hosts, _other_names()))


def route_configuration(view: View, name: str, target: Target) -> Any:
    """Build a RouteConfiguration of one name; of the name of the whole, one without names."""
    hosts = [] if name == ENVOY_LISTENER else [virtual_host(view, name, target)]
    configuration = pb.RouteConfiguration.FromString(join(hosts))
    configuration.name = name
    return configuration


def collisions(roots: Iterable[str]) -> dict[str, str]:
    """Return the roots that are not served, each with the one that is served in its place.

    Domains are compared without regard to case, and two that are equal make Envoy refuse the whole RouteConfiguration.
    Of those that differ in case only, the last one in the order of their characters is served: where they first differ,
    it has the small letter.
    """
    served: dict[str, str] = {}
    hidden: dict[str, str] = {}
    for root in roots:
        before = served.setdefault(root.lower(), root)
        if before != root:
            served[root.lower()], hidden[min(before, root)] = max(before, root), ""
    return {root: served[root.lower()] for root in hidden}


@cache
def _other_names() -> bytes:
    return _encoded(_virtual_host(View(), "*", NOWHERE, UNKNOWN))


def _encoded(host: Any) -> bytes:
    return encoded_field(_VIRTUAL_HOSTS, host.SerializeToString(deterministic=True))


def _virtual_host(view: View, domain: str, root: str, target: Target) -> Any:
    host = pb.VirtualHost(name=domain, domains=[domain])
    verdict = verdict_of(view.kind, target)
    if verdict is Verdict.LIVE:
        _add_routes(host, view, root, target)
        return host
    grpc = host.routes.add()
    grpc.match.prefix = "/"
    grpc.match.grpc.SetInParent()
    grpc.route.cluster = slot_name(view, root, target, 0)
    grpc.typed_per_filter_config[FAULT].Pack(fault(verdict))
    # Others would get the status 200 of the fault.
    other = host.routes.add()
    other.match.prefix = "/"
    other.direct_response.status, other.direct_response.body.inline_string = HTTP[verdict]
    return host


def _add_routes(host: Any, view: View, root: str, target: Target) -> None:
    """Divide calls by routes that are taken with a probability, because each URL has a path of its own.

    Envoy draws once for a call: a route is taken where the drawn number is below its own and the weights before it.
    """
    below = 0
    weighted = [(number, slot) for number, slot in enumerate(target.slots) if slot.weight]
    # Less than ``POINTS`` where a version that has a weight is not active: the others divide what is left.
    total = sum(slot.weight for _, slot in weighted)
    fallbacks = fallbacks_of(view.kind, target)
    for number, slot in weighted:
        below += slot.weight
        route = host.routes.add()
        route.match.prefix = "/"
        if (number, slot) != weighted[-1]:
            fraction = route.match.runtime_fraction.default_value
            fraction.numerator = below * _MILLION // total
            fraction.denominator = pb.FractionalPercent.MILLION
        _lead(route.route, view, slot_name(view, root, target, number), slot)
        if fallbacks:
            priorities.try_next(route.route.retry_policy, len(fallbacks))


def _lead(action: Any, view: View, cluster: str, slot: Slot) -> None:
    action.cluster = cluster
    # The host of the endpoint, and not of the route, so that a cut-over changes both at once.
    action.auto_host_rewrite.value = True
    # The deadline is the caller's: grpc-timeout, of any length.
    action.timeout.SetInParent()
    action.max_stream_duration.grpc_timeout_header_max.SetInParent()
    destination = destination_of(view.kind, slot.url)
    if isinstance(destination, Destination) and destination.path:
        action.prefix_rewrite = destination.path
