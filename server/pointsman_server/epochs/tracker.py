"""Which history the store tells, and whether it is still the one that was seen before.

Revisions count the changes of one history, and the epoch names it. When PostgreSQL is restored to an older state, or
fails over to a standby that lacks something, the clock goes back: the next writes would be given revisions that
caches, tokens and consumers know as something else. So two things are told apart here:

- **a new epoch** (``pointsman-server restore`` was run): whatever was known of the old one is forgotten;
- **an old revision under the same epoch**: nothing is read from the store and nothing written, until it has a new
  epoch, or is where it was. What caches hold goes on being answered, as while the store is away.

Judging needs care about time: a read may be answered late, and another server may commit while it runs. So a read is
compared with what had been seen *before it began*, which was committed by then.
"""

import logging
from collections.abc import Callable

from pointsman_server.domain.errors import StoreRestored
from pointsman_server.ports.store import (
    Clock,
)

logger = logging.getLogger(__name__)


class EpochTracker:
    """What this process knows of the store's history; ``switched`` is called whenever its epoch has become another.

    Not called for the first epoch: then there is nothing to forget.
    """

    def __init__(self, switched: Callable[[], None] = lambda: None) -> None:
        self._switched = switched
        self._highest: dict[str, int] = {}
        self._left: set[str] = set()
        self._found: Clock | None = None
        self.epoch = ""

    @property
    def seen(self) -> Clock:
        """The epoch, and the highest revision that was surely committed under it."""
        return Clock(self.epoch, self._highest.get(self.epoch, 0))

    @property
    def lost(self) -> str:
        """Say in words how the store fell behind what was seen of it; empty while it did not."""
        if self._found is None:
            return ""
        if self._found.epoch != self.epoch:
            return f"it is back in epoch {self._found.epoch}, which ended when {self.epoch} began"
        return f"it is at revision {self._found.revision}, and was at {self.seen.revision}"

    def is_over(self, epoch: str) -> bool:
        """Say whether the store was in ``epoch`` once and left it, as far as this process saw."""
        return epoch in self._left

    def check(self) -> None:
        """Raise StoreRestored while the store is behind what was seen of it."""
        if self._found is not None:
            raise StoreRestored

    def witness(self, epoch: str, revision: int) -> None:
        """Take note that ``revision`` was committed under ``epoch``, whoever says so."""
        if revision > self._highest.get(epoch, 0):
            self._highest[epoch] = revision

    def held(self, clock: Clock, before: Clock) -> None:
        """Judge the clock that a transaction holds, which read it since ``before`` was seen.

        Raises StoreRestored when it must not go on: nothing was done yet.
        """
        self.read(clock, before)
        self.check()
        if clock.epoch != self.epoch:
            # The epoch became another while it was read, and this is from the one before.
            raise StoreRestored

    def read(self, clock: Clock, before: Clock) -> None:
        """Judge what a read of the store said; ``before`` is ``seen`` when the read began."""
        if before.epoch != self.epoch:
            # The epoch became another meanwhile, so this says nothing about now.
            if clock.epoch == self.epoch:
                self.witness(*_pair(clock))
            return
        if clock.epoch != self.epoch and clock.epoch not in self._left:
            self._switch(clock.epoch)
        elif clock.epoch != self.epoch or clock.revision < before.revision:
            self._lose(clock)
            return
        elif clock.revision >= self.seen.revision:
            self._found = None
        self.witness(*_pair(clock))

    def _switch(self, epoch: str) -> None:
        before, self.epoch, self._found = self.epoch, epoch, None
        if before:
            self._left.add(before)
            logger.warning("the store has a new epoch, %s: dropped what was known of %s", epoch, before)
            self._switched()

    def _lose(self, clock: Clock) -> None:
        first = self._found is None
        self._found = clock
        if first:
            logger.error("the store was restored to an older state: %s; run `pointsman-server restore`", self.lost)


def _pair(clock: Clock) -> tuple[str, int]:
    return clock.epoch, clock.revision
