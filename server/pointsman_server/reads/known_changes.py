"""The last known change of each key, for a bounded number of keys."""

from itertools import islice


class KnownChanges:
    """Revisions by key. It holds the last change of every key that changed after ``complete_from``, up to the feed.

    Above ``size`` keys, those that changed the longest ago are dropped: several at once, because a dict finds its first
    key by walking over all that were deleted before it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._at_once = max(1, size // 16)
        self._revisions: dict[bytes, int] = {}
        self.complete_from = 0

    def last(self, key: bytes) -> int:
        """Return the last revision at which ``key`` is known to have changed, or 0."""
        return self._revisions.get(key, 0)

    def note(self, key: bytes, revision: int) -> None:
        """Note that ``key`` changed at ``revision``, which is above the one noted before."""
        revisions = self._revisions
        if revisions.pop(key, None) is None and len(revisions) >= self._size:
            for dropped in list(islice(revisions, self._at_once)):
                self.complete_from = max(self.complete_from, revisions.pop(dropped))
        revisions[key] = revision

    def resume(self, revision: int) -> None:
        """Note that changes up to ``revision`` may have been missed; those noted before remain true."""
        self.complete_from = max(self.complete_from, revision)
