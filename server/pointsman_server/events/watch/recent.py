"""The last change sets, in memory: streams that were away for a moment resume from them, not from the store."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pointsman.v1.route_pb2 import RouteChange
from pointsman_server.domain.codec import change_to_message
from pointsman_server.domain.routes import Change
from pointsman_server.events.watch import encoding
from pointsman_server.events.watch.filters import Filter
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import FairShare


@dataclass(slots=True, eq=False)
class ChangeSet:
    """Changes that were made together, at the revisions from ``first`` to that of ``clock``.

    ``events`` has what it is for each filter, encoded once: nothing where no change matches.
    """

    clock: Clock
    changes: Sequence[Change]
    messages: Sequence[RouteChange] = ()
    events: dict[Filter, Sequence[bytes]] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return self.changes[0].revision

    async def encode(self, fair_share: FairShare, turn: int) -> None:
        """Encode every change, ``turn`` of them before other work gets its turn."""
        if len(self.changes) <= turn:
            self.messages = list(map(change_to_message, self.changes))
        else:
            self.messages = await fair_share.map(change_to_message, self.changes, size=turn)

    def events_of(self, wanted: Filter) -> Sequence[bytes]:
        """Return the events that a stream with this filter sends."""
        found = self.events.get(wanted)
        if found is None:
            pairs = zip(self.changes, self.messages, strict=True)
            matching = [message for change, message in pairs if wanted.matches(change.key)]
            found = self.events[wanted] = encoding.change_set(self.clock, matching) if matching else ()
        return found


class RecentChanges:
    """Change sets in the order of revisions, without a gap, up to ``revision``.

    Bounded by ``most`` changes; of a larger set, that set alone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sets: deque[ChangeSet] = deque()
        self._count = 0
        self.revision = 0
        # Everything after this revision is here.
        self.complete_from = 0

    def start_over(self, revision: int) -> None:
        """Drop everything; the next set begins after ``revision``."""
        self._sets.clear()
        self._count = 0
        self.revision = self.complete_from = revision

    def append(self, changes: ChangeSet) -> None:
        """Add the next set."""
        self._sets.append(changes)
        self._count += len(changes.changes)
        self.revision = changes.clock.revision
        while self._count > self._most and len(self._sets) > 1:
            dropped = self._sets.popleft()
            self._count -= len(dropped.changes)
            self.complete_from = dropped.clock.revision

    def after(self, revision: int) -> Iterator[ChangeSet]:
        """Return the sets that end after ``revision``, which must not be below ``complete_from``."""
        # From the end: who resumes has missed little.
        missed: list[ChangeSet] = []
        for changes in reversed(self._sets):
            if changes.clock.revision <= revision:
                break
            missed.append(changes)
        return reversed(missed)
