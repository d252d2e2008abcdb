"""Apply changes to the shared cache."""

from collections.abc import Awaitable, Callable, Sequence

from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.ports.cache import RouteCache


class CacheHandler:
    """Tells the shared cache what changed: of every key in a batch, only the newest."""

    def __init__(
        self, cache: RouteCache, epoch: Callable[[], str], *, renew: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """``epoch`` gives that of the store as far as is known. Changes of another are dropped.

        After a restore the revisions begin again further down: what is left of the old history in the topic would
        fence out the new one. ``renew`` asks the store for its epoch: a change of another than ours may be of the new
        one, heard of from Kafka first.
        """
        self._cache = cache
        self._epoch = epoch
        self._renew = renew

    async def __call__(self, changes: Sequence[Change]) -> None:
        """Hand the changes over. Raises CacheUnavailable, and what ``renew`` raises."""
        if self._renew and any(change.epoch != self._epoch() for change in changes):
            await self._renew()
        epoch = self._epoch()
        newest: dict[RouteKey, Change] = {}
        for change in changes:
            kept = newest.get(change.key)
            if change.epoch == epoch and (kept is None or change.revision > kept.revision):
                newest[change.key] = change
        if newest:
            await self._cache.consume([change.snapshot for change in newest.values()])
