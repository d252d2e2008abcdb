"""What the client returns about those who watch and read. A module of its own: few programs load it."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class WatcherProgress:
    """One watcher: how it calls itself, where it connects from, who it is, and how far it is known to be."""

    watcher_id: str
    name: str
    address: str
    subject: str
    applied_revision: int
    watch_time: datetime


@dataclass(frozen=True, slots=True)
class Propagation:
    """Who has a revision: ``applied_count`` of ``watcher_count`` watchers; ``behind`` has up to 100 of the others.

    Without ``all_servers`` only the watchers of the server that answered are known.
    """

    watcher_count: int
    applied_count: int
    behind: tuple[WatcherProgress, ...]
    all_servers: bool

    @property
    def complete(self) -> bool:
        """Whether every known watcher has the revision."""
        return self.applied_count >= self.watcher_count


@dataclass(frozen=True, slots=True)
class Reader:
    """One identity that reads a route. ``read_count`` is an estimate: servers count samples."""

    subject: str
    read_count: int
    last_read_time: datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """Who has read a route within the last ``window``: up to 100 readers, those who read last first.

    Without ``all_servers`` only what the server that answered has counted is known.
    """

    readers: tuple[Reader, ...]
    window: timedelta
    all_servers: bool
