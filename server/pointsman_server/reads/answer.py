"""The answer of a read: a snapshot, the layer that it came from, and its age."""

from dataclasses import dataclass, field
from enum import StrEnum

from pointsman_server.domain.errors import RouteInactive, RouteNotFound
from pointsman_server.domain.routes import Route, Snapshot


class Source(StrEnum):
    """The layer that answered."""

    LOCAL = "LOCAL"
    REDIS = "REDIS"
    POSTGRES = "POSTGRES"


@dataclass(frozen=True, slots=True)
class Answer:
    """A snapshot, its source, and its ``age``: how many seconds ago it was last known to be true.

    ``encoded`` is its value as protobuf if the source keeps it so, else empty.
    """

    snapshot: Snapshot
    source: Source
    age: float = 0.0
    encoded: bytes = field(default=b"", compare=False, repr=False)

    def route(self) -> Route:
        """Return the active route. Raises RouteNotFound or RouteInactive, with the revision of the snapshot."""
        route = self.snapshot.route
        if route is None:
            raise RouteNotFound(str(self.snapshot.key), self.snapshot.as_of, self.snapshot.epoch)
        if not route.active:
            raise RouteInactive(str(self.snapshot.key), self.snapshot.as_of, self.snapshot.epoch)
        return route
