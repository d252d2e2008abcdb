"""Which revision a revision token requires of a read."""

from collections.abc import Sequence

from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ports.store import Clock, RouteStore
from pointsman_server.runtime.batcher import Batcher


class RevisionTokens:
    """Evaluates revision tokens: a revision, and the epoch that it counts in.

    A token of an epoch that is over requires nothing: its revisions are lost, or were assigned again. Only the store
    knows whether an epoch other than the current one is over or has just begun; concurrent calls share one query.
    """

    def __init__(self, epochs: EpochTracker, store: RouteStore) -> None:
        self._epochs = epochs
        self._store = store
        self._ask: Batcher[str, Clock] = Batcher(self._clocks, size=1000, concurrency=1, queue=1000, limit="epochs")

    async def floor(self, min_revision: int, epoch: str) -> int:
        """Return the revision that an answer must be as of, at least. Raises StoreUnavailable and Overloaded."""
        if epoch != self._epochs.epoch and not self._epochs.is_over(epoch):
            await self._ask.get(epoch)
        return min_revision if epoch == self._epochs.epoch else 0

    async def _clocks(self, epochs: Sequence[str]) -> Sequence[Clock]:
        return [await self._store.clock()] * len(epochs)
