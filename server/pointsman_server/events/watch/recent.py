"""The last change sets, in memory: streams that were away for a moment resume from them, not from the store."""

from collections import deque
from collections.abc import Sequence

from pointsman_server.events.watch.change_set import ChangeSet


class RecentChanges:
    """Change sets in the order of revisions, without a gap, up to ``revision``.

    Bounded by ``most`` changes; of a larger set, that set alone.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self._sets: deque[ChangeSet] = deque()
        self.revision = 0
        # Everything after this revision is here.
        self.complete_from = 0
        # Another number after each start.
        self.starts = 0

    def start_over(self, revision: int) -> None:
        """Drop everything; the next set begins after ``revision``."""
        self._sets.clear()
        self.count = 0
        self.revision = self.complete_from = revision
        self.starts += 1

    def append(self, changes: ChangeSet) -> None:
        """Add the next set, and drop the oldest beyond the bound."""
        self._sets.append(changes)
        self.count += len(changes)
        self.revision = changes.clock.revision
        while self.count > self.most and len(self._sets) > 1:
            dropped = self._sets.popleft()
            self.count -= len(dropped)
            self.complete_from = dropped.clock.revision

    def prepend(self, after: int, sets: Sequence[ChangeSet]) -> bool:
        """Add the sets between ``after`` and what is here. Returns False, and adds nothing, if they do not fit."""
        revision = after
        for changes in sets:
            if changes.first != revision + 1:
                return False
            revision = changes.clock.revision
        count = sum(map(len, sets))
        if revision != self.complete_from or self.count + count > self.most:
            return False
        self._sets.extendleft(reversed(sets))
        self.count += count
        self.complete_from = after
        return True

    def after(self, revision: int) -> list[ChangeSet]:
        """Return the sets that end after ``revision``, which must not be below ``complete_from``."""
        # From the end: a stream that resumes has missed little.
        missed: list[ChangeSet] = []
        for changes in reversed(self._sets):
            if changes.clock.revision <= revision:
                break
            missed.append(changes)
        missed.reverse()
        return missed
