"""In which order a client is sent what belongs together, so that no call fails in between: make before break.

The order is that of "xDS REST and gRPC protocol", *Eventual consistency considerations*: clusters, endpoints,
listeners, routes, and then the removal of clusters. A RouteConfiguration that closes comes before all.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from pointsman_server.xds.names import root_of
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource, Source
from pointsman_server.xds.subscription import NOT_SENT, Subscription

# A type, and what returns the names of it that may be sent now. It is called when the steps before are done.
Step = tuple[ResourceType, Callable[[], Collection[str]]]


def steps(types: Mapping[ResourceType, Subscription], source: Source, *, warms: bool, hold: bool) -> Sequence[Step]:
    """Return the steps for one client. Without ``hold``, nothing waits for another type."""
    found = _Order(types, source, warms=warms, hold=hold)
    return (
        (ResourceType.RDS, found.closing),
        (ResourceType.CDS, found.clusters),
        (ResourceType.EDS, found.endpoints),
        (ResourceType.LDS, found.listeners),
        (ResourceType.RDS, found.routes),
        (ResourceType.CDS, found.removal),
    )


def for_now(types: Mapping[ResourceType, Subscription], resource: Resource) -> Resource:
    """Return what a client is sent of a resource: itself, or what it is to have first."""
    routes, first = types[ResourceType.RDS], _first(types, resource)
    if first is None or not routes.has(resource.name) or routes.versions[resource.name] == first.version:
        return resource
    return first


def _first(types: Mapping[ResourceType, Subscription], resource: Resource) -> Resource | None:
    """Return what a client is to have before a resource; None if it is ready for that."""
    if resource.preparation is not None and resource.marker in types[ResourceType.CDS].versions:
        return resource.preparation
    return resource.introduction if _lacks(types, resource) else None


def _lacks(types: Mapping[ResourceType, Subscription], resource: Resource) -> bool:
    """Return whether a client lacks anything that a resource needs.

    What its last RouteConfiguration did not need, it has forgotten, and may not have said so yet.
    """
    known = (types[ResourceType.RDS].needs or {}).get(resource.name, ())
    return any(
        need not in known or types[need[0]].versions.get(need[1], NOT_SENT) == NOT_SENT for need in resource.needs
    )


class _Order:
    def __init__(self, types: Mapping[ResourceType, Subscription], source: Source, *, warms: bool, hold: bool) -> None:
        self._types = types
        self._listeners, self._routes = types[ResourceType.LDS], types[ResourceType.RDS]
        self._clusters, self._endpoints = types[ResourceType.CDS], types[ResourceType.EDS]
        self._source = source
        self._warms = warms
        self._hold = hold

    def closing(self) -> Collection[str]:
        """Return the RouteConfigurations that let calls through at the client, and no longer here."""
        routes = self._routes
        return [name for name in routes.dirty if routes.has(name) and not self._is_live(name)]

    def clusters(self) -> Collection[str]:
        """Return the Clusters, but none while one of them waits for a RouteConfiguration that closes."""
        dirty = self._clusters.dirty
        if self._hold and dirty:
            if self._is_resumed() or (self._routes.under_way and self._has_what_closes()):
                return ()
            closing = {root_of(name) for name in self.closing()}
            if closing and any(root_of(name) in closing for name in dirty):
                return ()
        return dirty

    def endpoints(self) -> Collection[str]:
        """Return the endpoints, but those that the client has after what closes, and after their Cluster."""
        dirty = self._endpoints.dirty
        if not self._hold or not dirty:
            return dirty
        waiting = {root_of(name) for name in (*self.closing(), *self._clusters.dirty)}
        resumed = self._is_resumed() or not self._clusters.began
        return [
            name
            for name in dirty
            if not self._endpoints.has(name) or not (resumed or root_of(name) in waiting or self._is_used(name))
        ]

    def _is_used(self, name: str) -> bool:
        """Return whether a client may still use endpoints that it has of another stream, and that are to be emptied."""
        if not self._endpoints.kept or name not in self._endpoints.kept:
            return False
        resource = self._source.resource(ResourceType.EDS, name)
        if resource.closed:
            return self._routes.under_way
        return not resource.live and self._clusters.under_way

    def listeners(self) -> Collection[str]:
        """Return the Listeners."""
        return self._listeners.dirty

    def routes(self) -> Collection[str]:
        """Return the RouteConfigurations, but those that the client has after their Clusters and endpoints."""
        dirty = self._routes.dirty
        if not self._hold or not dirty:
            return dirty
        waiting = self._unaccepted()
        return [
            name
            for name in dirty
            if not self._routes.has(name)
            or not (waiting is None or root_of(name) in waiting)
            or not self._is_live(name)
            if not self._has_first(name)
        ]

    def removal(self) -> Collection[str]:
        """Remove the Clusters that are leaving, when no RouteConfiguration of the client leads to them any more."""
        clusters = self._clusters
        if clusters.leaving and self._routes.settled and not self._is_resumed():
            for name in tuple(clusters.leaving):
                clusters.drop(name)
            clusters.owed = True
        return ()

    def _unaccepted(self) -> Collection[str] | None:
        """Return the roots whose Clusters and endpoints the client is still to accept; None for all."""
        clusters, endpoints = self._clusters, self._endpoints
        if not clusters.began and (self._warms or self._routes.kept):
            # After a reconnect: the client has clusters, and will ask for them.
            return None
        pending = [*clusters.dirty, *(clusters.unacknowledged or ()), *(endpoints.unacknowledged or ())]
        # Some endpoints wait for the routes.
        pending += [name for name in endpoints.dirty if not self._is_used(name)]
        if pending and clusters.offered is not None:
            # It has one RouteConfiguration for all.
            return None
        return {root_of(name) for name in pending}

    def _is_resumed(self) -> bool:
        """Return whether a client that has clusters or endpoints of another stream is still to ask for its routes."""
        return not self._routes.began and any(each.kept is not None for each in (self._clusters, self._endpoints))

    def _has_what_closes(self) -> bool:
        """Return whether a client has Clusters of another stream that close: a response has them all."""
        return any(self._source.resource(ResourceType.CDS, name).closed for name in self._clusters.kept or ())

    def _has_first(self, name: str) -> bool:
        """Return whether the client has what comes before a RouteConfiguration, and is not ready for that itself."""
        first = _first(self._types, self._source.resource(ResourceType.RDS, name))
        return first is not None and first.version == self._routes.versions[name]

    def _is_live(self, name: str) -> bool:
        return self._source.resource(ResourceType.RDS, name).live
