"""What one client wants of one type of resource, what it was sent of it, and what it answered."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pointsman_server.xds.names import root_of, shared
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Needs, Resource

NOT_SENT = 0


@dataclass(slots=True)
class Subscription:
    """Invariants:

    - ``versions`` has the names of all that the client wants, with the version of each that it was sent last.
    - ``dirty`` has those of them that are now of another version.
    - ``leaving`` has names that a wildcard gave and gives no more; the client still has them.
    - ``kept`` has names that the client has of another stream, in whatever version, and was not sent on this one. It is
      empty, and not None, where a client has what a wildcard gave it.
    """

    kind: ResourceType
    versions: dict[str, int] = field(default_factory=dict)
    dirty: dict[str, None] = field(default_factory=dict)
    leaving: dict[str, None] = field(default_factory=dict)
    kept: set[str] | None = None
    # The names of the last request, and those that a wildcard gives; None without one.
    named: tuple[str, ...] = ()
    offered: set[str] | None = None
    # Whether there was a request, and one with names.
    began: bool = False
    explicit: bool = False
    # Whether a response is due, even one without resources.
    owed: bool = False
    # Of the last response: its nonce, and until it is answered, the names of what it changed.
    nonce: str = ""
    unacknowledged: tuple[str, ...] | None = None
    # By RouteConfiguration: the needs (``Resource.needs``) of the last one that the client was sent.
    needs: dict[str, Needs] | None = None
    # What the client said of those that it refused.
    refused: dict[str, str] | None = None
    # The exclusive or of all ``versions``: a hash of what the client has that does not depend on any order.
    version: int = 0
    # The names that are not their root, by their root.
    _suffixed: dict[str, dict[str, None]] | None = None

    @property
    def settled(self) -> bool:
        """Whether the client has accepted everything as it is now."""
        return self.unacknowledged is None and not (self.dirty or self.refused or self.owed)

    def let_go(self, name: str) -> None:
        """Note that what the client has of another stream is known, or is to be."""
        if self.kept is not None:
            self.kept.discard(name)
            self.kept = self.kept or None

    def has(self, name: str) -> bool:
        """Return whether the client has a resource, in whatever version."""
        return self.versions.get(name, NOT_SENT) != NOT_SENT or bool(self.kept and name in self.kept)

    @property
    def under_way(self) -> bool:
        """Whether the client is still to have or to answer something."""
        return bool(self.dirty) or self.unacknowledged is not None

    def of_root(self, root: str) -> Iterator[str]:
        """Return the names that begin with a root."""
        if root in self.versions:
            yield root
        if self._suffixed is not None:
            yield from tuple(self._suffixed.get(root, ()))

    def want(self, name: str) -> None:
        """Add a name; one that is there already is to be sent again."""
        self.leaving.pop(name, None)
        if name not in self.versions:
            # Many streams, and up to four types of each, have the same names.
            name = shared(name)
            root = root_of(name)
            if root != name:
                self._suffixed = {} if self._suffixed is None else self._suffixed
                self._suffixed.setdefault(root, {})[name] = None
        self.put(name, NOT_SENT)
        self.dirty[name] = None

    def drop(self, name: str) -> None:
        """Remove a name; the client has forgotten its resource, or is to."""
        self.version ^= self.versions.pop(name)
        self.let_go(name)
        self.dirty.pop(name, None)
        self.leaving.pop(name, None)
        if self.refused:
            self.refused.pop(name, None)
        self.name_needs(name, ())
        root = root_of(name)
        if self._suffixed is not None and root != name:
            del self._suffixed[root][name]
            if not self._suffixed[root]:
                del self._suffixed[root]
            self._suffixed = self._suffixed or None

    def put(self, name: str, version: int) -> None:
        """Note what the client was sent of a name."""
        self.let_go(name)
        self.version ^= self.versions.get(name, NOT_SENT) ^ version
        self.versions[name] = version

    def name_needs(self, name: str, needs: Needs) -> None:
        """Note what a RouteConfiguration needs that the client was sent."""
        if needs:
            self.needs = (self.needs or {}) | {name: needs}
        elif self.needs and self.needs.pop(name, None):
            self.needs = self.needs or None

    def note(self, resources: Iterable[Resource]) -> None:
        """Take note of resources, each of which was sent, or else what is to come before it."""
        for each in resources:
            self.name_needs(each.name, each.needs)
            if each.version != self.versions[each.name]:
                self.dirty[each.name] = None

    def keeps(self, resource: Resource) -> bool:
        """Return whether the client keeps the endpoints that it has."""
        return self.kind is ResourceType.EDS and not resource.live and self.versions[resource.name] != NOT_SENT

    def sent(self, nonce: str, changed: Iterable[str]) -> None:
        """Note a response, and the names of what it changes."""
        self.nonce, self.unacknowledged, self.owed = nonce, tuple(changed), False
        if not self.dirty:
            # A dict keeps the room that it once needed, and most streams have nothing to send most of the time.
            self.dirty = {}

    def acknowledge(self) -> None:
        """Note that the client accepted the last response."""
        if self.refused:
            # A response that has everything clears everything.
            for name in tuple(self.refused) if self.kind.is_complete else self.unacknowledged or ():
                self.refused.pop(name, None)
        self.unacknowledged = None

    def refuse(self, text: str) -> None:
        """Note that the client refused the last response: which part of it, only its text says."""
        names = [name for name in self.unacknowledged or () if name in self.versions]
        if names:
            self.refused = (self.refused or {}) | dict.fromkeys(names, text)
        self.unacknowledged = None
