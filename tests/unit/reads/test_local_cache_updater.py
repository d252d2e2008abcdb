"""The local cache as a subscriber of the feed."""

import asyncio
from datetime import UTC, datetime

from pointsman_server.domain.routes import Change, ChangeKind, RouteKey, Snapshot
from pointsman_server.ports.store import Clock
from pointsman_server.reads.answer import Source
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.local_cache_updater import LocalCacheUpdater
from pointsman_server.reads.resolver import Resolver
from tests.support.fakes import ManualClock, MemoryCache, MemoryStore

V1, V2 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2"))


class Fixture:
    def __init__(self) -> None:
        self.store, self.now = MemoryStore(), ManualClock()
        self.local = LocalCache(size=10, ttl=10, negative_ttl=10, now=self.now)
        self.resolver = Resolver(self.store, MemoryCache(), self.local, observer=self, now=self.now)
        self.updater = LocalCacheUpdater(self.resolver, self.local)

    def looked_up(self, layer: str, outcome: str) -> None:
        """Counts nothing."""

    def change(self, key: RouteKey, url: str) -> Change:
        """A change by another server."""
        before, after = self.store.routes.get(key), self.store.put(key, url)
        moment = datetime.now(UTC)
        return Change(
            after.revision, "id", ChangeKind.UPDATED, key, before, after, "bob", "", "", moment, self.store.epoch
        )


async def test_what_is_held_is_replaced_by_every_change_of_a_set_and_known_as_of_the_last() -> None:
    fixture = Fixture()
    for key in (V1, V2):
        fixture.store.put(key)
    fixture.updater.start_over(Clock("epoch", 2))
    for key in (V1, V2):
        await fixture.resolver.resolve(key)

    fixture.updater.apply([fixture.change(V1, "https://one.internal"), fixture.change(V2, "https://two.internal")])
    fixture.updater.advance(4)

    assert fixture.local.fed == 4
    for key, url in ((V1, "https://one.internal"), (V2, "https://two.internal")):
        answer = await fixture.resolver.resolve(key, 4)
        assert answer.snapshot.route
        assert (answer.source, answer.snapshot.route.url) == (Source.LOCAL, url)


async def test_what_is_held_stays_fresh_while_the_feed_confirms() -> None:
    fixture = Fixture()
    fixture.store.put(V1)
    fixture.updater.start_over(Clock("epoch", 1))
    await fixture.resolver.resolve(V1)
    fixture.now.advance(9)
    fixture.updater.confirm(fixture.now())
    fixture.now.advance(5)
    assert (await fixture.resolver.resolve(V1)).source is Source.LOCAL


async def test_a_write_above_the_clock_that_the_feed_starts_over_from_stays_known() -> None:
    """The feed read the clock before the write was committed, and does not bring this process's own writes again."""
    fixture = Fixture()
    old = fixture.store.put(V1)
    written = fixture.change(V1, "https://new.internal").snapshot
    fixture.resolver.apply_local_write([written])

    fixture.updater.start_over(Clock("epoch", old.revision))
    fixture.updater.advance(written.as_of)
    fixture.local.put(Snapshot(V1, old, old.revision), fixture.now())  # from a shared cache that missed the write

    assert fixture.resolver.resolve_locally(V1) is None
    assert fixture.local.changed(V1) == written.as_of


async def test_nothing_is_known_of_the_epoch_before() -> None:
    fixture = Fixture()
    fixture.store.put(V1)
    fixture.resolver.apply_local_write([fixture.change(V1, "https://new.internal").snapshot])

    fixture.updater.forget_epoch()

    assert (len(fixture.local), fixture.local.changed(V1), fixture.local.fed) == (0, 0, 0)


async def test_starting_over_drops_the_cache_and_the_loads_in_flight() -> None:
    fixture = Fixture()
    for key in (V1, V2):
        fixture.store.put(key)
    await fixture.resolver.resolve(V1)
    fixture.store.after_read.close()
    loading = asyncio.create_task(fixture.resolver.resolve(V2))
    await fixture.store.after_read.arrivals()

    fixture.updater.start_over(Clock("another", 7))
    fixture.store.after_read.open()
    await loading

    assert len(fixture.local) == 0
    assert fixture.local.fed == 7
