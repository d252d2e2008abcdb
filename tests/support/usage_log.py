"""``ports.UsageLog`` in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.usage_log import Reader, ReadersNow, Reads, UsageUnavailable


@dataclass(slots=True)
class _Entry:
    period: int = -2
    current: int = 0
    previous: int = 0
    last: float = 0.0


@dataclass
class MemoryUsageLog:
    """One for all servers of a test. ``now`` is in seconds; every call fails while ``down``."""

    now: Callable[[], float]
    window: float = 86_400.0
    most_keys: int = 200_000
    most_subjects: int = 1_000
    down: bool = False
    since: float | None = None
    kept: float = 0.0
    entries: dict[RouteKey, dict[str, _Entry]] = field(default_factory=dict)

    async def add(self, reads: Sequence[Reads]) -> int:
        self._check()
        dropped = sum(not self._add(*read) for read in reads)
        while len(self.entries) > self.most_keys:
            oldest = min(self.entries, key=self._last)
            self.since = max(self.since or 0.0, self._last(oldest) + 0.001)
            del self.entries[oldest]
            dropped += 1
        return dropped

    async def readers(self, key: RouteKey, limit: int) -> Sequence[Reader]:
        self._check()
        into = self.now() % self.window / self.window
        readers = [
            Reader(subject, max(1, round(self._count(entry, into))), datetime.fromtimestamp(entry.last, UTC))
            for subject, entry in self.entries.get(key, {}).items()
        ]
        return sorted(readers, key=lambda reader: reader.last, reverse=True)[:limit]

    async def readers_of(self, keys: Sequence[RouteKey], limit: int) -> Sequence[ReadersNow]:
        self._check()
        now = datetime.fromtimestamp(self.now(), UTC)
        begun = now if self.since is None else max(self.since, self.now() - self.window)
        since = datetime.fromtimestamp(begun, UTC) if isinstance(begun, float) else begun
        return [ReadersNow(now, await self.readers(key, limit), since) for key in keys]

    async def keep(self) -> None:
        self._check()
        if self.since is None:
            self.since = self.now()
        self.kept = self.now()

    def lose(self) -> None:
        """Lose everything."""
        self.entries.clear()
        self.since = None

    def _count(self, entry: _Entry, into: float) -> float:
        """Count the reads of the last window, when the part ``into`` of this period has passed."""
        if entry.period == self.now() // self.window:
            return entry.current + entry.previous * (1 - into)
        return entry.current * (1 - into)

    def _add(self, key: RouteKey, subject: str, times: int) -> bool:
        of_key = self.entries.setdefault(key, {})
        if subject not in of_key and len(of_key) >= self.most_subjects:
            return False
        entry, period = of_key.setdefault(subject, _Entry()), int(self.now() // self.window)
        if entry.period != period:
            entry.previous = entry.current if entry.period == period - 1 else 0
            entry.period, entry.current = period, 0
        entry.current += times
        entry.last = self.now()
        return True

    def _last(self, key: RouteKey) -> float:
        return max((entry.last for entry in self.entries[key].values()), default=0.0)

    def _check(self) -> None:
        if self.down:
            raise UsageUnavailable
        if self.since is not None and self.kept <= self.now() - self.window:
            self.since = None
        for key, of_key in list(self.entries.items()):
            for subject in [name for name, entry in of_key.items() if entry.last <= self.now() - self.window]:
                del of_key[subject]
            if not of_key:
                del self.entries[key]
