"""How current one part of the table is: the routes of one filter, which one watch keeps current."""

from dataclasses import dataclass
from math import inf

from pointsman.near_cache.watch.protocol import Position


@dataclass(frozen=True, slots=True)
class Filter:
    """Which routes: of a tenant, a service and an env; an empty one is any."""

    tenant: str = ""
    service: str = ""
    env: str = ""

    def matches(self, tenant: str, service: str, env: str) -> bool:
        """Return whether a route of these is one of them."""
        return self.tenant in {"", tenant} and self.service in {"", service} and self.env in {"", env}


class View:
    """The state of one watch as readers need it. Plain attributes: readers look at them without a lock.

    Times are seconds of the monotonic clock.
    """

    __slots__ = (
        "catching_up",
        "confirmed_at",
        "epoch",
        "filter",
        "fresh_until",
        "has_traffic",
        "left",
        "live",
        "loaded",
        "needed",
        "revision",
        "size",
    )

    def __init__(self, wanted: Filter = Filter()) -> None:
        self.filter = wanted
        self.loaded = False
        """Whether there has been a snapshot, of a server or of a disk."""
        self.has_traffic = False
        """Whether the table has all traffic of the filter: an earlier release of the server does not send it."""
        self.epoch = ""
        self.revision = 0
        self.live = False
        self.catching_up = False
        """Whether a first stream has brought a snapshot, which may be some seconds old, and not yet what followed."""
        self.confirmed_at = -inf
        """When the table was last known to have everything."""
        self.fresh_until = -inf
        """Until then readers take entries without a question."""
        self.needed = 0
        """While ``revision`` is lower, no entry may be used: the client has seen what is newer, of unknown keys."""
        self.left: set[str] = set()
        """Epochs that are over."""
        self.size = 0

    @property
    def position(self) -> Position | None:
        """Return what has been applied, if anything."""
        return Position(self.epoch, self.revision) if self.loaded else None

    @property
    def usable(self) -> bool:
        """Whether the entries are not older than what the client has seen."""
        return self.loaded and self.revision >= self.needed
