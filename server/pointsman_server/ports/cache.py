"""The shared cache: fence, lease and mark for every key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.store import Clock

NOTHING: Mapping[RouteKey, int] = {}


@dataclass(frozen=True, slots=True)
class Lookup:
    """The result of looking up one key.

    A hit has a ``snapshot``, and ``encoded``, its value as protobuf, if the cache stores that. Otherwise a miss; then
    ``leased`` says whether the caller alone may ``fill`` it.
    """

    snapshot: Snapshot | None = None
    leased: bool = False
    encoded: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of one key: a ``snapshot``, or None; it was stored ``age`` seconds ago, None if not known.

    ``marked`` says whether a write is under way, so that the snapshot is not answered, and ``leased`` whether somebody
    may fill the key.
    """

    snapshot: Snapshot | None = None
    age: float | None = None
    marked: bool = False
    leased: bool = False


class RouteCache(Protocol):
    """The cache that servers share, for routes and families. For every key it guarantees:

    - **fence**: a value is only replaced by one with a higher ``as_of``;
    - **lease**: an absent value is filled only by the owner of the key's lease, and any write, eviction or restart
      ends the lease: a load that began before one of them cannot be filled in after it;
    - **mark**: from before the commit of a write until after it, a key is neither answered nor filled;
    - **bound**: no value is answered later than its time to live after it was stored.

    It may lose anything at any time. Unless a method says otherwise it raises nothing: a cache that cannot be
    reached in time, or that refuses writes, misses without a lease and ignores what it is sent.
    """

    async def get(self, keys: Sequence[RouteKey], owner: str) -> list[Lookup]:
        """Look up every key, in order; misses are leased to ``owner`` if they can be."""

    async def peek(self, key: RouteKey) -> Held:
        """Tell what is held of a key, and change nothing. Raises CacheUnavailable if it cannot be told now."""

    async def fill(self, snapshots: Sequence[Snapshot], owner: str) -> None:
        """Store what was loaded under the leases of ``owner``."""

    async def mark(self, keys: Sequence[RouteKey], owner: str, held: Sequence[RouteKey] = ()) -> None:
        """Announce a write, before its commit; of ``held``, as ``mark_held`` does. Marks expire if the writer dies."""

    async def settle(
        self, snapshots: Sequence[Snapshot], owner: str, dropped: Mapping[RouteKey, int] = NOTHING
    ) -> None:
        """Store what was written, at least one, after its commit, and remove the marks of ``owner``.

        If a mark is gone the cache lost data in between: then the key is dropped instead. ``dropped`` are further keys
        and revisions, as ``drop_older`` takes them.
        """

    async def consume(self, snapshots: Sequence[Snapshot]) -> None:
        """Make sure that nothing older than each snapshot is answered. Never adds an absent key.

        Raises CacheUnavailable if that cannot be ensured now.
        """

    async def invalidate(self, keys: Sequence[RouteKey], revisions: Sequence[int], epoch: str) -> None:
        """Make sure that nothing of a key older than its revision of ``epoch`` is answered: ``consume`` without values.

        What is older is dropped, and a lease: a load that began before cannot be filled in after it. Marks stay. Raises
        CacheUnavailable if that cannot be ensured now.
        """

    async def mark_held(self, keys: Sequence[RouteKey], owner: str) -> None:
        """Announce a large write, before its commit: as ``mark``, but only keys that are cached or leased."""

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> None:
        """Drop each key and its lease, unless it is cached as of its revision or later; remove the marks of ``owner``.

        Called after the commit. A load that began before it cannot be filled in any more, marked or not. ``clock`` is
        that of the store at the commit.
        """

    async def ping(self) -> None:
        """Raise CacheUnavailable, which says why, unless the cache takes reads and writes."""


class CacheUnavailable(Exception):
    """The shared cache cannot be reached, does not answer in time, or refuses; the text says which."""
