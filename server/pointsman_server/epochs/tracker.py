"""Detect that the store was restored, or failed over to a standby that lacks changes.

Revisions count the changes of one history; the epoch names that history. When PostgreSQL goes back to an older state,
so does its clock, and new writes would get revisions that caches, revision tokens and consumers know as other changes.
Two cases:

- **A new epoch** (``pointsman-server restore`` was run): drop what was known of the old one.
- **An older revision of the same epoch**: neither read from the store nor write to it until it has a new epoch or is
  back at the known revision. Caches continue to answer, as when the store is down.

A read may be answered late, and other servers may commit while it runs. So the result of a read is compared with the
highest revision that was known *before the read began*.
"""

import logging
from collections.abc import Callable

from pointsman_server.domain.errors import StoreRestored, StoreUnavailable
from pointsman_server.ports.store import Clock

logger = logging.getLogger(__name__)


class EpochTracker:
    """The epoch and the highest revision known of the store.

    ``switched`` is called after each change of the epoch, but not for the first epoch: then there is nothing to drop.
    """

    def __init__(self, switched: Callable[[], None] = lambda: None) -> None:
        self._switched = switched
        self._highest: dict[str, int] = {}
        self._left: set[str] = set()
        self._found: Clock | None = None
        self.epoch = ""

    @property
    def seen(self) -> Clock:
        """The epoch, and the highest revision known to be committed in it."""
        return Clock(self.epoch, self._highest.get(self.epoch, 0))

    @property
    def lost(self) -> str:
        """How the store is behind its known state, for messages; empty if it is not."""
        if self._found is None:
            return ""
        if self._found.epoch != self.epoch:
            return f"it is back in epoch {self._found.epoch}, which ended when {self.epoch} began"
        return f"it is at revision {self._found.revision}, and was at {self.seen.revision}"

    def is_over(self, epoch: str) -> bool:
        """Whether this process saw the store leave ``epoch``."""
        return epoch in self._left

    def check(self) -> None:
        """Raise StoreRestored while the store is behind its known state."""
        if self._found is not None:
            raise StoreRestored

    def witness(self, epoch: str, revision: int) -> None:
        """Note that ``revision`` of ``epoch`` was committed, according to any source."""
        if revision > self._highest.get(epoch, 0):
            self._highest[epoch] = revision

    def held(self, clock: Clock, before: Clock) -> None:
        """Check the clock that a transaction has locked; ``before`` is ``seen`` before it was read.

        Raises StoreRestored if the transaction must roll back.
        """
        self.read(clock, before)
        self.check()
        if clock.epoch != self.epoch:
            # The epoch changed during the read, and this clock is of the one before.
            raise StoreRestored

    def check_lock(self, locked: Clock) -> None:
        """Raise StoreUnavailable if a transaction that locked the clock must roll back: changes beyond it were seen.

        Either the lock was lost, as that of a session that ended while this process was stopped, and others went on;
        or the store was restored, which the next read of the clock shows.
        """
        self.check()
        if self.seen != locked:
            raise StoreUnavailable

    def read(self, clock: Clock, before: Clock) -> None:
        """Compare the clock that a read returned with ``before``, which is ``seen`` when the read began."""
        if before.epoch != self.epoch:
            # The epoch changed during the read, so the result does not say where the store is now.
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
