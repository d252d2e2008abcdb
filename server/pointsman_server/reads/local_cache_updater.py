"""Applies what the feed hands over to the local cache and to the loads that would fill it."""

from collections.abc import Sequence

from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.ports.store import Clock
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.resolver import Resolver


class LocalCacheUpdater:
    """A subscriber of the feed. Applying a change again, or one that a write of this process applied, has no effect."""

    def __init__(self, resolver: Resolver, local: LocalCache) -> None:
        self._resolver = resolver
        self._local = local

    def forget_epoch(self) -> None:
        """Drop what is known of the epoch before. Called before the feed starts over in the new one."""
        self._resolver.forget()
        self._local.forget()

    def start_over(self, clock: Clock) -> None:
        """Drop the cache, and do not cache the results of loads that have begun."""
        self._resolver.forget()
        self._local.start_over(clock.revision)

    def apply(self, changes: Sequence[Change]) -> None:
        """Replace what the cache holds of the changed routes, and drop their families."""
        families: dict[RouteKey, int] = {}
        for change in changes:
            if not change.kind.of_traffic:
                self._resolver.observe(change.snapshot)
            families[change.key.family_key] = change.revision
        self._resolver.supersede(families.keys(), families.values())

    def advance(self, revision: int) -> None:
        """Every change up to ``revision`` has been applied."""
        self._local.advance(revision)

    def confirm(self, moment: float) -> None:
        """At ``moment``, in monotonic seconds, the store had no change that had not been applied by now."""
        self._local.confirm(moment)
