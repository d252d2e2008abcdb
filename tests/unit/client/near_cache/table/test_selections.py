"""What is chosen from the table: the published vectors, and what a result says."""

import json
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from pointsman.near_cache.table.entries import CachedResolution
from pointsman.near_cache.table.selections import FamilyEntry
from pointsman.near_cache.table.view import View
from pointsman.results import Source
from pointsman.selection import Choice, Rule
from pointsman.v1.traffic_pb2 import Traffic, TrafficSlice
from tests.support import selection_vectors
from tests.support.watch_events import Division, route, traffic

FAMILY = "team-a/payments/prod"
VECTORS = json.loads(selection_vectors.FILE.read_text("utf-8"))


def live(version: str, revision: int = 3) -> CachedResolution:
    rest = route(f"{FAMILY}/{version}", revision)
    return CachedResolution(
        View(), f"{FAMILY}/{version}", f"https://{version}.internal", revision, rest.SerializeToString()
    )


def entry_of(division: Division | None, *active: str) -> FamilyEntry:
    return FamilyEntry(
        View(),
        FAMILY,
        traffic(FAMILY, 7, division) if division else None,
        {version: live(version) for version in active},
    )


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vector(case: dict[str, Any]) -> None:
    message = ParseDict(case["traffic"], Traffic()) if case["traffic"] else None
    active = {version: live(version) for version in case["active"]}
    entry = FamilyEntry(View(), case["family"], message, active)
    for each in case["selections"]:
        found = entry.choose(each["sticky_key"].encode())
        if "error" in each:
            assert found is None
            continue
        assert found is not None
        assert found.choice == Choice(each["version"], Rule[each["rule"]], tuple(each["inactive_versions"]))
        assert (found.url, found.version) == (active[each["version"]].url, each["version"])


def test_a_result_is_the_route_and_why_it_was_chosen() -> None:
    entry = entry_of(Division((("v1", 5_000), ("v2", 5_000))), "v1", "v2")
    found = entry.choose(b"user-1")
    assert found is not None
    route_ = live(found.version)
    assert (found.route, found.source, found.traffic_revision) == (route_.route, Source.NEAR_CACHE, 7)
    assert found.choice == Choice(found.version, Rule.SPLIT)
    assert repr(found) == f"CachedSelection({FAMILY}/{found.version} → {route_.url}, by split, revision 3)"


def test_results_are_shared() -> None:
    entry = entry_of(Division((("v1", 5_000), ("v2", 5_000))), "v1", "v2")
    results = [entry.choose(b"user-%d" % number) for number in range(100)]
    assert len(set(map(id, results))) == 2


def test_one_that_passes_over_a_version_is_of_the_same_family() -> None:
    entry = entry_of(Division((("v1", 5_000), ("v2", 5_000))), "v1")
    results = [entry.choose(b"user-%d" % number) for number in range(20)]
    assert {each.choice.inactive_versions for each in results if each} == {(), ("v2",)}
    entry.supersede((1.0, 9, "epoch-1"))
    assert {(each.as_of_revision, each.epoch, each.live) for each in results if each} == {(9, "epoch-1", False)}


@pytest.mark.parametrize(
    ("division", "active", "named"),
    [
        (None, ["v1", "v2"], ["v1", "v2"]),
        (None, [], []),
        (Division((("v1", 10_000), ("v2", 0)), ("v3", "v1")), [], ["v1", "v2", "v3"]),
    ],
)
def test_where_nothing_can_be_chosen_it_names_versions(division: Any, active: list[str], named: list[str]) -> None:
    entry = entry_of(division, *active)
    assert entry.choose(b"user-1") is None
    assert entry.named == named


@pytest.mark.parametrize("weights", [(), (("v1", 9_999),), (("v1", 10_001),)])
def test_traffic_must_divide_all_points(weights: Any) -> None:
    with pytest.raises(ValueError, match="does not divide"):
        entry_of(Division(weights), "v1")
    with pytest.raises(ValueError, match="does not divide"):
        FamilyEntry(
            View(), FAMILY, Traffic(slices=[TrafficSlice(version="v1", size=size) for size in (10_001, -1)]), {}
        )
