"""The resources of an Envoy, which asks for all: one Listener, one RouteConfiguration, and a Cluster for each slot."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

from pointsman_server.domain.errors import Overloaded
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import HEARTBEAT
from pointsman_server.runtime.fair_share import Window
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource, encode
from pointsman_server.xds.resources import envoy
from pointsman_server.xds.resources.clusters import cluster_names
from pointsman_server.xds.resources.listeners import ENVOY_LISTENER
from pointsman_server.xds.snapshot import ResourceSnapshot, Subscriber
from pointsman_server.xds.sources.grpc_source import GrpcSource, Listener
from pointsman_server.xds.targets import Target
from pointsman_server.xds.views import View

ANY = "*"
_SEPARATOR = "~"
_FAMILY_PARTS = 3
# Families whose resources are built in a turn: about a millisecond, for families of three versions.
PREPARED_IN_A_TURN = 3
# Of families and versions together, for one Envoy: its RouteConfiguration has a virtual host for each, and is sent
# whole with each change, up to a megabyte then.
MOST_NAMES = 2_000
# Its route changes all the time, and nobody calls it.
_UNSERVED = HEARTBEAT[:_FAMILY_PARTS]


class EnvoySource(GrpcSource):
    """The names of the families that the view selects and the client may read, and of their versions.

    Other names are not among the resources, so that an Envoy hears of no tenant that it may not read: their calls are
    NOT_FOUND. A name that has no route any more is removed, and is NOT_FOUND, too.

    It subscribes to every name that it has: so what is built is kept, and Envoys share it, but for their listeners.
    """

    def __init__(self, snapshot: ResourceSnapshot, view: View, may_read: Callable[[Scope], bool]) -> None:
        super().__init__(snapshot, view.shared, may_read)
        self._own_view = view
        patterns = [tuple(pattern.split("/")) for pattern in view.families]
        self._exact = {pattern for pattern in patterns if ANY not in pattern}
        self._wild = [pattern for pattern in patterns if ANY in pattern]
        self._selected: set[str] = set()
        # What the client asked for by name; it may be selected, too.
        self._named: set[str] = set()
        # The names that have a virtual host, in their order; None where they are to be chosen again.
        self._order: Sequence[str] | None = None
        self._joined: Resource | None = None
        self._stream: Listener | None = None
        self._any_changed = False

    async def prepare(self) -> None:
        """Build what the client is going to ask for, in turns with other work.

        Raises Overloaded where that is too much for one Envoy. One that has its names keeps them when they become more.
        """
        selected = self._families()
        self._check_size(selected)
        self._snapshot.follow(self)
        try:
            families = iter(selected)
            while some := list(islice(families, PREPARED_IN_A_TURN)):
                await self._snapshot.turn()
                for root in (root for family in some for root in self._roots(family)):
                    self._select(root)
                    self._virtual_host(root)
                    for name in self._clusters(root):
                        self.resource(ResourceType.CDS, name)
        except BaseException:
            self._drop()
            raise

    def resource(self, kind: ResourceType, name: str) -> Resource:
        if kind is ResourceType.RDS and name == ENVOY_LISTENER:
            if self._joined is None:
                self._joined = encode(kind, name, envoy.join(map(self._virtual_host, self._served())))
            return self._joined
        if kind is ResourceType.LDS:
            return self._snapshot.resource(self._own_view, kind, name)
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

    def watch(self, stream: Listener, root: str) -> None:  # noqa: ARG002 - of the protocol
        self._named.add(root)
        self._snapshot.subscribe(root, self)

    def unwatch(self, stream: Listener, root: str) -> None:  # noqa: ARG002 - of the protocol
        self._named.discard(root)
        if root not in self._selected:
            self._snapshot.unsubscribe(root, self)

    def watch_all(self, stream: Listener) -> None:  # noqa: ARG002 - of the protocol
        self._snapshot.follow(self)

    def flush(self, stream: Listener) -> None:
        self._stream = stream
        roots = self._snapshot.news(self)
        if self._any_changed or roots is None:
            self._any_changed = False
            stream.check()
        elif roots:
            stream.changed(roots)

    def has_news(self, stream: Listener) -> bool:  # noqa: ARG002 - of the protocol
        return self._snapshot.has_news(self)

    def leave(self, stream: Listener) -> None:  # noqa: ARG002 - of the protocol
        self._stream = None
        self._drop()

    # The snapshot calls these.

    def wake(self, window: Window) -> None:
        """Wake the stream; before it runs there is none, and it takes the news when it begins."""
        if self._stream is not None:
            self._stream.wake(window)

    def update(self, roots: Collection[str]) -> Iterable[Subscriber]:
        """Note that ``roots`` may have changed. Returns who is to be woken."""
        changed = [root for root in roots if self._selects(root)]
        for root in changed:
            if self._exists(root):
                self._select(root)
            else:
                self._deselect(root)
        if not changed:
            return ()
        self._joined = None
        return (self,)

    def replace(self) -> Iterable[Subscriber]:
        """Note that anything may have changed. Returns who is to be woken."""
        self._any_changed = True
        return (self,)

    def _select_all(self) -> None:
        found = {root for family in self._families() for root in self._roots(family)}
        for root in self._selected - found:
            self._deselect(root)
        for root in found - self._selected:
            self._select(root)
        self._joined = None

    def _check_size(self, families: Collection[str]) -> None:
        count = sum(1 + len(self._snapshot.table.versions(family)) for family in families)
        if count > MOST_NAMES:
            text = (
                f"the node of this Envoy selects {count} names of families and versions, and may have {MOST_NAMES}: "
                "list what it routes to in its metadata, pointsman.families, as tenant/service/env"
            )
            raise Overloaded("xds_names", text)

    def _select(self, root: str) -> None:
        if root not in self._selected:
            self._selected.add(root)
            self._order = None
            self._snapshot.subscribe(root, self)

    def _deselect(self, root: str) -> None:
        if root in self._selected:
            self._selected.discard(root)
            self._order = None
            if root not in self._named:
                self._snapshot.unsubscribe(root, self)

    def _drop(self) -> None:
        self._snapshot.unfollow(self)
        for root in self._selected | self._named:
            self._snapshot.unsubscribe(root, self)
        self._selected, self._named = set(), set()
        self._snapshot.leave(self)

    def _families(self) -> Sequence[str]:
        """Return the families that the client has. Only a view with wildcards has to look at all of the table."""
        table = self._snapshot.table
        named = (_SEPARATOR.join(reversed(family)) for family in self._exact)
        candidates = filter(table.has_family, named) if self._exact and not self._wild else table.families()
        may_read: dict[Scope, bool] = {}
        return [family for family in candidates if self._selects(family, may_read)]

    def _selects(self, root: str, may_read: dict[Scope, bool] | None = None) -> bool:
        """Return whether a name belongs to a family that the client routes to, and may read."""
        family = _family_of(root)
        if family is None or family == _UNSERVED or not (family in self._exact or self._matches(family)):
            return False
        tenant, _, env = family
        scope = Scope(tenant, env)
        if may_read is None:
            return self._may_read(scope)
        if scope not in may_read:
            may_read[scope] = self._may_read(scope)
        return may_read[scope]

    def _matches(self, family: Sequence[str]) -> bool:
        return not (self._exact or self._wild) or any(_matches(pattern, family) for pattern in self._wild)

    def _roots(self, family: str) -> Iterator[str]:
        """Return the names of a family and of its versions; none without versions."""
        versions = self._snapshot.table.versions(family)
        if versions:
            yield family
        for version in versions:
            yield f"{version}{_SEPARATOR}{family}"

    def _exists(self, root: str) -> bool:
        table = self._snapshot.table
        version, _, family = root.partition(_SEPARATOR)
        return table.has_family(root) or version in table.versions(family)

    def _clusters(self, root: str) -> Sequence[str]:
        return cluster_names(self._view, root, self._snapshot.target(root))

    def _virtual_host(self, root: str) -> bytes:
        def make(target: Target) -> bytes:
            return envoy.virtual_host(self._view, root, target)

        return self._snapshot.built(root, ("virtual host", self._view), make)

    def _served(self) -> Sequence[str]:
        if self._order is None:
            hidden = envoy.collisions(self._selected)
            self._order = sorted(root for root in self._selected if root not in hidden)
        return self._order


@lru_cache(1024)
def _family_of(root: str) -> tuple[str, str, str] | None:
    """Return tenant, service and env of a name. Each change is asked for by every Envoy."""
    parts = root.split(_SEPARATOR)[-_FAMILY_PARTS:]
    if len(parts) < _FAMILY_PARTS:
        return None
    env, service, tenant = parts
    return tenant, service, env


def _matches(pattern: Sequence[str], family: Sequence[str]) -> bool:
    return len(pattern) == len(family) and all(
        wanted in {ANY, part} for wanted, part in zip(pattern, family, strict=True)
    )
