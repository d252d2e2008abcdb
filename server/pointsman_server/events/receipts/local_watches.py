"""The watches that this process serves, and what of them has not been published yet."""

from collections.abc import Iterable, Sequence

from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import OpenWatch, RegisteredWatch, WatchName


class LocalWatches:
    """Watches by name. A client that reconnects may have two streams of one name: the later one counts, until both end.

    ``server`` names this process in what is registered.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        # In the order in which their streams began; the same one twice is two streams.
        self._streams: dict[WatchName, list[OpenWatch]] = {}
        self._applied: dict[WatchName, Clock] = {}
        self._unpublished: dict[WatchName, None] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, name: WatchName) -> bool:
        return name in self._streams

    @property
    def unpublished(self) -> bool:
        """Whether anything has changed since ``take_changes``."""
        return bool(self._unpublished)

    def open(self, watch: OpenWatch) -> None:
        if (streams := self._streams.get(watch.name)) is None:
            # Nearly always the only one, for which this list has just enough room.
            self._streams[watch.name] = [watch]
        else:
            streams.append(watch)
        self._unpublished[watch.name] = None

    def close(self, watch: OpenWatch) -> None:
        streams = self._streams[watch.name]
        streams.remove(watch)
        self._unpublished[watch.name] = None
        if not streams:
            del self._streams[watch.name]
            self._applied.pop(watch.name, None)

    def report(self, name: WatchName, applied: Clock) -> bool:
        """Note what a watch has applied, unless a higher revision of its epoch is known. Returns whether it is open."""
        if name not in self._streams:
            return False
        before = self._applied.get(name)
        if before is None or before.epoch != applied.epoch or before.revision < applied.revision:
            self._applied[name] = applied
        return True

    def behind(self, clock: Clock) -> list[WatchName]:
        """Return the watches that are not known to have applied ``clock``."""
        return [name for name in self._streams if not has_applied(self._applied.get(name), clock)]

    def registered(self) -> Iterable[RegisteredWatch]:
        """Return all of them, with what they have reported."""
        for name, streams in self._streams.items():
            yield RegisteredWatch(self.server, streams[-1], self._applied.get(name))

    def take_changes(self) -> tuple[Sequence[OpenWatch], Sequence[WatchName]]:
        """Return the watches that were opened, and the names of those that were closed, since this was called."""
        names, self._unpublished = self._unpublished, {}
        opened = [self._streams[name][-1] for name in names if name in self._streams]
        return opened, [name for name in names if name not in self._streams]

    def take_all(self) -> tuple[Sequence[OpenWatch], Sequence[WatchName]]:
        """Return the watches that are open, as if all had been opened just now and none closed."""
        self._unpublished = {}
        return [streams[-1] for streams in self._streams.values()], []


def has_applied(applied: Clock | None, wanted: Clock) -> bool:
    """Return whether ``applied`` is of the epoch of ``wanted``, and not before it."""
    return applied is not None and applied.epoch == wanted.epoch and applied.revision >= wanted.revision
