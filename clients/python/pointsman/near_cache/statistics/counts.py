"""What a near-cache counts, and the protocol by which adapters read it."""

import random
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

# One read among so many is counted for its key, on average.
SAMPLED = 100
# Of so many keys reads are counted between two reports; those of further keys are not.
MOST_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Statistics:
    """A near-cache at one moment. Counts are since it was made."""

    routes: int
    """Routes in the table, active or not."""
    revision: int
    """The revision that all of the table has reached."""
    age_seconds: float
    """How long ago the table was last known to have everything; infinite before it was loaded."""
    live: bool
    """Whether every watch is open and has everything."""
    healthy: bool
    """Whether the table is loaded and not stale."""
    reads: int
    """Reads that the table answered with a route that was not stale."""
    absent: int
    """Reads that the table answered with RouteNotFound or RouteInactive."""
    stale: int
    """Reads that the table answered although it was stale."""
    refused: int
    """Reads that were refused because the table was stale."""
    calls: int
    """Reads that went to the server."""
    snapshots: int
    """Snapshots that were received."""
    changes: int
    """Changes that were received."""
    streams: int
    """Streams that were opened."""
    stream_failures: int
    """Streams that ended, or could not be opened."""
    callback_failures: int
    """Callbacks of ``on_change`` that raised."""
    disk_writes: int
    """Times that the table was written to disk."""
    disk_failures: int
    """Times that it could not be written or read."""


class StatisticsSource(Protocol):
    """What adapters read: a near-cache, or anything that is like one."""

    @property
    def name(self) -> str:
        """What it is called, among the near-caches of a process."""
        ...

    def statistics(self) -> Statistics:
        """Return the counts now. It is quick, and safe to call from any thread."""
        ...


class Counts:
    """What the threads of a near-cache count. Each ``add`` is short; none is on the path of a fresh read."""

    __slots__ = ("_lock", "_values")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        """Count."""
        with self._lock:
            self._values[name] += count

    def after_fork(self) -> None:
        """Go on in a child process: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def values(self) -> Mapping[str, int]:
        """Return all counts, 0 where nothing was counted."""
        with self._lock:
            return Counter(self._values)


class ReadCounts:
    """About how often each key was read: sampled, and of a bounded number of keys."""

    def __init__(self, sampled: int = SAMPLED) -> None:
        self._sampled = sampled
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def sample(self, key: str) -> int:
        """Count a read that stands for many. Returns after how many more reads the next one should be counted.

        The number varies, so that a program that reads its keys in turn does not count one of them alone.
        """
        self.add(key, self._sampled)
        return random.randrange(1, 2 * self._sampled)  # noqa: S311 - no secret

    def add(self, key: str, count: int) -> None:
        """Count reads of a key."""
        with self._lock:
            if key in self._counts or len(self._counts) < MOST_KEYS:
                self._counts[key] = self._counts.get(key, 0) + count

    def after_fork(self) -> None:
        """Start anew in a child process."""
        self._lock = threading.Lock()
        self._counts = {}

    def take(self) -> dict[str, int]:
        """Return what was counted since the last time."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return counts
