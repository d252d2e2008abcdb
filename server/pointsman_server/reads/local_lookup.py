"""What a caller of the resolver has already looked up in the local cache."""

from collections.abc import Sequence
from dataclasses import dataclass

from pointsman_server.reads.cache_entry import CacheHit

# A call that waited longer than this, for instance for the keys of an issuer, looks up again.
MAX_AGE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class LocalLookup:
    """What ``LocalCache.find`` returned for each key of a request, in order, with ``min_revision``.

    ``at`` is when, by the clock of the resolver. The lookup is counted by the resolver that uses it.
    """

    min_revision: int
    at: float
    hits: Sequence[CacheHit | None]

    def is_for(self, min_revision: int, now: float) -> bool:
        """Say whether a read with ``min_revision`` may use this instead of a lookup of its own."""
        return self.min_revision == min_revision and now - self.at <= MAX_AGE_SECONDS
