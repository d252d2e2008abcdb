"""Rate limits that servers count together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Taking:
    """What one call takes of the limit ``limit`` of ``subject``: ``debt`` of at most ``window``, in nanoseconds.

    ``limiting.Rate`` has both, and what they mean.
    """

    limit: str
    subject: str
    debt: int
    window: int


class SharedQuota(Protocol):
    """The rates that servers keep together. For every limit of every subject it obeys the law of ``limiting``:

    - one clock, of the quota itself, and one count for everybody who asks: never more than a window of debt at once;
    - a call takes from all of its limits, or from none;
    - a debt that time has paid is forgotten, and the quota may forget more: at worst a subject begins anew.
    """

    async def take(self, takings: Sequence[Taking]) -> None:
        """Take all. Raises RateLimited, for the limit with the longest wait, and QuotaUnavailable."""


class QuotaUnavailable(Exception):
    """The quota cannot be asked, or does not answer in time: nobody knows whether it took."""
