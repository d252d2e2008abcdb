"""The last change known of each key, of as many keys as are remembered."""

from itertools import islice


class KnownChanges:
    """Revisions by key. Of the changes after ``complete_from``, up to where the feed is, each key's last one is there.

    When there are ``size``, those that changed the longest ago are forgotten: a few at once, because a dict finds its
    first key by walking over all that were deleted before it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._at_once = max(1, size // 16)
        self._revisions: dict[bytes, int] = {}
        self.complete_from = 0

    def last(self, key: bytes) -> int:
        """Return the last revision at which ``key`` is known to have changed; 0 when none is."""
        return self._revisions.get(key, 0)

    def note(self, key: bytes, revision: int) -> None:
        """Remember that ``key`` changed at ``revision``, later than it did before."""
        revisions = self._revisions
        if revisions.pop(key, None) is None and len(revisions) >= self._size:
            for forgotten in list(islice(revisions, self._at_once)):
                self.complete_from = max(self.complete_from, revisions.pop(forgotten))
        revisions[key] = revision

    def start_over(self, revision: int) -> None:
        """Forget everything; what comes is after ``revision``."""
        self._revisions.clear()
        self.complete_from = revision
