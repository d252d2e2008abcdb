"""The cache in the server process: no snapshot replaces a newer one, its size is bounded, and entries expire."""

import gc
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.domain.codec import key_to_bytes, route_to_message, value_to_bytes
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Family, Route, RouteKey, Snapshot
from pointsman_server.reads.cache_entry import ABSENT, ACTIVE, FAMILY, INACTIVE, NO_FAMILY, EntryScope
from pointsman_server.reads.local_cache import JITTER, LocalCache
from tests.support.fakes import BIRTH, ManualClock

K1, K2 = RouteKey("a", "b", "c", "v1"), RouteKey("a", "b", "c", "v2")
TTL, NEGATIVE_TTL = 10.0, 4.0


def at(as_of: int, key: RouteKey = K1) -> Snapshot:
    return Snapshot(key, Route(key, "https://x.internal", True, {}, as_of, BIRTH, BIRTH), as_of)


def absent(as_of: int) -> Snapshot:
    return Snapshot(K1, None, as_of)


@pytest.fixture
def now() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(now: ManualClock) -> LocalCache:
    return LocalCache(size=100, ttl=TTL, negative_ttl=NEGATIVE_TTL, now=now)


def age(cache: LocalCache) -> float | None:
    found = cache.look(K1)
    return found[1] if found else None


def held(cache: LocalCache, key: RouteKey = K1) -> Snapshot | None:
    found = cache.look(key)
    return found[0] if found else None


def tracked(cache: LocalCache, key: RouteKey) -> bool:
    """Say whether the entry of ``key`` is known to be true as of a later revision once the feed is there."""
    assert held(cache, key)
    cache.advance(cache.fed + 1)
    return cache.look(key, cache.fed) is not None


def end(cache: LocalCache, now: ManualClock, key: RouteKey = K1) -> int:
    """Return the millisecond in which the entry expires, and turn the clock back."""
    begun, last = now(), 0
    while held(cache, key):
        last += 1
        now.seconds = begun + last / 1000
    now.seconds = begun
    return last


def test_what_is_put_is_held_with_when_its_read_began(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(5), now() - 1)
    assert (held(cache), age(cache)) == (at(5), 1)
    assert held(cache, K2) is None


def test_a_route_that_is_encoded_already_is_held_as_another(cache: LocalCache, now: ManualClock) -> None:
    snapshot = at(5)
    assert snapshot.route is not None
    cache.put(snapshot, now())
    encoded = cache.find(key_to_bytes(K1))
    cache.drop()
    cache.put(snapshot, now(), route_to_message(snapshot.route).SerializeToString())

    assert cache.find(key_to_bytes(K1)) == encoded
    assert held(cache) == snapshot


def test_a_newer_snapshot_replaces_an_older_one(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(5), now())
    cache.put(absent(6), now())
    assert held(cache) == absent(6)


@pytest.mark.parametrize("later", [0.0, 1.0])
def test_an_older_snapshot_never_replaces_a_newer_one_even_when_read_later(
    cache: LocalCache, now: ManualClock, later: float
) -> None:
    cache.put(absent(6), now())
    cache.put(at(5), now() + later)
    assert held(cache) == absent(6)


def test_an_expired_snapshot_still_fences(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(6), now())
    now.advance(TTL)
    cache.put(at(5), now())
    assert held(cache) is None


def test_the_same_revision_read_again_lives_longer(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(5), now())
    now.advance(TTL / 2)
    cache.put(at(5), now())
    now.advance(TTL / 2)
    assert held(cache) == at(5)


def test_the_same_revision_from_an_earlier_read_does_not_shorten_its_life(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(5), now())
    cache.put(at(5), now() - TTL)
    assert held(cache) == at(5)


@pytest.mark.parametrize(("snapshot", "ttl"), [(at(5), TTL), (absent(5), NEGATIVE_TTL)], ids=["route", "absence"])
def test_a_snapshot_is_answered_for_its_time_to_live_less_the_jitter(
    cache: LocalCache, now: ManualClock, snapshot: Snapshot, ttl: float
) -> None:
    begun = now()
    cache.put(snapshot, begun)
    now.seconds = begun + ttl * (1 - JITTER) - 0.001
    assert held(cache) == snapshot
    now.seconds = begun + ttl
    assert held(cache) is None


def test_age_counts_from_the_beginning_of_the_read_not_from_its_end(cache: LocalCache, now: ManualClock) -> None:
    begun = now()
    now.advance(TTL - 0.001)  # a slow read: what it brought may be this old
    cache.put(at(5), begun)
    now.advance(0.001)
    assert held(cache) is None


