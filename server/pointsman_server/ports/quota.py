"""Rate limits that servers count together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Taking:
    """One call's use of the limit ``limit`` of ``subject``: ``debt`` of at most ``window``, in nanoseconds.

    ``runtime.rate_limiter.Rate`` defines both.
    """

    limit: str
    subject: str
    debt: int
    window: int


class SharedQuota(Protocol):
    """Rate limits that servers share. For every limit of every subject it follows ``runtime.rate_limiter``:

    - one clock, that of the quota, and one count for all servers: never more than a window of debt at once;
    - a call takes from all of its limits, or from none;
    - a debt expires once time has paid it; the quota may lose more, and then a subject starts at zero.
    """

    async def take(self, takings: Sequence[Taking]) -> None:
        """Take all. Raises RateLimited, for the limit with the longest wait, and QuotaUnavailable."""


class QuotaUnavailable(Exception):
    """The quota cannot be reached, or does not answer in time: whether it took is unknown."""
