"""CLOCK: a bounded number of places, and a hand that evicts a key that was not used since its last round."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.reads.clock_eviction import ClockEviction


def filled(*keys: bytes) -> ClockEviction:
    places = ClockEviction(len(keys))
    for key in keys:
        places.take(key)
    return places


def test_no_key_is_evicted_while_there_are_places() -> None:
    places = ClockEviction(2)
    assert places.take(b"a") == (0, b"")
    assert places.take(b"b") == (1, b"")
    assert places.keys == [b"a", b"b"]


def test_unused_keys_are_evicted_in_the_order_of_their_places() -> None:
    places = filled(b"a", b"b", b"c")
    assert [places.take(key) for key in (b"d", b"e", b"f", b"g")] == [(0, b"a"), (1, b"b"), (2, b"c"), (0, b"d")]


def test_a_used_key_is_evicted_one_round_later() -> None:
    places = filled(b"a", b"b", b"c")
    places.used[0] = 1
    assert places.take(b"d") == (1, b"b")
    assert places.take(b"e") == (2, b"c")
    assert places.take(b"f") == (0, b"a")


def test_when_all_keys_were_used_the_hand_goes_round_once() -> None:
    places = filled(b"a", b"b", b"c")
    places.take(b"d")
    places.used[:] = b"\1\1\1"
    assert places.take(b"e") == (1, b"b")
    assert bytes(places.used) == b"\0\0\0"


def test_a_free_place_is_taken_first() -> None:
    places = filled(b"a", b"b", b"c")
    places.used[1] = 1
    places.free(1)
    assert places.take(b"d") == (1, b"")
    assert places.used[1] == 0


def test_clear_frees_every_place() -> None:
    places = filled(b"a", b"b")
    places.free(0)
    places.clear()
    assert places.take(b"c") == (0, b"")
    assert (places.keys, bytes(places.used)) == ([b"c"], b"\0")


@settings(deadline=None)
@given(st.integers(1, 6), st.lists(st.tuples(st.sampled_from(["take", "use", "free"]), st.integers(0, 5)), max_size=60))
def test_every_key_has_one_place_until_it_is_evicted_or_freed(size: int, steps: list[tuple[str, int]]) -> None:
    places, known = ClockEviction(size), dict[bytes, int]()
    for number, (step, which) in enumerate(steps):
        if step == "take":
            key = str(number).encode()
            place, evicted = places.take(key)
            assert bool(evicted) == (len(known) == size)
            assert known.pop(evicted, place) == place
            known[key] = place
        elif known:
            key = list(known)[which % len(known)]
            if step == "use":
                places.used[known[key]] = 1
            else:
                places.free(known.pop(key))
        assert {key: places.keys[place] for key, place in known.items()} == {key: key for key in known}
        assert len(places.keys) == len(places.used) <= size


def test_after_clear_the_hand_begins_at_the_first_place() -> None:
    places = filled(b"a", b"b", b"c")
    places.take(b"d")
    places.clear()
    for key in (b"e", b"f", b"g"):
        places.take(key)
    assert places.take(b"h") == (0, b"e")


def test_keys_that_the_hand_did_not_pass_stay_used() -> None:
    places = filled(b"a", b"b", b"c")
    places.used[:] = b"\0\1\1"
    assert places.take(b"d") == (0, b"a")
    assert bytes(places.used) == b"\0\1\1"