def test_a_read_that_took_longer_than_the_time_to_live_brings_nothing(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(5), now() - TTL)
    assert held(cache) is None


def test_what_is_put_together_does_not_expire_together(cache: LocalCache, now: ManualClock) -> None:
    keys = [RouteKey("a", "b", "c", f"v{number}") for number in range(50)]
    for key in keys:
        cache.put(at(5, key), now())
    now.advance(TTL * (1 - JITTER) - 0.001)
    ends = {end(cache, now, key) for key in keys}
    assert len(ends) > 40
    assert 1 <= min(ends) < max(ends) <= TTL * JITTER * 1000 + 1


def test_absence_never_outlives_a_route(now: ManualClock) -> None:
    cache = LocalCache(size=10, ttl=1.0, negative_ttl=60.0, now=now)
    cache.put(absent(5), now())
    now.advance(1.0)
    assert held(cache) is None


def test_it_is_bounded_and_the_least_recently_used_leaves(now: ManualClock) -> None:
    cache = LocalCache(size=3, ttl=TTL, negative_ttl=TTL, now=now)
    keys = [RouteKey("a", "b", "c", f"v{number}") for number in range(4)]
    for key in keys[:3]:
        cache.put(at(5, key), now())
    assert held(cache, keys[0])
    cache.put(at(5, keys[3]), now())
    assert len(cache) == 3
    assert [held(cache, key) is not None for key in keys] == [True, False, True, True]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["put", "look", "change", "drop"]), st.integers(0, 7)), max_size=80))
def test_every_key_has_what_was_put_last_or_nothing_whatever_is_evicted(deeds: list[tuple[str, int]]) -> None:
    cache = LocalCache(size=3, ttl=TTL, negative_ttl=TTL, now=lambda: 0.0)
    keys = [RouteKey(f"t{number % 3}", f"s{number}", f"e{number % 2}", "v1") for number in range(8)]
    last: dict[RouteKey, Snapshot] = {}
    for revision, (deed, number) in enumerate(deeds, start=1):
        key = keys[number]
        if deed == "put":
            last[key] = replace(at(revision, key), epoch=f"epoch {number % 2}")
            cache.put(last[key], 0)
            assert held(cache, key) == last[key]
        elif deed == "change" and key in last:
            last[key] = replace(at(revision, key), epoch="another")
            cache.observe(last[key])
        elif deed == "drop":
            cache.supersede(key, revision)
            assert held(cache, key) is None
        elif snapshot := held(cache, key):
            assert (snapshot, snapshot.epoch) == (last[key], last[key].epoch)
        assert len(cache) <= 3
    for key in keys:
        found = cache.find(key_to_bytes(key))
        assert found is None or found[4] == EntryScope(Scope(key.tenant, key.env), last[key].epoch)


def test_a_route_takes_a_third_of_a_kilobyte_and_nothing_that_a_collection_walks_over() -> None:
    cache = LocalCache(size=100_000, ttl=TTL, negative_ttl=TTL)
    count = 20_000  # by which a dict has just grown, so that it is nearly as empty as it can be
    put_fresh(cache, 0)
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    try:
        for number in range(1, count):
            put_fresh(cache, number)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert taken / count < 350
    assert len(gc.get_objects()) - objects < 1000


def put_fresh(cache: LocalCache, number: int) -> None:
    """Put a route as a driver reads it: no two of its strings are one object."""
    key = RouteKey(*(bytes(part, "ascii").decode() for part in ("tenant-1", f"service-{number}", "prod", "v1")))
    labels = {f"owner-{number}"[:5]: f"team-a{number}"[:6], f"tier{number}"[:4]: f"gold{number}"[:4]}
    url = f"https://payments.internal:8443/{number}"
    cache.put(Snapshot(key, Route(key, url, True, labels, 10**9 + number, BIRTH, BIRTH), 10**9 + number), 0)


# What the feed tells


def test_a_change_replaces_what_is_held_and_lets_it_live_no_longer(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(5), now())
    now.advance(TTL / 2)
    before = end(cache, now)

    cache.observe(at(8))

    assert (held(cache), age(cache)) == (at(8), TTL / 2)
    assert end(cache, now) == before


