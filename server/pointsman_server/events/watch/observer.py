"""What watches tell those who count."""


class WatchObserver:
    """Ignores everything. A subclass overrides what it counts; nothing here may wait or raise."""

    def opened(self) -> None:
        """Note a stream that was opened."""

    def closed(self) -> None:
        """Note a stream that has ended."""

    def began(self, source: str) -> None:
        """Note how a stream begins: by a ``snapshot``, or after a revision from the ``ring`` or the ``history``."""

    def queued(self, change_sets: int) -> None:
        """Note change sets that were queued for streams: one for each stream that it matches."""

    def ended_slow(self) -> None:
        """Note a stream that was ended because its client reads too slowly."""

    def made_snapshot(self) -> None:
        """Note a snapshot that was made."""


SILENT = WatchObserver()
