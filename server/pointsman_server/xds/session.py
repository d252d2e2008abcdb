"""What one stream has been sent and what it is to be sent next: a state machine without I/O.

The rules are those of "xDS REST and gRPC protocol" (envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol), in the
variant *aggregated, state of the world*.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from pointsman_server.xds.names import WILDCARD
from pointsman_server.xds.protocol.types import BY_URL, ResourceType
from pointsman_server.xds.resource import Resource


class Source(Protocol):
    """The resources that one client may have."""

    def resource(self, kind: ResourceType, name: str) -> Resource:
        """Return a resource; every name has one."""

    def names(self, kind: ResourceType) -> Collection[str]:
        """Return the names of all resources, for a client that asks for all."""

    def affected(self, kind: ResourceType, roots: Collection[str], wanted: Collection[str]) -> Iterable[str]:
        """Return those of ``wanted`` that may differ after a change of ``roots``."""


class Push(NamedTuple):
    """One response."""

    kind: ResourceType
    version: str
    nonce: str
    resources: Sequence[Resource]


@dataclass(slots=True)
class _Subscription:
    """What a client wants of one type, and has: ``sent`` are the versions of what it was sent, ``dirty`` may differ."""

    wanted: dict[str, None] = field(default_factory=dict)
    wildcard: bool = False
    sent: dict[str, int] = field(default_factory=dict)
    dirty: dict[str, None] = field(default_factory=dict)
    # The exclusive or of the versions of ``sent``.
    version: int = 0
    nonce: str = ""
    unacknowledged: bool = False
    # The client's text, where it refused the last response.
    refused: str = ""
    began: bool = False

    def put(self, name: str, version: int | None) -> None:
        self.version ^= self.sent.pop(name, 0)
        if version is not None:
            self.sent[name] = version
            self.version ^= version


class Session:
    """Invariants:

    - At most one response of a type is unacknowledged. What changes meanwhile waits and is merged: so a client that
      reads slowly holds no more than its subscriptions.
    - A response of LDS or CDS has every resource that the client wants; one of RDS or EDS those that it lacks.
    - A response that was refused is not sent again; what changes later is.
    - What closes is sent first, and what opens after the clusters that it leads to: a RouteConfiguration that the
      client has waits until clusters and endpoints are acknowledged, unless it lets no call through.
    """

    def __init__(self, source: Source, *, rewarms: bool = False) -> None:
        """``rewarms``: a changed Cluster needs its endpoints again, as Envoy's do."""
        self._source = source
        self._rewarms = rewarms
        self._types = {kind: _Subscription() for kind in ResourceType}
        self._count = 0

    @property
    def wanted(self) -> Iterable[str]:
        """The names of everything that the client wants by name."""
        return (name for subscription in self._types.values() for name in subscription.wanted)

    @property
    def settled(self) -> bool:
        """Whether the client has acknowledged everything as it is now."""
        return not any(each.unacknowledged or each.dirty or each.refused for each in self._types.values())

    @property
    def refusals(self) -> dict[ResourceType, str]:
        """What the client said to the last response of a type, where it refused it."""
        return {kind: each.refused for kind, each in self._types.items() if each.refused}

    def receive(self, request: Any) -> None:
        """Take a request of the client: a subscription, an acknowledgement, a refusal."""
        kind = BY_URL.get(request.type_url)
        if kind is None:
            return
        subscription = self._types[kind]
        if request.response_nonce and subscription.nonce and request.response_nonce != subscription.nonce:
            return  # superseded: the client answers the newer response, too
        if request.response_nonce and subscription.nonce:
            subscription.unacknowledged = False
            subscription.refused = request.error_detail.message if request.HasField("error_detail") else ""
        self._subscribe(kind, subscription, request.resource_names)
        if not subscription.began:
            subscription.began = True
            self._resume(kind, subscription, request.version_info)

    def change(self, roots: Collection[str]) -> None:
        """Note that what ``roots`` lead to may have changed."""
        for kind, subscription in self._types.items():
            if subscription.began:
                self._refresh_wildcard(kind, subscription)
                for name in self._source.affected(kind, roots, subscription.wanted):
                    subscription.dirty[name] = None

    def take(self) -> list[Push]:
        """Return the responses to send now, in their order."""
        return [push for kind, part in _ORDER if (push := self._push(kind, part))]

    def _subscribe(self, kind: ResourceType, subscription: _Subscription, names: Sequence[str]) -> None:
        legacy = kind.is_complete and not names and (subscription.wildcard or not subscription.began)
        subscription.wildcard = legacy or WILDCARD in names
        wanted = dict.fromkeys(name for name in names if name != WILDCARD)
        if subscription.wildcard:
            wanted.update(dict.fromkeys(self._source.names(kind)))
        self._want(subscription, wanted)

    def _want(self, subscription: _Subscription, wanted: dict[str, None]) -> None:
        for name in subscription.wanted.keys() - wanted.keys():
            subscription.put(name, None)
            subscription.dirty.pop(name, None)
        subscription.dirty.update(dict.fromkeys(name for name in wanted if name not in subscription.wanted))
        subscription.wanted = wanted

    def _refresh_wildcard(self, kind: ResourceType, subscription: _Subscription) -> None:
        if subscription.wildcard:
            wanted = dict.fromkeys(self._source.names(kind))
            gone = subscription.wanted.keys() - wanted.keys()
            self._want(subscription, wanted)
            # So that a response without them is sent.
            subscription.dirty.update(dict.fromkeys(gone))

    def _resume(self, kind: ResourceType, subscription: _Subscription, version: str) -> None:
        """Send nothing to a client that has the same already, from this server or another one."""
        if not version:
            return
        current = {name: self._source.resource(kind, name).version for name in subscription.wanted}
        combined = 0
        for each in current.values():
            combined ^= each
        if current and version == _text(combined):
            subscription.sent, subscription.version = current, combined
            subscription.dirty.clear()

    def _push(self, kind: ResourceType, part: str) -> Push | None:
        subscription = self._types[kind]
        if subscription.unacknowledged or not subscription.dirty:
            return None
        removed = [name for name in subscription.dirty if name not in subscription.wanted]
        changed = self._changed(kind, subscription, part)
        for name in (*removed, *(resource.name for resource in changed)):
            del subscription.dirty[name]
        if not changed and not removed:
            return None
        for resource in changed:
            subscription.put(resource.name, resource.version)
        if kind is ResourceType.CDS and self._rewarms:
            self._rewarm(changed)
        sent = [self._source.resource(kind, name) for name in subscription.wanted] if kind.is_complete else changed
        self._count += 1
        subscription.nonce, subscription.unacknowledged = f"{self._count:x}", True
        return Push(kind, _text(subscription.version), subscription.nonce, sent)

    def _changed(self, kind: ResourceType, subscription: _Subscription, part: str) -> list[Resource]:
        """Return what differs from what the client has, and may be sent now; what is the same is dirty no more."""
        resources = [self._source.resource(kind, name) for name in subscription.dirty if name in subscription.wanted]
        changed = [resource for resource in resources if subscription.sent.get(resource.name) != resource.version]
        for resource in resources:
            if resource not in changed:
                del subscription.dirty[resource.name]
        return [each for each in changed if self._may_be_sent(each, part, first=each.name not in subscription.sent)]

    def _may_be_sent(self, resource: Resource, part: str, *, first: bool) -> bool:
        if part == "closing":
            return not first and not resource.live
        if part == "all" or first or not resource.live:
            return True
        return not any(self._types[kind].unacknowledged or self._types[kind].dirty for kind in _BEFORE_ROUTES)

    def _rewarm(self, clusters: Iterable[Resource]) -> None:
        endpoints = self._types[ResourceType.EDS]
        for cluster in clusters:
            if cluster.name in endpoints.wanted:
                endpoints.put(cluster.name, None)
                endpoints.dirty[cluster.name] = None


_BEFORE_ROUTES = (ResourceType.CDS, ResourceType.EDS)
_ORDER = (
    (ResourceType.RDS, "closing"),
    (ResourceType.CDS, "all"),
    (ResourceType.EDS, "all"),
    (ResourceType.LDS, "all"),
    (ResourceType.RDS, "opening"),
)


def _text(version: int) -> str:
    return f"{version:016x}"
