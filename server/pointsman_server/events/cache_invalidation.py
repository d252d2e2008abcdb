"""Apply changes from Kafka to the shared cache."""

from collections.abc import Awaitable, Callable, Sequence

from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.ports.cache import RouteCache


class CacheHandler:
    """Updates the shared cache by the newest change of every key in a batch; families are dropped, and loaded again."""

    def __init__(
        self, cache: RouteCache, epoch: Callable[[], str], *, renew: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """``epoch`` returns the known epoch of the store. Changes of other epochs are dropped.

        After a restore, revisions continue from a lower one, and the cache would reject the new changes if it had
        applied old ones that are still in the topic. ``renew`` reads the epoch from the store: a change of an unknown
        epoch may be the first sign of a new one.
        """
        self._cache = cache
        self._epoch = epoch
        self._renew = renew

    async def __call__(self, changes: Sequence[Change]) -> None:
        """Apply the changes. Raises CacheUnavailable, and what ``renew`` raises."""
        if self._renew and any(change.epoch != self._epoch() for change in changes):
            await self._renew()
        epoch = self._epoch()
        newest: dict[RouteKey, Change] = {}
        families: dict[RouteKey, int] = {}
        for change in changes:
            if change.epoch != epoch:
                continue
            family = change.key.family_key
            families[family] = max(families.get(family, 0), change.revision)
            kept = newest.get(change.key)
            if not change.kind.of_traffic and (kept is None or change.revision > kept.revision):
                newest[change.key] = change
        if newest:
            await self._cache.consume([change.snapshot for change in newest.values()])
        if families:
            await self._cache.invalidate(list(families), list(families.values()), epoch)
