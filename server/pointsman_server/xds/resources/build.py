"""Builds the resource of a name: total, so that nothing that a client asks for is ever missing."""

from collections.abc import Callable, Mapping
from typing import Any

from pointsman_server.xds.names import root_of
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource, encode
from pointsman_server.xds.resources import clusters, envoy, listeners, routes
from pointsman_server.xds.targets import Target
from pointsman_server.xds.views import ClientKind, View

_BUILDERS: Mapping[ResourceType, Callable[[View, str, Target], Any]] = {
    ResourceType.LDS: listeners.listener,
    ResourceType.RDS: routes.route_configuration,
    ResourceType.CDS: clusters.cluster,
    ResourceType.EDS: clusters.load_assignment,
}


def build(view: View, kind: ResourceType, name: str, target: Target) -> Resource:
    """Build the resource called ``name``, whose root leads to ``target``, for the clients of ``view``.

    The RouteConfiguration of an Envoy is joined of many (``envoy.join``); here it has one name at most.
    """
    content = message(view, kind, name, target)
    resource = encode(kind, name, content, live=_is_live(view, kind, target, content))
    if kind is ResourceType.CDS and view.kind is ClientKind.GRPC:
        resource = resource._replace(leads_to=clusters.asked_with(view, content, target))
    if kind in (ResourceType.CDS, ResourceType.EDS) and _is_closed(view, name, target):
        return resource._replace(closed=True)
    return _introduced(view, target, resource) if kind is ResourceType.RDS else resource


def message(view: View, kind: ResourceType, name: str, target: Target) -> Any:
    """Build the content of a resource."""
    if kind is ResourceType.RDS and view.kind is ClientKind.ENVOY:
        return envoy.route_configuration(view, name, target)
    return _BUILDERS[kind](view, name, target)


def _introduced(view: View, target: Target, resource: Resource) -> Resource:
    """Add to a RouteConfiguration what a client is to have before it."""
    if view.kind is not ClientKind.GRPC:
        return resource
    name = resource.name
    if needs := routes.needs_of(view, name, target):
        content = routes.route_configuration(view, name, target, introduces=True)
        resource = resource._replace(introduction=encode(ResourceType.RDS, name, content), needs=needs)
    if routes.is_prepared(view, target):
        content = routes.route_configuration(view, name, target, prepares=True)
        preparation = encode(ResourceType.RDS, name, content)
        resource = resource._replace(preparation=preparation, marker=routes.marker_of(name))
    return resource


def _is_closed(view: View, name: str, target: Target) -> bool:
    """Return whether no call is let through to a cluster."""
    if not routes.is_live(view, target):
        return True
    return view.kind is ClientKind.ENVOY and name not in clusters.cluster_names(view, root_of(name), target)


def _is_live(view: View, kind: ResourceType, target: Target, content: Any) -> bool:
    if kind is ResourceType.RDS:
        return routes.is_live(view, target)
    if kind is not ResourceType.EDS or content.endpoints:
        return True
    # A cluster of a live name that has no endpoints has become one of another type. An Envoy has one RouteConfiguration
    # for all names, which closes one after its endpoints have changed: so it keeps them.
    return view.kind is ClientKind.GRPC and not routes.is_live(view, target)
