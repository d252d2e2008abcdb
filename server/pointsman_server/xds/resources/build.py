"""Builds the resource of a name: total, so that nothing that a client asks for is ever missing."""

from collections.abc import Callable, Mapping
from typing import Any

from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource, encode
from pointsman_server.xds.resources import clusters, listeners, routes
from pointsman_server.xds.targets import Target
from pointsman_server.xds.views import View

_BUILDERS: Mapping[ResourceType, Callable[[View, str, Target], Any]] = {
    ResourceType.LDS: listeners.listener,
    ResourceType.RDS: routes.route_configuration,
    ResourceType.CDS: clusters.cluster,
    ResourceType.EDS: clusters.load_assignment,
}


def build(view: View, kind: ResourceType, name: str, target: Target) -> Resource:
    """Build the resource called ``name``, whose root leads to ``target``, for the clients of ``view``."""
    live = kind is not ResourceType.RDS or routes.is_live(view, target)
    return encode(kind, name, _BUILDERS[kind](view, name, target), live=live)
