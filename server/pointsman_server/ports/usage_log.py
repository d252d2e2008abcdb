"""Who has read which route lately, counted by all servers together."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from pointsman_server.domain.routes import RouteKey


class Reads(NamedTuple):
    """``subject`` has read the route ``key`` about ``times`` times, until now."""

    key: RouteKey
    subject: str
    times: int


@dataclass(frozen=True, slots=True)
class Reader:
    """``subject`` has read a route about ``count`` times within the window, most recently at ``last``."""

    subject: str
    count: int
    last: datetime


class ReadersNow(NamedTuple):
    """The readers of a key, those who read last first; ``now`` is the time by the clock that their times are of.

    Those who have read only before ``since`` may be missing.
    """

    now: datetime
    readers: Sequence[Reader]
    since: datetime


class UsageLog(Protocol):
    """Counts of reads by key and subject, within a window of time that ends now.

    - ``last`` is exact. A count is an estimate, which takes reads to be spread evenly over each window before.
    - A reader vanishes once it has not read for a window.
    - Bounded in keys, of which those that were not read for longest are dropped, and in subjects of one key, of which
      further ones are not taken.
    - It may lose anything at any time, and then begins anew: it says since when it has every read that it was given.

    Every method raises UsageUnavailable; what it was to write may then be written or not.
    """

    async def add(self, reads: Sequence[Reads]) -> int:
        """Count reads that end now. Returns how many entries of the log were dropped or not taken."""

    async def keep(self) -> None:
        """Begin, unless it has begun: what is read from now on is given to it. Ends a window after the last call."""

    async def readers(self, key: RouteKey, limit: int) -> Sequence[Reader]:
        """Return the readers of ``key``, those who read last first, at most ``limit``."""

    async def readers_of(self, keys: Sequence[RouteKey], limit: int) -> Sequence[ReadersNow]:
        """Return the readers of each key, in order, as ``readers`` does."""


class UsageUnavailable(Exception):
    """The log cannot be reached, or does not answer in time."""
