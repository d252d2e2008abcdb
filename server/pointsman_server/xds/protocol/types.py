"""The resource types that are served, by the names of their APIs."""

from enum import StrEnum

_PREFIX = "type.googleapis.com/"


class ResourceType(StrEnum):
    """A type of resource; the value is its type URL."""

    LDS = f"{_PREFIX}envoy.config.listener.v3.Listener"
    RDS = f"{_PREFIX}envoy.config.route.v3.RouteConfiguration"
    CDS = f"{_PREFIX}envoy.config.cluster.v3.Cluster"
    EDS = f"{_PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment"

    # That of Enum is a function in Python, and types are keys wherever a stream does anything.
    __hash__ = str.__hash__

    @property
    def is_complete(self) -> bool:
        """Whether each response has every resource that the client wants: what is missing there is removed."""
        return self in _COMPLETE


_COMPLETE = frozenset({ResourceType.LDS, ResourceType.CDS})
BY_URL = {str(each): each for each in ResourceType}
