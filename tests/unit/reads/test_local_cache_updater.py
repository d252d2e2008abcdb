"""The local cache as a subscriber of the feed."""

import asyncio
from datetime import UTC, datetime

from pointsman.selection import POINTS
from pointsman_server.domain.routes import Change, ChangeKind, RouteKey, Snapshot
from pointsman_server.ports.store import Clock
from pointsman_server.reads.answer import Source
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.local_cache_updater import LocalCacheUpdater
from pointsman_server.reads.resolver import Resolver
from tests.support.fakes import BIRTH, ManualClock, MemoryCache, MemoryStore

FAMILY = RouteKey("team-a", "payments", "prod", "")
V1, V2 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2"))


class Fixture:
    def __init__(self) -> None:
        self.store, self.now = MemoryStore(), ManualClock()
        self.local = LocalCache(size=10, ttl=10, negative_ttl=10, now=self.now)
        self.resolver = Resolver(self.store, MemoryCache(), self.local, observer=self, now=self.now)
        self.updater = LocalCacheUpdater(self.resolver, self.local)

    def looked_up(self, layer: str, outcome: str) -> None:
        """Counts nothing."""

    def set_traffic(self, *versions: str) -> Change:
        """Traffic is set by another server."""
        traffic = self.store.divide(FAMILY, *((version, POINTS // len(versions)) for version in versions))
        revision, epoch = traffic.revision, self.store.epoch
        return Change(
            revision,
            "id",
            ChangeKind.TRAFFIC_SET,
            FAMILY,
            None,
            None,
            "bob",
            "",
            "",
            BIRTH,
            epoch,
            traffic_after=traffic,
        )

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


async def test_a_change_of_a_version_or_of_traffic_drops_the_family_and_the_next_read_loads_it() -> None:
    fixture = Fixture()
    fixture.store.put(V1)
    fixture.updater.start_over(Clock("epoch", 1))
    first = await fixture.resolver.resolve(FAMILY)
    assert [route.key for route in first.snapshot.family.routes] == [V1]
    held = await fixture.resolver.resolve(FAMILY)
    assert held.source is Source.LOCAL

    fixture.updater.apply([fixture.change(V2, "https://two.internal")])
    assert fixture.resolver.resolve_locally(FAMILY) is None
    second = await fixture.resolver.resolve(FAMILY)
    assert [route.key for route in second.snapshot.family.routes] == [V1, V2]

    fixture.updater.apply([fixture.set_traffic("v2")])
    assert fixture.resolver.resolve_locally(FAMILY) is None
    third = await fixture.resolver.resolve(FAMILY)
    assert third.snapshot.family.traffic == fixture.store.traffic[FAMILY]
    assert (third.source, fixture.local.changed(FAMILY)) == (Source.POSTGRES, 3)


async def test_a_load_of_a_family_that_began_before_a_change_is_not_cached() -> None:
    fixture = Fixture()
    fixture.store.put(V1)
    fixture.store.after_read.close()
    loading = asyncio.create_task(fixture.resolver.resolve(FAMILY))
    await fixture.store.after_read.arrivals()

    fixture.updater.apply([fixture.change(V2, "https://two.internal")])
    fixture.store.after_read.open()

    assert len((await loading).snapshot.family.routes) == 1
    assert fixture.resolver.resolve_locally(FAMILY) is None


async def test_families_do_not_take_the_place_of_routes_among_the_known_changes() -> None:
    fixture = Fixture()
    keys = [RouteKey("team-a", f"s{number}", "prod", "v1") for number in range(10)]
    fixture.updater.apply([fixture.change(key, "https://a.internal") for key in keys])
    assert [fixture.local.changed(key) for key in keys] == list(range(1, 11))
    assert [fixture.local.changed(key.family_key) for key in keys] == list(range(1, 11))
