"""What one stream has been sent and what it is to be sent next: a state machine without I/O.

The rules are those of "xDS REST and gRPC protocol" (envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol), in the
variant *aggregated, state of the world*.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from itertools import chain
from typing import Any, NamedTuple

from pointsman_server.xds import order
from pointsman_server.xds.lingering import Lingering, Name
from pointsman_server.xds.names import WILDCARD, root_of, shared
from pointsman_server.xds.protocol.types import BY_URL, ResourceType
from pointsman_server.xds.resource import Resource, Source
from pointsman_server.xds.subscription import NOT_SENT, Subscription

# Of what a client says when it refuses a response.
MOST_TEXT = 2_000
WORK_OF_A_NAME = 10


class Push(NamedTuple):
    """One response."""

    kind: ResourceType
    version: str
    nonce: str
    resources: Sequence[Resource]


class Outcome(Enum):
    """What a request was: of no known type or out of order, a subscription alone, an answer to the last response."""

    IGNORED = "ignored"
    SUBSCRIBED = "subscribed"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"


class Status(Enum):
    """What a client has of a resource: what is served now, something else, nothing, or what it refused."""

    SYNCED = "synced"
    STALE = "stale"
    NOT_SENT = "not sent"
    REFUSED = "refused"


class ResourceState(NamedTuple):
    """One resource that a client wants. ``text`` is what the client said when it refused it."""

    kind: ResourceType
    name: str
    version: str
    status: Status
    text: str = ""


class Session:
    """Invariants:

    - At most one response of a type is unacknowledged. What changes meanwhile waits and is merged: so a client that
      reads slowly holds no more than its subscriptions.
    - A response of LDS or CDS has every resource that the client wants; one of RDS or EDS those that it lacks.
    - On a new stream a client is sent everything, whatever its version is: since the response of this version it may
      have forgotten resources, or taken parts of a response that it refused.
    - A resource that was refused is not sent again before it changes, except in a response that has everything.
    - What closes is sent before the clusters that it led to change. What opens is sent after: a RouteConfiguration that
      the client has waits until they are acknowledged, unless it lets no call through.
    - Endpoints are sent after the Cluster that changed with them. A ClusterLoadAssignment is not emptied because its
      Cluster needs it no more: the client uses the endpoints until the other ones are ready.
    - Clusters and endpoints to which no call is let through any more linger at the client (``lingering``): a call that
      it let through just before may be about to choose one.
    - A Cluster that a wildcard gives no more is removed after the RouteConfigurations that led to it.
    - All this is so for what the client has of another stream, too (``Subscription.kept``). Of the Clusters that a
      wildcard gave there, only those that have endpoints of their own are known.
    """

    def __init__(self, source: Source, *, warms: bool = False, nonces: str = "") -> None:
        """``warms``: a changed Cluster needs its endpoints again, as Envoy's do. ``nonces`` begins every nonce."""
        self._source = source
        self._warms = warms
        self._nonces = nonces
        self._types = {kind: Subscription(kind) for kind in ResourceType}
        self._count = 0
        self._lingering = Lingering()
        # Of the last response, which had all of them.
        self._clusters: dict[str, Resource] = {}
        # How many names of each root the client asked for.
        self.roots: dict[str, int] = {}
        # In resources that were sent; a name that it did not ask for before, whose resource is built, is ten of them.
        self.work = 0

    @property
    def wants_all(self) -> bool:
        """Whether the client asks for all resources of a type, so that any change may concern it."""
        return any(each.offered is not None for each in self._types.values())

    @property
    def settled(self) -> bool:
        """Whether the client has accepted everything as it is now."""
        return all(each.settled for each in self._types.values())

    @property
    def is_whole(self) -> bool:
        """Whether the client asks for all that its Listeners lead to: what it begins with it asks for step by step."""
        clusters = self._types[ResourceType.CDS]
        for root in map(root_of, self._types[ResourceType.LDS].versions):
            if root not in self._types[ResourceType.RDS].versions:
                return False
            if clusters.offered is None:
                sent = [self._clusters.get(name) for name in clusters.of_root(root)]
                asked = chain.from_iterable(each.leads_to for each in sent if each)
                if not sent or any(name not in self._types[kind].versions for kind, name in asked):
                    return False
        return True

    @property
    def holds(self) -> bool:
        """Whether anything waits that could be sent: for what is to be accepted before it."""
        return any(each.dirty and each.unacknowledged is None for each in self._types.values())

    @property
    def is_due(self) -> bool:
        """Whether there may be something to send."""
        return any(each.dirty or each.owed or each.leaving for each in self._types.values())

    @property
    def refusals(self) -> dict[ResourceType, str]:
        """What the client said last of what it refused and was not sent otherwise since."""
        return {kind: list(each.refused.values())[-1] for kind, each in self._types.items() if each.refused}

    def count(self, kind: ResourceType) -> int:
        """Return how many resources of a type the client wants."""
        return len(self._types[kind].versions)

    def names(self, kind: ResourceType) -> Collection[str]:
        """Return the names of the resources of a type that the client wants."""
        return self._types[kind].versions.keys()

    def states(self) -> Iterator[ResourceState]:
        """Return every resource that the client wants."""
        for kind, each in self._types.items():
            for name, version in each.versions.items():
                refused = (each.refused or {}).get(name)
                yield ResourceState(kind, name, _text(version), _status(each, name, version), refused or "")

    def receive(self, request: Any) -> Outcome:
        """Take a DiscoveryRequest: a subscription, an acknowledgement, a refusal."""
        kind = BY_URL.get(request.type_url)
        if kind is None:
            return Outcome.IGNORED
        subscription = self._types[kind]
        outcome = _answer(subscription, request)
        if outcome is not Outcome.IGNORED:
            names = tuple(request.resource_names)
            if names != subscription.named or not subscription.began:
                self._subscribe(subscription, self._shared(names), request.version_info)
        return outcome

    def change(self, roots: Collection[str]) -> None:
        """Note that what ``roots`` lead to may have changed."""
        for kind, subscription in self._types.items():
            if subscription.offered is not None:
                had = {name for root in roots for name in subscription.of_root(root)}
                self._offer_again(subscription, had & subscription.offered, self._source.names(kind, roots))
            for root in roots:
                for name in subscription.of_root(root):
                    self._check(subscription, name)
            for name in self._source.dependents(kind, roots):
                self._check(subscription, name)

    def check(self) -> None:
        """Note that anything may have changed, such as what the client may read."""
        for kind, subscription in self._types.items():
            if subscription.offered is not None:
                self._offer_again(subscription, set(subscription.offered), self._source.names(kind))
            for name in subscription.versions:
                self._check(subscription, name)

    def take(self, *, hold: bool = True) -> list[Push]:
        """Return the responses to send now, in their order. Without ``hold``, nothing waits any more (``holds``)."""
        steps = order.steps(self._types, self._source, warms=self._warms, hold=hold)
        return [push for kind, choose in steps if (push := self._push(self._types[kind], choose))]

    def lingering(self) -> Mapping[Name, int]:
        """Return what has begun to linger since the last call, to be passed to ``release`` a while later."""
        return self._lingering.begun()

    def release(self, lingering: Mapping[Name, int]) -> None:
        """Let the client have what it is to have of what lingers; what it may have routes to lingers as long again."""
        for kind, name in self._lingering.release(lingering):
            subscription = self._types[kind]
            if self._types[ResourceType.RDS].under_way:
                self._lingering.begin((kind, name))
                continue
            if name in subscription.leaving:
                continue
            # It may have been sent meanwhile: to a client that asked again, or whose Cluster needs it again.
            if subscription.versions.get(name) not in (None, self._source.resource(kind, name).version):
                subscription.dirty[name] = None

    # Subscriptions

    def _shared(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return names as they are kept: gRPC clients ask for the same ones of most types, and of each many times."""
        kept = tuple(map(shared, names))
        return next((each.named for each in self._types.values() if each.named == kept), kept)

    def _subscribe(self, subscription: Subscription, names: tuple[str, ...], version: str) -> None:
        first, subscription.began = not subscription.began, True
        subscription.explicit |= bool(names)
        if subscription.kind.is_complete:
            self._offer(subscription, WILDCARD in names or not subscription.explicit)
        self._name(subscription, names)
        if first and version:
            self._resume(subscription)

    def _resume(self, subscription: Subscription) -> None:
        """Take note of what a client has of another stream: what it names in its first request with a version."""
        subscription.kept = set(subscription.named) - {WILDCARD}
        clusters = self._types[ResourceType.CDS]
        for name in tuple(subscription.kept):
            if subscription.kind is ResourceType.EDS and clusters.offered is not None and name not in clusters.versions:
                clusters.want(name)
                clusters.leaving[name] = None

    def _name(self, subscription: Subscription, names: tuple[str, ...]) -> None:
        before = dict.fromkeys(subscription.named)
        after = dict.fromkeys(name for name in names if name != WILDCARD)
        for name in after:
            if name not in before:
                # Also one that a wildcard gave already.
                subscription.want(name)
                self.work += WORK_OF_A_NAME
                root = root_of(name)
                self.roots[root] = self.roots.get(root, 0) + 1
        for name in before:
            if name not in after and name != WILDCARD:
                self._unname(subscription, name)
        subscription.named = names

    def _unname(self, subscription: Subscription, name: str) -> None:
        if subscription.offered is None or name not in subscription.offered:
            subscription.drop(name)
        root = root_of(name)
        self.roots[root] -= 1
        if not self.roots[root]:
            del self.roots[root]

    def _offer(self, subscription: Subscription, wildcard: bool) -> None:
        """Begin or end to give a client all resources."""
        if wildcard == (subscription.offered is not None):
            return
        if wildcard:
            names = self._source.names(subscription.kind)
            self.work += WORK_OF_A_NAME * len(names)
            subscription.offered = set(names)
            # Even if there is nothing: a client waits for the answer.
            subscription.owed = True
            for name in names:
                if name not in subscription.versions:
                    subscription.want(name)
            return
        offered, subscription.offered = subscription.offered or set(), None
        for name in (offered | subscription.leaving.keys()) - set(subscription.named):
            subscription.drop(name)

    def _offer_again(self, subscription: Subscription, before: set[str], names: Collection[str]) -> None:
        """Give a client that asks for all ``names``; of those that it was given ``before``, no others."""
        offered = subscription.offered or set()
        subscription.offered = offered
        for name in names:
            if name not in offered:
                offered.add(name)
                if name not in subscription.versions:
                    subscription.want(name)
                else:
                    subscription.leaving.pop(name, None)
        gone = before.difference(names)
        offered -= gone
        for name in gone.difference(subscription.named):
            self._leave(subscription, name)

    def _leave(self, subscription: Subscription, name: str) -> None:
        if subscription.kind is ResourceType.CDS:
            subscription.dirty.pop(name, None)
            subscription.leaving[name] = None
        else:
            subscription.drop(name)
            subscription.owed = True

    def _check(self, subscription: Subscription, name: str) -> None:
        sent = subscription.versions.get(name)
        if sent is None:
            return
        resource = self._source.resource(subscription.kind, name)
        if not resource.closed:
            self._lingering.forget((subscription.kind, name))
        if name in subscription.leaving:
            return
        if self._lingers(subscription, resource) or resource.version == sent or subscription.keeps(resource):
            subscription.dirty.pop(name, None)
        else:
            subscription.dirty[name] = None

    def _lingers(self, subscription: Subscription, resource: Resource) -> bool:
        """Return whether the client keeps what it has for a while."""
        kind, name = subscription.kind, resource.name
        is_unknown = kind is ResourceType.CDS and name not in self._clusters
        if is_unknown or not resource.closed or subscription.versions[name] in (NOT_SENT, resource.version):
            return False
        self._lingering.begin((kind, name))
        return True

    # Responses

    def _push(self, subscription: Subscription, choose: Callable[[], Collection[str]]) -> Push | None:
        if subscription.unacknowledged is not None:
            return None
        chosen = choose()
        # What is owed waits for what may not be sent yet: a response of this type has everything.
        if not chosen and (subscription.dirty or not subscription.owed):
            return None
        kind = subscription.kind
        names = subscription.versions if kind.is_complete else chosen
        whole = [self._sendable(kind, name) for name in names]
        resources = [order.for_now(self._types, each) for each in whole]
        changed = [each for each in resources if subscription.versions[each.name] != each.version]
        for resource in changed:
            subscription.put(resource.name, resource.version)
        for name in tuple(names):
            subscription.dirty.pop(name, None)
        subscription.note(whole)
        if kind is ResourceType.CDS:
            self._clusters = {each.name: each for each in resources}
            if self._warms:
                self._warm(changed)
        self._count += 1
        self.work += len(resources)
        subscription.sent(f"{self._nonces}{self._count:x}", [each.name for each in changed])
        return Push(kind, _text(subscription.version), subscription.nonce, resources)

    def _sendable(self, kind: ResourceType, name: str) -> Resource:
        """Return a resource, or the cluster that the client has while it lingers: a response has all clusters.

        A cluster that closed and is leaving stays as it is, too, until the routes that led to it are gone.
        """
        resource, subscription = self._source.resource(kind, name), self._types[kind]
        keeps = name in subscription.leaving or (kind, name) in self._lingering
        if kind is ResourceType.CDS and resource.closed and keeps:
            kept = self._clusters.get(name)
            if kept is not None and kept.version == subscription.versions[name]:
                return kept
        return resource

    def _warm(self, clusters: Sequence[Resource]) -> None:
        endpoints = self._types[ResourceType.EDS]
        for name in (cluster.name for cluster in clusters):
            resource = self._source.resource(ResourceType.EDS, name)
            waits = resource.closed and endpoints.kept and name in endpoints.kept
            if name in endpoints.versions and not waits and not endpoints.keeps(resource):
                endpoints.want(name)


def _answer(subscription: Subscription, request: Any) -> Outcome:
    """Take the part of a request that answers a response."""
    if not request.response_nonce or not subscription.nonce:
        # The nonce of another stream says nothing on this one.
        return Outcome.SUBSCRIBED
    if request.response_nonce != subscription.nonce:
        # It answers a response that was superseded, but its names are those of now: the client may have forgotten a
        # resource that it asks for again when it answers the newer response. After that answer it is out of order.
        return Outcome.IGNORED if subscription.unacknowledged is None else Outcome.SUBSCRIBED
    if subscription.unacknowledged is None:
        return Outcome.SUBSCRIBED
    if request.HasField("error_detail"):
        subscription.refuse(request.error_detail.message[:MOST_TEXT] or "no text")
        return Outcome.REFUSED
    subscription.acknowledge()
    return Outcome.ACKNOWLEDGED


def _status(subscription: Subscription, name: str, version: int) -> Status:
    if subscription.refused and name in subscription.refused:
        return Status.REFUSED
    if version == NOT_SENT:
        return Status.NOT_SENT
    pending = name in subscription.dirty or name in (subscription.unacknowledged or ())
    return Status.STALE if pending else Status.SYNCED


def _text(version: int) -> str:
    return f"{version:016x}"
