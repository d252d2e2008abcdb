"""Families are made ready once for each record, in bounded memory."""

from dataclasses import replace

import pytest

from pointsman.selection import Choice, Rule
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.selection_pb2 import Choice as ChoiceMessage
from pointsman_server.domain.codec import key_to_bytes, route_to_message, value_to_bytes
from pointsman_server.domain.routes import Family, RouteKey, Snapshot
from pointsman_server.reads.cache_entry import CacheHit
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.selection import select
from pointsman_server.rpc.fastpath import families
from pointsman_server.rpc.fastpath.families import ReadyFamilies
from pointsman_server.rpc.selections import OUTCOMES, choice_message
from tests.support.fakes import ManualClock, MemoryStore

FAMILY = RouteKey("team-a", "payments", "prod", "")
KEY = key_to_bytes(FAMILY)


async def snapshot(*active: str, family: RouteKey = FAMILY) -> Snapshot:
    """Divide three versions."""
    store = MemoryStore()
    for version in ("v1", "v2", "v3"):
        store.put(family._replace(version=version), active=version in active)
    store.divide(family, ("v1", 3000), ("v2", 5000), ("v3", 2000), fallbacks=["v3"])
    (found,) = await store.load([family])
    return found


class Held:
    """A local cache with room for many."""

    def __init__(self) -> None:
        self.now = ManualClock()
        self.local = LocalCache(size=1000, ttl=10, negative_ttl=10, now=self.now)

    def hit(self, found: Snapshot) -> CacheHit:
        value = value_to_bytes(found.value) if found.value else b""
        self.local.put(found, self.now(), value)
        hit = self.local.find(key_to_bytes(found.key))
        assert hit
        return hit


@pytest.mark.parametrize("active", [("v1", "v2", "v3"), ("v1", "v2"), ("v3",)])
async def test_a_choice_is_what_select_chooses_encoded(active: tuple[str, ...]) -> None:
    found = await snapshot(*active)
    ready = ReadyFamilies().of(KEY, Held().hit(found))
    assert found.family.traffic
    for number in range(100):
        route, choice = select(found, f"user-{number}")
        chosen = ready.choose(b"user-%d" % number)
        assert chosen
        message = choice_message(choice, found.family.traffic.revision)
        response = pb.SelectResponse(route=route_to_message(route), choice=message)
        result = pb.BatchSelectResponse.Result(route=route_to_message(route), choice=message)
        assert chosen.route + chosen.choice == response.SerializeToString()
        assert chosen.route + chosen.result_choice == result.SerializeToString()
        assert chosen.key == key_to_bytes(route.key)
        assert OUTCOMES[chosen.outcome] == choice.rule.name.lower()


async def test_nothing_is_chosen_where_nothing_is_active() -> None:
    assert ReadyFamilies().of(KEY, Held().hit(await snapshot())).choose(b"user-1") is None


async def test_without_traffic_the_only_version_is_chosen() -> None:
    found = await snapshot("v2")
    found = replace(found, value=Family(FAMILY, None, found.family.routes))
    chosen = ReadyFamilies().of(KEY, Held().hit(found)).choose(b"")
    assert chosen
    assert pb.SelectResponse.FromString(chosen.choice).choice == ChoiceMessage(
        rule=ChoiceMessage.RULE_ONLY_ACTIVE, version="v2"
    )


async def test_a_family_is_ready_for_as_long_as_the_record_is_the_same_object() -> None:
    held, table = Held(), ReadyFamilies()
    found = await snapshot("v1")
    first = table.of(KEY, held.hit(found))
    assert table.of(KEY, held.local.find(KEY)) is first  # type: ignore[arg-type]
    held.local.drop()
    assert table.of(KEY, held.hit(found)) is not first
    assert len(table._known) == 1


async def test_choices_that_passed_inactive_versions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "MOST_PASSED", 1)
    encoder = families._Encoder((await snapshot("v2")).family)
    passed = [Choice("v2", Rule.SPLIT, versions) for versions in (("v1",), ("v3",), ("v1", "v3"))]
    assert len({encoder.encode(choice) for choice in passed}) == 3
    assert len(encoder._passed) == 1
    assert encoder.encode(passed[-1]) is encoder.encode(passed[-1])


async def test_families_are_bounded_by_number_and_by_bytes() -> None:
    held = Held()
    keys = [FAMILY._replace(service=f"s{number}") for number in range(10)]
    hits = {key: held.hit(await snapshot("v1", family=key)) for key in keys}
    record = len(hits[keys[0]][0])

    few = ReadyFamilies(most=4)
    for key, hit in hits.items():
        few.of(key_to_bytes(key), hit)
    assert list(few._known) == [key_to_bytes(key) for key in keys[-4:]]

    small = ReadyFamilies(most_bytes=3 * record)
    for _ in range(2):
        for key, hit in hits.items():
            small.of(key_to_bytes(key), hit)
            assert small._bytes == len(small._known) * record <= 3 * record
    # One that is larger than all together is still served.
    assert len(ReadyFamilies(most_bytes=1).of(KEY, hits[keys[0]]).record) == record
