"""The thread of a near-cache that does what is due: ends silent streams, writes the disk, reports usage."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from pointsman.near_cache.disk.snapshot import DiskSnapshot
from pointsman.near_cache.statistics.counts import Counts, ReadCounts
from pointsman.near_cache.statistics.usage import UsageReporter
from pointsman.near_cache.table.table import Table
from pointsman.near_cache.watch.follower import Follower
from pointsman.near_cache.watch.service import RemoteService

BEAT_SECONDS = 0.5
DISK_SECONDS = 5.0
"""Between two writes of the disk. What happened since the last one is read from a server again after a restart."""

_LOG = logging.getLogger(__name__)


class Keeper:
    """Runs from ``start`` to ``stop``."""

    def __init__(
        self,
        followers: Sequence[Follower],
        table: Table,
        disk: DiskSnapshot | None,
        reads: ReadCounts,
        counts: Counts,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._followers = followers
        self._table = table
        self._disk = disk
        self._counts = counts
        self._clock = clock
        self._usage = UsageReporter(reads, clock())
        self._disk_at = clock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, service: RemoteService) -> None:
        """Start the thread."""
        self._stopped = threading.Event()
        arguments = (service, self._stopped)
        self._thread = threading.Thread(target=self._run, args=arguments, name="pointsman-near-cache", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end; ``join`` waits for that."""
        self._stopped.set()

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended, for so long at most."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def finish(self, service: RemoteService) -> None:
        """End the thread, and do for the last time what it does."""
        self.stop()
        self.join(DISK_SECONDS)
        self._usage.finish(service)
        self.write_disk()

    def after_fork(self) -> None:
        """Forget the calls of the parent."""
        self._usage.after_fork()

    def beat(self, service: RemoteService) -> None:
        """Do what is due."""
        now = self._clock()
        for follower in self._followers:
            follower.check_silence()
        self._usage.beat(service, now)
        if self._disk is not None and now >= self._disk_at:
            self._disk_at = now + DISK_SECONDS
            self.write_disk()

    def write_disk(self) -> None:
        """Write what is new, if a server has confirmed anything, and this near-cache is the one that writes."""
        disk = self._disk
        if disk is None or not self._table.confirmed or not disk.acquire():
            return
        self._counts.add("disk_writes" if disk.write(self._table, self._clock) else "disk_failures")

    def _run(self, service: RemoteService, stopped: threading.Event) -> None:
        while not stopped.wait(BEAT_SECONDS):
            try:
                self.beat(service)
            except Exception:  # noqa: BLE001 - a thread that ends for good would end no silent stream
                _LOG.exception("the work of a near-cache failed; it is tried again")
