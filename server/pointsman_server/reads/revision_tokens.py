"""What a revision token, a revision and its epoch, requires of a read."""

from collections.abc import Sequence

from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ports.store import Clock, RouteStore
from pointsman_server.runtime.batcher import Batcher


class RevisionTokens:
    """Says what a token, a revision and the epoch that it counts in, asks of a read now.

    A token of an epoch that is over asks for nothing: its revisions are lost or have been given away again. Whether an
    epoch that is not ours is over or has just begun only the store can tell; many ask it at once by one question.
    """

    def __init__(self, epochs: EpochTracker, store: RouteStore) -> None:
        self._epochs = epochs
        self._store = store
        self._ask: Batcher[str, Clock] = Batcher(self._clocks, size=1000, concurrency=1, queue=1000, limit="epochs")

    async def floor(self, min_revision: int, epoch: str) -> int:
        """Give the revision that an answer must have reached. Raises StoreUnavailable and Overloaded."""
        if epoch != self._epochs.epoch and not self._epochs.is_over(epoch):
            await self._ask.get(epoch)
        return min_revision if epoch == self._epochs.epoch else 0

    async def _clocks(self, epochs: Sequence[str]) -> Sequence[Clock]:
        return [await self._store.clock()] * len(epochs)