def test_a_route_that_comes_where_there_was_none_lives_no_longer_for_it_either(
    cache: LocalCache, now: ManualClock
) -> None:
    cache.put(absent(5), now())
    before = end(cache, now)

    cache.observe(at(8))

    assert held(cache) == at(8)
    assert end(cache, now) == before


def test_a_change_that_is_older_than_what_is_held_leaves_it_and_is_known(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(10), now())
    cache.put(at(10, K2), now())

    cache.observe(at(8))
    cache.supersede(K2, 10)

    assert (held(cache), held(cache, K2)) == (at(10), at(10, K2))
    assert (cache.changed(K1), cache.changed(K2)) == (8, 10)


def test_what_is_superseded_is_let_go_and_nothing_older_is_taken(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(5), now())

    cache.supersede(K1, 8)

    assert (held(cache), len(cache)) == (None, 0)
    cache.put(at(7), now())
    assert held(cache) is None
    cache.put(at(8), now())
    assert held(cache) == at(8)


def test_a_change_of_what_is_not_held_brings_nothing_in(cache: LocalCache) -> None:
    cache.observe(at(8))

    assert held(cache) is None
    assert cache.changed(K1) == 8


def test_nothing_older_than_a_known_change_is_taken(cache: LocalCache, now: ManualClock) -> None:
    cache.observe(at(8))

    cache.put(at(7), now())
    assert held(cache) is None
    cache.put(at(8), now())
    assert held(cache) == at(8)


def test_changes_that_come_late_or_twice_change_nothing(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(5), now())
    cache.observe(at(8))
    cache.observe(at(6))
    cache.observe(at(8))

    assert held(cache) == at(8)
    assert cache.changed(K1) == 8


def test_what_is_as_new_as_the_feed_is_tracked_and_what_is_older_is_not(cache: LocalCache, now: ManualClock) -> None:
    cache.start_over(10)
    cache.put(at(10), now())
    cache.put(at(9, K2), now())

    assert tracked(cache, K1)
    assert not tracked(cache, K2)


def test_what_came_since_the_feed_began_is_tracked_because_every_change_since_is_known(
    cache: LocalCache, now: ManualClock
) -> None:
    cache.start_over(10)
    cache.observe(at(11, K2))
    cache.advance(12)

    cache.put(at(10), now())
    cache.put(at(10, K2), now())

    assert tracked(cache, K1)
    assert held(cache, K2) is None


def test_what_may_have_changed_unknown_to_a_full_memory_is_not_tracked(now: ManualClock) -> None:
    cache = LocalCache(size=2, ttl=TTL, negative_ttl=TTL, now=now)
    cache.start_over(10)
    for number in range(11, 16):  # twice the size, for routes and families, and one more makes the first forgotten
        cache.observe(at(number, RouteKey("a", "b", "c", f"v{number}")))
    cache.advance(15)

    cache.put(at(10, RouteKey("a", "b", "c", "v11")), now())
    cache.put(at(11), now())

    assert not tracked(cache, RouteKey("a", "b", "c", "v11"))
    assert tracked(cache, K1)


def test_while_the_feed_confirms_it_what_it_tracks_is_held_and_a_lost_feed_leaves_the_time_to_live(
    cache: LocalCache, now: ManualClock
) -> None:
    cache.start_over(5)
    cache.put(at(5), now())
    for _ in range(10):
        now.advance(TTL / 2)
        cache.confirm(now())
        assert held(cache) == at(5)

    now.advance(TTL * (1 - JITTER) - 0.001)
    assert held(cache) == at(5)
    now.advance(TTL * JITTER + 0.001)
    assert held(cache) is None


def test_what_the_feed_does_not_track_it_does_not_confirm(cache: LocalCache, now: ManualClock) -> None:
    cache.start_over(10)
    cache.put(at(9), now())
    now.advance(TTL)
    cache.confirm(now())

    assert held(cache) is None


def test_what_the_feed_tracks_is_known_as_of_where_the_feed_is(cache: LocalCache, now: ManualClock) -> None:
    cache.start_over(5)
    cache.put(at(5), now())
    cache.put(at(4, K2), now())
    cache.advance(8)

    assert cache.look(K1, 7) == (replace(at(5), as_of=8), 0)
    assert cache.look(K1, 9) is None
    assert cache.look(K2, 4) == (at(4, K2), 0)
    assert cache.look(K2, 5) is None


def test_the_age_counts_from_the_last_moment_at_which_it_was_known_to_be_true(
    cache: LocalCache, now: ManualClock
) -> None:
    cache.start_over(5)
    cache.put(at(5), now())
    now.advance(2)
    assert age(cache) == 2

    cache.confirm(now() - 0.5)

    assert age(cache) == 0.5


