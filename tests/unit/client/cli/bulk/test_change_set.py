"""bulk.change_set: which mutations remove a difference, in which order, and which of them are made together."""

from datetime import UTC, datetime

import pytest

from pointsman.change_sets import Activate, Create, Deactivate, Delete, DeleteTraffic, Mutation, SetTraffic, Update
from pointsman.cli.bulk import change_set
from pointsman.cli.bulk.change_set import change_sets
from pointsman.cli.bulk.difference import AnyDifference, Difference, TrafficDifference, Wanted
from pointsman.cli.files.traffic_entries import TrafficEntry
from pointsman.keys import FamilyKey, RouteKey
from pointsman.results import Route, Target, Traffic

TIME = datetime(2026, 1, 1, tzinfo=UTC)
URL, OTHER = "https://x.internal", "https://y.internal"
FAMILY = FamilyKey.parse("a/b/c")


def key(text: str) -> RouteKey:
    return RouteKey.parse(text)


def there(text: str, active: bool = True, revision: int = 7) -> Route:
    return Route(key(text), URL, active, {"tier": "gold"}, revision, TIME, TIME)


def new(text: str) -> Difference:
    return Difference(key(text), None, Wanted(URL, True, {}), 1)


def changed(before: Route, url: str = URL, active: bool | None = None, labels: object = None) -> Difference:
    wanted = Wanted(url, before.active if active is None else active, before.labels if labels is None else {})
    return Difference(before.key, before, wanted, 1)


def gone(text: str) -> Difference:
    return Difference(key(text), there(text), None)


def divided(before: int, **weights: int) -> TrafficDifference:
    traffic = Traffic(FAMILY, (Target("v1", 10_000),), (), (), before, TIME, TIME) if before else None
    after = TrafficEntry(3, FAMILY, weights, ("v0",)) if weights else None
    return TrafficDifference(FAMILY, traffic, after)


def mutations(*found: AnyDifference) -> list[Mutation]:
    (steps,) = change_sets(found)
    return [step.mutation for step in steps]


def test_nothing_is_no_change_set() -> None:
    assert change_sets([]) == []


def test_what_is_new_is_created_as_a_whole() -> None:
    assert mutations(new("a/b/c/v1")) == [Create(key("a/b/c/v1"), URL, {}, True)]


def test_only_what_changes_is_sent_and_only_for_the_revision_that_was_seen() -> None:
    v1 = there("a/b/c/v1")
    assert mutations(changed(v1, OTHER)) == [Update(v1.key, OTHER, None, 7)]
    assert mutations(changed(v1, labels={})) == [Update(v1.key, None, {}, 7)]
    assert mutations(changed(v1, active=False)) == [Deactivate(v1.key, 7)]
    # What the first of two did is not another's change.
    assert mutations(changed(v1, OTHER, active=False)) == [Update(v1.key, OTHER, None, 7), Deactivate(v1.key)]


def test_traffic_is_guarded_by_its_own_revision() -> None:
    assert mutations(divided(5, v1=10_000)) == [SetTraffic(FAMILY, {"v1": 10_000}, ("v0",), 5)]
    assert mutations(divided(0, v1=10_000)) == [SetTraffic(FAMILY, {"v1": 10_000}, ("v0",), 0)]
    assert mutations(divided(5)) == [DeleteTraffic(FAMILY, 5)]


def test_what_traffic_names_is_there_before_and_what_it_no_longer_names_goes_after() -> None:
    found = [
        gone("a/b/c/v0"),
        changed(there("a/b/c/v1"), active=False),
        divided(5, v2=5000, v3=5000),
        changed(there("a/b/c/v2", active=False), OTHER, active=True),
        new("a/b/c/v3"),
    ]
    assert [type(each) for each in mutations(*found)] == [Create, Update, Activate, SetTraffic, Deactivate, Delete]


class TestSeveral:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(change_set, "MOST_MUTATIONS", 4)

    def sizes(self, *found: AnyDifference) -> list[list[str]]:
        return [[str(step.mutation.key) for step in steps] for steps in change_sets(found)]

    def test_what_happens_to_a_family_stays_together(self) -> None:
        found = [new(f"a/{service}/c/v{number}") for number in (1, 2) for service in ("p", "q", "r")]
        assert self.sizes(*found) == [
            ["a/p/c/v1", "a/p/c/v2", "a/q/c/v1", "a/q/c/v2"],
            ["a/r/c/v1", "a/r/c/v2"],
        ]

    def test_a_family_that_is_too_large_is_divided_in_the_order_of_its_mutations(self) -> None:
        found = [gone("a/b/c/v0"), *(new(f"a/b/c/w{number}") for number in range(5))]
        assert self.sizes(new("a/a/c/v1"), *found) == [
            ["a/a/c/v1"],
            ["a/b/c/w0", "a/b/c/w1", "a/b/c/w2", "a/b/c/w3"],
            ["a/b/c/w4", "a/b/c/v0"],
        ]

    def test_the_size_of_a_message_divides_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(change_set, "MOST_BYTES", 300)
        assert [len(each) for each in self.sizes(*(new(f"a/b{number}/c/v1") for number in range(4)))] == [2, 2]


def test_a_change_set_of_the_largest_routes_fits_into_a_message() -> None:
    from pointsman.rpc.traffic_requests import commit

    labels = {f"{number:063}": "\U0001f98a" * 256 for number in range(64)}
    found = [Difference(key(f"a/b/c/v{n}"), None, Wanted("https://x/" + "x" * 2038, True, labels)) for n in range(30)]
    sets = change_sets(found)
    assert len(sets) > 1
    sizes = [commit([step.mutation for step in steps], False, "", "r" * 1024).ByteSize() for steps in sets]
    assert max(sizes) < 1 << 20


def test_small_ones_are_as_many_as_a_server_takes() -> None:
    assert [len(each) for each in change_sets([new(f"a/b{number}/c/v1") for number in range(2500)])] == [
        1000,
        1000,
        500,
    ]
