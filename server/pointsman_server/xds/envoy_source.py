"""The resources of an Envoy, which asks for all: one Listener, one RouteConfiguration, and a Cluster for each slot."""

from collections.abc import Callable, Collection, Iterable, Sequence

from pointsman_server.domain.identity import Scope
from pointsman_server.xds.names import key_of
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource, encode
from pointsman_server.xds.resources import envoy
from pointsman_server.xds.resources.clusters import cluster_names
from pointsman_server.xds.resources.listeners import ENVOY_LISTENER
from pointsman_server.xds.snapshot import ResourceSnapshot, Subscriber
from pointsman_server.xds.sources import GrpcSource, Listener
from pointsman_server.xds.views import View

ANY = "*"


class EnvoySource(GrpcSource):
    """The names of the families that the view selects and the client may read, and of their versions.

    Other names are not among the resources, so that an Envoy hears of no tenant that it may not read: their calls are
    NOT_FOUND. A name that has no route any more is removed, and is NOT_FOUND, too.
    """

    def __init__(self, snapshot: ResourceSnapshot, view: View, may_read: Callable[[Scope], bool]) -> None:
        super().__init__(snapshot, view, may_read)
        self._patterns = [tuple(pattern.split("/")) for pattern in view.families]
        self._selected: set[str] = set()
        # Virtual hosts by their roots, and the order and the whole of them; None where that is to be made again.
        self._hosts: dict[str, bytes] = {}
        self._order: Sequence[str] | None = None
        self._joined: Resource | None = None
        self._follows: Subscriber | None = None
        self._any_changed = False

    def resource(self, kind: ResourceType, name: str) -> Resource:
        if kind is ResourceType.RDS and name == ENVOY_LISTENER:
            if self._joined is None:
                self._joined = encode(kind, name, envoy.join(self._virtual_hosts()))
            return self._joined
        return super().resource(kind, name)

    def names(self, kind: ResourceType, roots: Collection[str] | None = None) -> Collection[str]:
        if roots is None:
            self._select_all()
        if kind is ResourceType.LDS:
            return (ENVOY_LISTENER,) if roots is None else ()
        if kind is not ResourceType.CDS:
            return ()
        chosen = self._selected if roots is None else self._selected.intersection(roots)
        return [name for root in sorted(chosen) for name in self._clusters(root)]

    def dependents(self, kind: ResourceType, roots: Collection[str]) -> Collection[str]:
        return (ENVOY_LISTENER,) if kind is ResourceType.RDS and any(map(self._selects, roots)) else ()

    def watch_all(self, stream: Listener) -> None:
        self._follows = stream
        self._snapshot.follow(self)

    def flush(self, stream: Listener) -> None:
        if not self._any_changed:
            super().flush(stream)
            return
        self._any_changed = False
        self._snapshot.news(stream)
        stream.check()

    def leave(self, stream: Listener) -> None:
        self._snapshot.unfollow(self)
        super().leave(stream)

    # The snapshot calls these.

    def update(self, roots: Collection[str]) -> Iterable[Subscriber]:
        """Note that ``roots`` may have changed. Returns who is to be woken."""
        changed = [root for root in roots if self._selects(root)]
        for root in changed:
            self._hosts.pop(root, None)
            if self._exists(root) != (root in self._selected):
                self._selected ^= {root}
                self._order = None
        if not changed or self._follows is None:
            return ()
        self._joined = None
        return (self._follows,)

    def replace(self) -> Iterable[Subscriber]:
        """Note that anything may have changed. Returns who is to be woken."""
        self._any_changed = True
        return () if self._follows is None else (self._follows,)

    def _select_all(self) -> None:
        self._selected = {root for root in self._snapshot.table.roots() if self._selects(root)}
        self._hosts, self._order, self._joined = {}, None, None

    def _selects(self, root: str) -> bool:
        """Return whether a name belongs to a family that the client routes to, and may read."""
        key = key_of(root)
        if key is None or not self._may_read(Scope(key.tenant, key.env)):
            return False
        family = (key.tenant, key.service, key.env)
        return not self._patterns or any(_matches(pattern, family) for pattern in self._patterns)

    def _exists(self, root: str) -> bool:
        table, key = self._snapshot.table, key_of(root)
        if key is not None and key.version:
            return key.version in table.versions(root[len(key.version) + 1 :])
        return table.has_family(root)

    def _clusters(self, root: str) -> Sequence[str]:
        return cluster_names(self._view, root, self._snapshot.target(root))

    def _virtual_hosts(self) -> Iterable[bytes]:
        if self._order is None:
            hidden = envoy.collisions(self._selected)
            self._order = sorted(root for root in self._selected if root not in hidden)
        for root in self._order:
            host = self._hosts.get(root)
            if host is None:
                host = self._hosts[root] = envoy.virtual_host(self._view, root, self._snapshot.target(root))
            yield host


def _matches(pattern: Sequence[str], family: Sequence[str]) -> bool:
    return len(pattern) == len(family) and all(
        wanted in {ANY, part} for wanted, part in zip(pattern, family, strict=True)
    )