def test_nothing_confirmed_before_it_started_over_counts(cache: LocalCache, now: ManualClock) -> None:
    cache.confirm(now() + TTL)
    cache.start_over(5)
    cache.put(at(5), now())
    now.advance(TTL)

    assert held(cache) is None


def test_the_feed_never_goes_back_until_it_starts_over(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(5), now())
    cache.advance(10)
    cache.advance(9)
    assert cache.fed == 10

    cache.start_over(3)

    assert cache.fed == 3
    assert held(cache) is None
    assert cache.changed(K1) == 0


def test_without_a_revision_an_entry_says_the_one_that_it_was_read_as_of(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(0), now())
    cache.advance(8)

    hit = cache.find(key_to_bytes(K1))

    assert hit
    assert hit[2] == 0
    assert cache.look(K1) == (at(0), 0)


def test_an_entry_that_is_as_new_as_is_asked_for_says_its_own_revision(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(5), now())
    cache.advance(8)

    assert cache.look(K1, 5) == (at(5), 0)
    assert cache.look(K1, 6) == (replace(at(5), as_of=8), 0)


def test_an_entry_expires_at_its_time_to_live_and_not_after_it(cache: LocalCache, now: ManualClock) -> None:
    cache.put(at(5), now())
    begun, lifetime = now(), cache._ttl_of(key_to_bytes(K1), 0)
    now.advance(begun + lifetime - now() - 0.001)
    assert held(cache)

    now.advance(0.001)
    if now() - begun < lifetime:
        now.advance(lifetime - (now() - begun))
    assert held(cache) is None


def test_an_entry_that_is_too_old_for_a_revision_is_found_with_its_own(cache: LocalCache, now: ManualClock) -> None:
    """So one lookup tells a stale entry from a miss."""
    cache.put(at(5), now())

    hit = cache.find(key_to_bytes(K1), 9)

    assert hit
    assert hit[2] == 5
    assert cache.look(K1, 9) is None


@pytest.mark.parametrize("fed", [0, 50])
def test_a_hit_says_whether_the_route_is_active_inactive_or_absent(
    cache: LocalCache, now: ManualClock, fed: int
) -> None:
    cache.start_over(fed)
    route = at(5).route
    assert route
    for held_route, state in ((route, ACTIVE), (replace(route, active=False), INACTIVE), (None, ABSENT)):
        cache.drop()
        cache.put(Snapshot(K1, held_route, 5), now())
        hit = cache.find(key_to_bytes(K1))
        assert hit
        assert hit[1] == state


def test_a_hit_says_whether_there_is_a_family(cache: LocalCache, now: ManualClock) -> None:
    key, route = K1.family_key, at(5).route
    assert route
    for family, state in ((Family(key, None, (route,)), FAMILY), (None, NO_FAMILY)):
        cache.drop()
        cache.put(Snapshot(key, family, 5), now())
        hit = cache.find(key_to_bytes(key))
        assert hit
        assert hit[1] == state
        assert held(cache, key) == Snapshot(key, family, 5)


def test_a_family_that_is_encoded_already_is_held_as_another(cache: LocalCache, now: ManualClock) -> None:
    key, route = K1.family_key, at(5).route
    assert route
    snapshot = Snapshot(key, Family(key, None, (route,)), 5)
    cache.put(snapshot, now())
    encoded = cache.find(key_to_bytes(key))
    cache.drop()
    assert snapshot.value
    cache.put(snapshot, now(), value_to_bytes(snapshot.value))
    assert cache.find(key_to_bytes(key)) == encoded


def test_an_older_change_that_is_heard_of_late_does_not_replace_the_known_one(cache: LocalCache) -> None:
    cache.supersede(K1, 9)
    cache.supersede(K1, 5)
    assert cache.changed(K1) == 9


def test_a_new_cache_was_fed_nothing(cache: LocalCache) -> None:
    assert cache.fed == 0


def test_a_key_that_is_cached_again_keeps_its_place(now: ManualClock) -> None:
    cache = LocalCache(size=2, ttl=TTL, negative_ttl=NEGATIVE_TTL, now=now)
    cache.put(at(1, K2), now())
    for revision in (1, 2, 3):
        cache.put(at(revision), now())
    assert (held(cache, K2), held(cache)) == (at(1, K2), at(3))
