"""The shared cache: fence, lease and mark for every key."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.store import Clock


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a cache knows of a key.

    ``snapshot``: a hit, and ``encoded`` its route as protobuf, if the cache keeps it as that. Otherwise a miss; then
    ``leased`` says whether the asker alone may ``fill`` it.
    """

    snapshot: Snapshot | None = None
    leased: bool = False
    encoded: bytes = field(default=b"", compare=False, repr=False)


class RouteCache(Protocol):
    """The cache that servers share. For every key it obeys:

    - **fence**: a value is only ever replaced by one with a higher ``as_of``;
    - **lease**: an absent value is filled only by the holder of the key's lease, and any write, eviction or
      restart ends the lease: a load that began before them cannot be filled in after them;
    - **mark**: from before the commit of a write until after it, a key is neither answered nor filled.

    It may forget anything at any time. Unless said otherwise nothing here raises: a cache that cannot be reached
    in its time budget misses without a lease, and drops what it is told.
    """

    async def get(self, keys: Sequence[RouteKey], owner: str) -> list[Lookup]:
        """Look up every key, in order; misses are leased to ``owner`` where they can be."""

    async def fill(self, snapshots: Sequence[Snapshot], owner: str) -> None:
        """Store what was loaded under the leases of ``owner``."""

    async def mark(self, keys: Sequence[RouteKey], owner: str) -> None:
        """Announce a write, before its commit. Marks expire by themselves if the writer dies."""

    async def settle(self, snapshots: Sequence[Snapshot], owner: str) -> None:
        """Store what was written, after its commit, and take back the marks of ``owner``.

        A mark that is gone means that the cache lost data in between: then the key is dropped instead.
        """

    async def consume(self, snapshots: Sequence[Snapshot]) -> None:
        """Make sure that nothing older than each snapshot is answered. Never brings back an absent key.

        Raises CacheUnavailable when that cannot be assured now.
        """

    async def mark_held(self, keys: Sequence[RouteKey], owner: str) -> None:
        """Announce a large write, before its commit: as ``mark``, but only keys that are held, or leased."""

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> None:
        """Forget each key, its lease too, unless it is held as of its revision or later; take back the marks.

        It comes after the commit. A load that began before it cannot be filled in any more, marked or not. ``clock``
        is where the store was at the commit.
        """

    async def ping(self) -> None:
        """Raise CacheUnavailable unless the cache answers."""


class CacheUnavailable(Exception):
    """The shared cache cannot be reached, or does not answer in time."""
