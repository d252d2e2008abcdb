"""What a client has and says, and what its server knows of that: the two ends of the model of a session."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from pointsman_server.xds.names import WILDCARD
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource
from pointsman_server.xds.session import Push
from tests.support.xds_world import World, request


@dataclass
class Wanted:
    """A subscription to one type, by the rules of the protocol."""

    kind: ResourceType
    names: tuple[str, ...] = ()
    asked: bool = False
    # Whether a request on this stream had names.
    explicit: bool = False

    def ask(self, names: tuple[str, ...]) -> None:
        self.names, self.asked = names, True
        self.explicit |= bool(names)

    @property
    def all(self) -> bool:
        return self.kind.is_complete and self.asked and (WILDCARD in self.names or not self.explicit)

    @property
    def named(self) -> set[str]:
        return {*self.names} - {WILDCARD}

    def of(self, world: World) -> set[str]:
        return self.named | {*(world.names(self.kind) if self.all else ())}


@dataclass
class ClientType(Wanted):
    """What a client has of a type: versions by name, and those that it refused until it gets others."""

    version: str = ""
    nonce: str = ""
    has: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    def ask(self, names: tuple[str, ...]) -> None:
        before = self.all
        super().ask(names)
        if not (before and self.all):
            self.has = {name: version for name, version in self.has.items() if name in self.named}
            self.refused = {name: version for name, version in self.refused.items() if name in self.named}

    def request(self, *, nonce: str | None = None, error: str | None = None) -> Any:
        said = self.nonce if nonce is None else nonce
        return request(self.kind, *self.names, nonce=said, version=self.version, error=error)

    def take(self, push: Push, accepted: Collection[Resource] | None) -> None:
        """Keep what is accepted of a response, and forget what one that has everything does not have; None: refuse."""
        for resource in push.resources:
            if not (self.all or resource.name in self.named):
                continue
            if accepted is not None and resource in accepted:
                self.has[resource.name] = resource.version
                self.refused.pop(resource.name, None)
            else:
                self.refused[resource.name] = resource.version
        if push.kind.is_complete and accepted is not None:
            given = {resource.name for resource in push.resources}
            self.has = {name: version for name, version in self.has.items() if name in given}
            self.refused = {name: version for name, version in self.refused.items() if name in given}


@dataclass
class ServerType(Wanted):
    """What a server heard of one type on a stream, and sent; of the last response, what was new in it."""

    nonce: str = ""
    unanswered: bool = False
    sent: dict[str, Resource] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    # What the client named in its first request with a version of another stream, until that is sent.
    kept: set[str] = field(default_factory=set)
    # What must be sent again, although it is the same.
    again: set[str] = field(default_factory=set)

    def hear(self, said: Any, world: World) -> None:
        """Take note of a request, as the session does."""
        answers = bool(said.response_nonce) and said.response_nonce == self.nonce
        out_of_order = bool(said.response_nonce and self.nonce) and not (answers or self.unanswered)
        if answers and self.unanswered:
            self.unanswered = False
            if said.HasField("error_detail"):
                self.refused |= self.changed
            elif self.kind.is_complete:
                self.refused = {}
            else:
                self.refused = {name: each for name, each in self.refused.items() if name not in self.changed}
        if out_of_order:
            return
        before, first = self.named, not self.asked
        self.ask(tuple(said.resource_names))
        self.again |= self.named - before
        self.kept = {*self.named} if first and said.version_info else self.kept & self.named
        unnamed = before - self.of(world)
        for known in (self.sent, self.refused):
            for name in [name for name in known if name in unnamed or not (self.all or name in self.named)]:
                del known[name]

    def write(self, push: Push) -> None:
        """Take note of a response, and check what holds for any."""
        names = [resource.name for resource in push.resources]
        assert len(names) == len(set(names)), "a name twice in a response"
        assert not self.unanswered, "two responses without an answer"
        new = [each for each in push.resources if self.lacks(each)]
        if not self.kind.is_complete:
            assert new == push.resources, "a resource that the client has"
            for resource in new:
                again = resource.name in self.again
                assert again or self.refused.get(resource.name) != resource.version, "what was refused is sent again"
        self.kept.difference_update(names)
        self.nonce, self.unanswered = push.nonce, True
        self.changed = {each.name: each.version for each in new}
        self.again.clear() if self.kind.is_complete else self.again.difference_update(names)
        self.sent = {} if self.kind.is_complete else self.sent
        self.sent |= {each.name: each for each in push.resources}

    def lacks(self, resource: Resource) -> bool:
        had = self.sent.get(resource.name)
        return had is None or had.version != resource.version or resource.name in self.again


@dataclass
class Wire:
    """What is under way between the two on one stream."""

    requests: deque[Any] = field(default_factory=deque)
    responses: deque[Push] = field(default_factory=deque)
