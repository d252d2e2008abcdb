"""Who reads which route: gives the counts of this process to the log of all servers, and answers from it."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice

from pointsman_server.domain.codec import key_from_bytes, key_to_bytes
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.usage_log import Reader, ReadersNow, Reads, UsageLog, UsageUnavailable
from pointsman_server.reads.read_counts import Counts, ReadCounts

# Seconds between two times at which the counts are given to the log.
FLUSH_SECONDS = 5.0
# Entries that are given to it at once; between two such parts other work gets its turn.
PART = 500
MOST_READERS = 100


@dataclass(frozen=True, slots=True)
class Usage:
    """Who has read a route, those who read last first; ``all_servers`` is False if only this server's reads are known.

    What other servers have not given to the log yet, those of their last FLUSH_SECONDS, is missing.
    """

    readers: Sequence[Reader]
    all_servers: bool


class UsageRecorder:
    """Keeps what cannot be given to the log until it can, within the bound of ``counts``.

    ``window`` is that of the log, in seconds; 0 where nothing is counted. ``dropped`` is called with how many counts
    were dropped, because a bound was reached.
    """

    def __init__(
        self,
        counts: ReadCounts,
        log: UsageLog,
        *,
        window: float,
        dropped: Callable[[int], None] = lambda _count: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._counts = counts
        self._log = log
        self.window = window
        self._dropped = dropped
        self._now = now

    def add(self, reads: Iterable[Reads]) -> None:
        """Count reads that a near-cache has answered, unless nothing is counted."""
        if not self.window:
            return
        for key, subject, times in reads:
            self._counts.add(key_to_bytes(key), subject, times)

    async def usage(self, key: RouteKey) -> Usage:
        """Return who has read a route."""
        if not self.window:
            return Usage((), all_servers=False)
        logged: Sequence[Reader] = ()
        try:
            logged, all_servers = await self._log.readers(key, MOST_READERS), True
        except UsageUnavailable:
            all_servers = False
        now = self._now()
        return Usage(self._with_waiting(key, ReadersNow(now, logged, now)), all_servers)

    async def readers_of(self, keys: Sequence[RouteKey]) -> Sequence[ReadersNow]:
        """Return who has read each key, by the clock of the log. Raises ``ports.usage_log.UsageUnavailable``."""
        logged = await self._log.readers_of(keys, MOST_READERS)
        return [
            ReadersNow(each.now, self._with_waiting(key, each), each.since)
            for key, each in zip(keys, logged, strict=True)
        ]

    def _with_waiting(self, key: RouteKey, logged: ReadersNow) -> Sequence[Reader]:
        """Add the reads of this server that the log does not have yet."""
        waiting = self._counts.of_key(key_to_bytes(key))
        before = {reader.subject: reader.count for reader in logged.readers}
        latest = [Reader(subject, before.get(subject, 0) + times, logged.now) for subject, times in waiting.items()]
        earlier = [reader for reader in logged.readers if reader.subject not in waiting]
        return [*latest, *earlier][:MOST_READERS]

    async def run(self) -> None:
        """Flush at once, again and again, and when cancelled."""
        try:
            while True:
                await self.flush()
                await asyncio.sleep(FLUSH_SECONDS)
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Give the counts to the log, and let it know that they come."""
        waiting = _reads(self._counts.take())
        dropped, self._counts.dropped = self._counts.dropped, 0
        part: Sequence[Reads] = ()
        try:
            await self._log.keep()
            while part := list(islice(waiting, PART)):
                dropped += await self._log.add(part)
        except UsageUnavailable:
            # Of this part, some may be counted twice.
            self.add(chain(part, waiting))
        if dropped:
            self._dropped(dropped)


def _reads(counts: Counts) -> Iterator[Reads]:
    for subject, of_subject in counts.items():
        for key, times in of_subject.items():
            yield Reads(key_from_bytes(key), subject, times)
