"""What one client remembers, so that no key of it ever goes back: the highest revision that it saw of each.

Revisions count in an epoch. When the database gets a new one, after a restore, what was seen before is
ignored, by the server and here. Epochs have no order that one can see, and a server that is behind may still answer
from the old one. So the rule: only an answer to a question that named the epoch we are in may take us to another,
because such a question makes the server ask the database. Each question names it as soon as it is known.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

DEFAULT_KEYS = 100_000
_LEFT_KEPT = 16


class Floor(NamedTuple):
    """The revision that an answer must have reached, and the epoch that it counts in ("": unknown)."""

    revision: int = 0
    epoch: str = ""


class Sighting(NamedTuple):
    """What an answer shows: ``key`` is at ``revision``, as of ``as_of`` of ``epoch`` ("": the server does not say)."""

    key: str
    revision: int
    as_of: int
    epoch: str


@dataclass(slots=True)
class _History:
    """Revisions seen in one epoch. ``folded`` is the floor for every key that is no longer in ``seen``."""

    epoch: str = ""
    written: int = 0
    folded: int = 0
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not (self.written or self.folded or self.seen)

    def floor(self, key: str) -> Floor:
        revision = max(self.written, self.folded, self.seen.get(key, 0))
        # Every answer is as of 1 at least, so 1 asks for nothing, but makes the server look at the epoch.
        return Floor(revision or int(bool(self.epoch and self.seen)), self.epoch)


class Memory:
    """The revisions that one client wrote and saw. Safe to use from several threads; never waits for anything.

    It holds at most ``keys`` keys. Of more, the one whose revision was learned the longest ago goes, and its
    revision becomes a floor for all: likely a low one, which caches have long passed.
    """

    def __init__(self, keys: int = DEFAULT_KEYS) -> None:
        if keys < 0:
            raise ValueError(f"remembered_keys must be 0 or more, not {keys}")
        self._keys = keys
        self._lock = threading.Lock()
        self._now = _History()
        self._left: dict[str, None] = {}

    @property
    def epoch(self) -> str:
        """The epoch that revisions count in; empty until an answer says it."""
        return self._now.epoch

    @property
    def written(self) -> int:
        """The highest revision that a write returned, in this epoch; 0 before the first."""
        return self._now.written

    def floor(self, key: str = "") -> Floor:
        """Return what the next answer about ``key`` must have reached; without one, an answer about any key."""
        with self._lock:
            return self._now.floor(key)

    def behind(self, sightings: Iterable[Sighting]) -> dict[str, Floor]:
        """Return the keys that were seen at a later revision than these answers know, each with its floor."""
        with self._lock:
            now = self._now
            return {
                each.key: now.floor(each.key)
                for each in sightings
                if each.epoch in {"", now.epoch} and each.as_of < now.seen.get(each.key, 0)
            }

    def wrote(self, revision: int, began: str) -> None:
        """Take note of a write that began while the epoch ``began`` was known: its answer does not say one."""
        with self._lock:
            if began in {"", self._now.epoch}:
                self._now.written = max(self._now.written, revision)

    def saw(self, sightings: Iterable[Sighting], asked: Floor, began: str) -> None:
        """Take note of the answers to one call, which asked for ``asked`` and began in the epoch ``began``."""
        with self._lock:
            for key, revision, _, epoch in sightings:
                if self._counts(epoch, asked, began) and revision > self._now.seen.get(key, 0):
                    self._remember(key, revision)

    def forget(self) -> None:
        """Start anew, as if nothing had ever been seen."""
        with self._lock:
            self._now = _History()
            self._left.clear()

    def _counts(self, epoch: str, asked: Floor, began: str) -> bool:
        """Say whether revisions of ``epoch`` count now; a new epoch begins here."""
        now = self._now.epoch
        if epoch == now:
            return True
        if not epoch:
            return began == now
        if not now:
            self._now.epoch = epoch  # what was written before it was known is of it
            return True
        if epoch in self._left:
            return False
        if asked.revision and asked.epoch == now:
            self._leave(now)
        elif not self._now.empty:
            return False
        self._now = _History(epoch)
        return True

    def _leave(self, epoch: str) -> None:
        self._left[epoch] = None
        if len(self._left) > _LEFT_KEPT:
            del self._left[next(iter(self._left))]

    def _remember(self, key: str, revision: int) -> None:
        now = self._now
        now.seen.pop(key, None)  # to the end: the order is that of learning
        now.seen[key] = revision
        if len(now.seen) > self._keys:
            now.folded = max(now.folded, now.seen.pop(next(iter(now.seen))))
