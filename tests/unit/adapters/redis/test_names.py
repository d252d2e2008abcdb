from collections import Counter

from redis.crc import key_slot

from pointsman_server.adapters.redis.names import PARTS, KeyNames, slot_of, spread_tags
from pointsman_server.domain.routes import RouteKey

KEYS = [RouteKey("team-a", f"s{number}", "prod", "v1") for number in range(3000)]


def test_without_a_cluster_names_are_as_they_were() -> None:
    names = KeyNames("pointsman")
    assert names.of("quota") == "pointsman:quota"
    assert names.heads == ["pointsman:"]
    assert names.head_of(KEYS[0]) == "pointsman:"
    ((head, positions),) = names.split(KEYS)
    assert (head, list(positions)) == ("pointsman:", list(range(len(KEYS))))


def test_in_a_cluster_a_part_is_one_slot() -> None:
    names = KeyNames("pointsman", clustered=True)
    assert names.of("quota") == "pointsman:{quota}"
    assert slot_of(names.of("quota") + ":a:b") == slot_of("quota")
    for head, positions in names.split(KEYS):
        assert {names.head_of(KEYS[position]) for position in positions} == {head}
        assert {slot_of(f"{head}{KEYS[position]}") for position in positions} == {slot_of(f"{head}clock")}


def test_every_key_is_in_one_part_and_parts_are_about_as_large() -> None:
    parts = KeyNames("pointsman", clustered=True).split(KEYS)
    assert sorted(position for _, positions in parts for position in positions) == list(range(len(KEYS)))
    assert len(parts) == PARTS
    assert max(len(positions) for _, positions in parts) < 3 * len(KEYS) / PARTS


def test_the_part_of_a_key_is_the_same_in_every_process() -> None:
    # Changing it is another layout: servers of two versions side by side would not see each other's writes.
    names = KeyNames("pointsman", clustered=True)
    assert [names.heads.index(names.head_of(key)) for key in KEYS[:6]] == [25, 26, 31, 28, 21, 22]
    assert spread_tags(PARTS)[:4] == ["10", "18", "113", "342"]


def test_tags_are_spread_evenly_over_the_slots() -> None:
    slots = [slot_of(tag) for tag in spread_tags(PARTS)]
    assert Counter(slot * PARTS // 16384 for slot in slots) == dict.fromkeys(range(PARTS), 1)


def test_a_slot_is_that_of_redis() -> None:
    assert slot_of("a{b}c") == key_slot(b"b")
