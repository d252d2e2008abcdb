"""What the local cache holds of a key, and how it is asked."""

from dataclasses import dataclass
from typing import Protocol

from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import RouteKey, Snapshot

ACTIVE, INACTIVE, ABSENT = range(3)


@dataclass(frozen=True, slots=True)
class EntryScope:
    """What many keys have in common: one object for all of them."""

    scope: Scope
    epoch: str


# What is known of a key, as it is kept: its route without the key, as ``encoding.rest_to_bytes`` makes it, or nothing;
# which of the three above it is; as of which revision; how many seconds ago that was surely true; and the rest.
# No class, of which making one takes longer than finding it.
CacheHit = tuple[bytes, int, int, float, EntryScope]


class NearestCache(Protocol):
    """The cache in this process: see ``adapters.local_cache.LocalCache`` for its invariants."""

    def look(self, key: RouteKey, min_revision: int = 0) -> tuple[Snapshot, float] | None:
        """Return what is held, fresh, and known as of ``min_revision`` or later, and how long ago it was surely true.

        That is in seconds.
        """

    def find(self, encoded: bytes, min_revision: int = 0) -> CacheHit | None:
        """Return what ``look`` does, by the bytes of the key, and as it is kept."""

    @property
    def fed(self) -> int:
        """The revision up to which every change was observed."""

    def changed(self, key: RouteKey) -> int:
        """Return the last revision at which the key is known to have changed."""

    def observe(self, snapshot: Snapshot) -> None:
        """Take note of a change."""

    def supersede(self, key: RouteKey, revision: int) -> None:
        """Take note of a change of which only the revision is known."""

    def put(self, snapshot: Snapshot, read_at: float) -> None:
        """Hold a snapshot unless something newer is held."""
