"""The file that a near-cache starts from when no server can be reached."""

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pointsman.near_cache.disk.encoding import (
    DIGEST_BYTES,
    DamagedSnapshot,
    StoredTable,
    StoredView,
    decode,
    decode_age,
    encode,
    encode_age,
)
from pointsman.near_cache.table.entries import CachedResolution, InactiveRoute, Known
from pointsman.near_cache.table.table import Positioned, Table
from pointsman.near_cache.table.view import View
from pointsman.v1.traffic_pb2 import Traffic

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_LOG = logging.getLogger(__name__)


class DiskSnapshot:
    """A snapshot at ``path``, the age of it beside it, and a lock file: one near-cache at a time writes.

    Files are replaced as a whole: written beside, synced, renamed, and the directory synced. What cannot be read
    counts as absent, and is overwritten.
    """

    def __init__(self, path: str | os.PathLike[str], *, now: Callable[[], float] = time.time) -> None:
        self._path = Path(path)
        self._age_path = self._path.with_name(f"{self._path.name}.age")
        self._lock_path = self._path.with_name(f"{self._path.name}.lock")
        self._now = now
        self._lock: int | None = None
        # Names the table that is on the disk, and says which state of the table in memory that is.
        self._digest: bytes | None = None
        self._written = -1
        self.problem = ""
        """Why the snapshot is not read or written; empty while it is."""

    @property
    def writable(self) -> bool:
        """Whether this near-cache is the one that writes."""
        return self._lock is not None

    def acquire(self) -> bool:
        """Become the writer. Returns whether this is it; otherwise ``problem`` says why not."""
        if self._lock is not None:
            return True
        if fcntl is None:
            self.problem = "this system has no file locks: the snapshot is only read"
            return False
        try:
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self.problem = _told("cannot be locked", error)
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            self.problem = "another near-cache writes this snapshot: it is only read here"
            return False
        self._lock, self.problem = lock, ""
        return True

    def release(self) -> None:
        """Let another near-cache write. In a forked process this leaves the lock with the parent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)  # not unlocked: after a fork the lock is the parent's as well

    def read(self) -> StoredTable | None:
        """Return what is on the disk, with its latest known age; None if there is nothing that can be used."""
        try:
            table = decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, DamagedSnapshot) as error:
            self.problem = _told("cannot be read", error)
            _LOG.warning("the snapshot %s %s", self._path, self.problem)
            return None
        return replace(table, views=self._latest(table))

    def write(self, table: Table, clock: Callable[[], float]) -> bool:
        """Write what is new since the last time: the table, or its age alone. Returns whether that was possible.

        ``clock`` is the monotonic clock that the table uses. Raises nothing: ``problem`` says what failed.
        """
        version, positions = table.positions()
        if self._digest is not None and version == self._written:
            return self._replace(self._age_path, encode_age(self._digest, self._stored(positions, clock)))
        version, positions, entries, traffic = table.entries()
        numbers = {id(view): number for number, (view, _, _) in enumerate(positions)}
        messages = [(numbers[id(each.owner)], each.message) for each in traffic]
        content = encode(self._stored(positions, clock), _rows(entries, numbers), messages)
        if not self._replace(self._path, content):
            return False
        self._digest, self._written = content[-DIGEST_BYTES:], version
        return True

    def _stored(self, positions: Sequence[Positioned], clock: Callable[[], float]) -> list[StoredView]:
        return [
            StoredView(view.filter, position, self._now() - (clock() - confirmed_at), view.has_traffic)
            for view, position, confirmed_at in positions
        ]

    def _latest(self, table: StoredTable) -> Sequence[StoredView]:
        """Return the views with what the file of the age says, which is newer, if it is about this table."""
        try:
            newer = decode_age(self._age_path.read_bytes(), table.digest)
        except FileNotFoundError:
            return table.views
        except (OSError, DamagedSnapshot) as error:
            _LOG.warning("the age of the snapshot %s %s", self._path, _told("cannot be read", error))
            return table.views
        return newer if [view.filter for view in newer] == [view.filter for view in table.views] else table.views

    def _replace(self, path: Path, content: bytes) -> bool:
        try:
            _write_atomically(path, content)
        except OSError as error:
            self.problem = _told("cannot be written", error)
            return False
        self.problem = ""
        return True


def load(stored: StoredTable, table: Table, now: float, clock: float) -> list[View]:
    """Put what a disk has into the table: the views that it is meant to have. Returns those.

    ``now`` is the time in seconds of the Unix epoch, ``clock`` that of the clock of the table.
    """
    wanted = {view.filter: view for view in table.views}
    views = [wanted.get(view.filter) for view in stored.views]
    parts: list[dict[str, Known]] = [{} for _ in stored.views]
    routes = stored.routes
    rows = zip(routes.keys, routes.urls, routes.revisions, routes.views, routes.active, routes.rests, strict=True)
    for key, url, revision, number, active, rest in rows:
        view = views[number]
        if view is not None:
            kind = CachedResolution if active else InactiveRoute
            parts[number][key] = kind(view, key, url, revision, rest)
    traffic: list[list[Traffic]] = [[] for _ in stored.views]
    for number, message in stored.traffic:
        traffic[number].append(Traffic.FromString(message))
    found = []
    for view, part, its_traffic, kept in zip(views, parts, traffic, stored.views, strict=True):
        if view is not None and not view.loaded:
            table.replace(view, kept.position, part.items(), its_traffic if kept.has_traffic else None)
            # A clock that was set back does not make the table younger than it can be.
            view.confirmed_at = clock - max(0.0, now - kept.confirmed_at)
            found.append(view)
    return found


def _rows(entries: Sequence[Known], numbers: dict[int, int]) -> Iterator[tuple[int, str, str, int, bytes, bool]]:
    for entry in entries:
        owner = entry.owner if isinstance(entry, InactiveRoute) else entry.view
        yield (numbers[id(owner)], *entry.stored)


def _write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as a whole, and return once that will survive a loss of power. Raises OSError."""
    file, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _told(what: str, error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return f"{what}: {text or type(error).__name__}"
