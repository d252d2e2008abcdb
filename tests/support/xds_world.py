"""What a session sends from, without a table: a few roots, of which every part can be changed by itself."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pointsman_server.xds.names import root_of
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource, encode
from pointsman_server.xds.session import Push, Session

LDS, RDS, CDS, EDS = ResourceType.LDS, ResourceType.RDS, ResourceType.CDS, ResourceType.EDS
# A RouteConfiguration that is made of all roots, as that of an Envoy.
ALL = "all"


@dataclass(frozen=True)
class Root:
    """``moved``: the Cluster needs no endpoints any more. ``slots`` are the clusters that a wildcard gives."""

    listener: int = 0
    route: int = 0
    cluster: int = 0
    endpoints: int = 0
    live: bool = True
    moved: bool = False
    slots: int = 1


@dataclass
class World:
    """A ``Source`` for tests. Roots that it does not have are not live; they have resources all the same."""

    roots: dict[str, Root] = field(default_factory=dict)
    # Whether Clusters and endpoints change when what they lead to closes, as those of gRPC clients do.
    lingers: bool = False
    # What RouteConfigurations lead to, that is to be introduced.
    needs: dict[str, tuple[tuple[ResourceType, str], ...]] = field(default_factory=dict)
    # RouteConfigurations that clients which have the marker are prepared for, when they are live.
    prepared: set[str] = field(default_factory=set)

    def set(self, root: str, **values: int) -> Collection[str]:
        """Change parts of a root; returns what changed, as ``Session.change`` takes it."""
        self.roots[root] = replace(self.roots.get(root, Root()), **values)  # type: ignore[arg-type]
        return (root,)

    def root(self, name: str) -> Root:
        return self.roots.get(root_of(name), Root(live=False))

    def resource(self, kind: ResourceType, name: str) -> Resource:
        if self.lingers and kind in (CDS, EDS) and not self.root(name).live:
            return encode(kind, name, b"closed")._replace(closed=True)
        content, live = self._content(kind, name)
        resource = encode(kind, name, f"{content}".encode(), live=live)
        if kind is RDS and name in self.prepared and live:
            preparation = encode(kind, name, f"{content} is prepared".encode(), live=False)
            resource = resource._replace(preparation=preparation, marker=f"{name}~~k0")
        if kind is RDS and name in self.needs:
            introduction = encode(kind, name, f"{content} is introduced".encode())
            resource = resource._replace(introduction=introduction, needs=self.needs[name])
        return resource

    def _content(self, kind: ResourceType, name: str) -> tuple[object, bool]:
        root = self.root(name)
        if name == ALL:
            return sorted((key, each.route, each.live, each.slots) for key, each in self.roots.items()), True
        if kind is LDS:
            return root.listener, True
        if kind is RDS:
            return (root.route, root.live), root.live
        if kind is CDS:
            return (root.cluster, root.moved), True
        assert kind is EDS
        needs = not root.moved
        return root.endpoints if needs else "none", needs or not root.live

    def names(self, kind: ResourceType, roots: Collection[str] | None = None) -> Collection[str]:
        known = [root for root in (self.roots if roots is None else roots) if root in self.roots]
        if kind is not CDS:
            return known
        return [f"{root}~~{slot}" if slot else root for root in known for slot in range(self.roots[root].slots)]

    def dependents(self, kind: ResourceType, roots: Collection[str]) -> Collection[str]:
        return (ALL,) if kind is RDS and roots else ()


def request(
    kind: str, *names: str, nonce: str = "", version: str = "", error: str | None = None, node: str = ""
) -> "pb.DiscoveryRequest":
    """Make a DiscoveryRequest; ``error`` makes it a NACK."""
    made = pb.DiscoveryRequest(type_url=kind, resource_names=names, response_nonce=nonce, version_info=version)
    if error is not None:
        made.error_detail.code, made.error_detail.message = 3, error
    if node:
        made.node.id = node
    return made


def answer(response: Any, names: Sequence[str], error: str | None = None) -> "pb.DiscoveryRequest":
    """Make the request that acknowledges a DiscoveryResponse, or refuses it with the text ``error``."""
    version = response.version_info if error is None else ""
    return request(response.type_url, *names, nonce=response.nonce, version=version, error=error)


class Client:
    """Acknowledges what it is sent, unless told otherwise."""

    def __init__(self, world: World, *, warms: bool = False) -> None:
        self.world = world
        self.session = Session(world, warms=warms)
        self.names: dict[ResourceType, tuple[str, ...]] = {}

    def ask(self, kind: ResourceType, *names: str, nonce: str = "", version: str = "") -> list[Push]:
        self.names[kind] = names
        self.session.receive(request(kind, *names, nonce=nonce, version=version))
        return self.session.take()

    def answer(self, push: Push, error: str | None = None) -> list[Push]:
        said = request(push.kind, *self.names[push.kind], nonce=push.nonce, version=push.version, error=error)
        self.session.receive(said)
        return self.session.take()

    def settle(self, pushes: Sequence[Push] = ()) -> list[Push]:
        """Acknowledge everything; returns all that was sent."""
        left = list(pushes) or self.session.take()
        sent = list(left)
        while left:
            more = self.answer(left.pop(0))
            left += more
            sent += more
        return sent

    def change(self, root: str, **values: int) -> list[Push]:
        self.session.change(self.world.set(root, **values))
        return self.session.take()


def sent(pushes: Sequence[Push]) -> list[tuple[ResourceType, list[str]]]:
    return [(push.kind, [resource.name for resource in push.resources]) for push in pushes]
