"""What one caller may see of the clients of others."""

from collections.abc import Collection, Sequence

from pointsman_server.domain.identity import Scope
from pointsman_server.xds.clients.caller import Caller
from pointsman_server.xds.clients.registry import Connected
from pointsman_server.xds.names import key_of, root_of
from pointsman_server.xds.protocol.types import ResourceType

EVERYTHING = Scope("", "")


def roots_of(client: Connected) -> Sequence[str]:
    """Return the names that a client asks for; of one that asks for all, those that it is given."""
    session = client.stream.session
    if not session.wants_all:
        return tuple(session.roots)
    return tuple(dict.fromkeys(map(root_of, session.names(ResourceType.CDS))))


class Visibility:
    """What ``caller`` may see: names of what they may read, and all of their own streams."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._sees_everything = caller.may_read(EVERYTHING)
        self._seen: dict[Scope, bool] = {}

    def is_own(self, client: Connected) -> bool:
        """Return whether nothing of a client is hidden."""
        return self._sees_everything or client.stream.client.caller.subject == self._caller.subject

    def may_see(self, name: str) -> bool:
        """Return whether the caller may read what a name of any resource means."""
        if self._sees_everything:
            return True
        key = key_of(root_of(name))
        if key is None:
            return False
        scope = Scope(key.tenant, key.env)
        if scope not in self._seen:
            self._seen[scope] = self._caller.may_read(scope)
        return self._seen[scope]

    def visible(self, client: Connected, names: Collection[str]) -> Sequence[str]:
        """Return those of the names of ``client`` that the caller may see."""
        return tuple(names) if self.is_own(client) else tuple(name for name in names if self.may_see(name))
