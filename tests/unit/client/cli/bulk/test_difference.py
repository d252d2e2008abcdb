"""bulk.difference: how what is there differs from what a file says."""

from datetime import UTC, datetime

from pointsman.cli.bulk.difference import differences, traffic_differences
from pointsman.cli.files.entries import Entry
from pointsman.cli.files.traffic_entries import TrafficEntry
from pointsman.keys import FamilyKey, RouteKey
from pointsman.results import Route, Target, Traffic

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def entry(key: str, url: str = "https://x", active: bool | None = None, labels: dict[str, str] | None = None) -> Entry:
    return Entry(1, RouteKey.parse(key), url, active, labels)


def route(key: str, url: str = "https://x", active: bool = True, revision: int = 1) -> Route:
    return Route(RouteKey.parse(key), url, active, {"tier": "gold"}, revision, TIME, TIME)


def diff(entries: list[Entry], routes: list[Route], *, prune: bool = False) -> list[str]:
    return [str(each) for each in differences(entries, {route.key: route for route in routes}, prune=prune)]


def test_reads_like_a_diff() -> None:
    entries = [entry("a/b/c/v1"), entry("a/b/c/v2", "https://y", labels={}), entry("a/b/c/v3")]
    assert diff(entries, [route("a/b/c/v2"), route("a/b/c/v3"), route("a/b/c/v4")], prune=True) == [
        "+ a/b/c/v1 https://x active",
        "~ a/b/c/v2 url: https://x → https://y; labels: tier=gold → (none)",
        "- a/b/c/v4 https://x active tier=gold",
    ]


def test_what_an_entry_leaves_out_stays_as_it_is() -> None:
    assert diff([entry("a/b/c/v1")], [route("a/b/c/v1", active=False)]) == []
    assert diff([entry("a/b/c/v1", active=True)], [route("a/b/c/v1", active=False)]) == ["~ a/b/c/v1 inactive → active"]


def test_without_prune_nothing_is_deleted() -> None:
    assert diff([], [route("a/b/c/v1")]) == []


class TestTraffic:
    def entry(self, key: str, fallbacks: tuple[str, ...] = (), **weights: int) -> TrafficEntry:
        return TrafficEntry(7, FamilyKey.parse(key), weights, fallbacks)

    def traffic(self, key: str, fallbacks: tuple[str, ...] = (), **weights: int) -> Traffic:
        targets = tuple(Target(version, weight) for version, weight in weights.items())
        return Traffic(FamilyKey.parse(key), targets, fallbacks, (), 3, TIME, TIME)

    def diff(
        self,
        entries: list[TrafficEntry] | None,
        traffic: list[Traffic],
        *,
        routes: tuple[Entry, ...] = (),
        prune: bool = False,
    ) -> list[str]:
        found = traffic_differences(entries, routes, {each.key: each for each in traffic}, prune=prune)
        return [str(each) for each in found]

    def test_reads_like_a_diff(self) -> None:
        wanted = [self.entry("a/b/c", ("v0",), v1=9000, v2=1000), self.entry("a/b/d", v1=10_000)]
        assert self.diff(wanted, [self.traffic("a/b/c", v1=10_000), self.traffic("z/b/c", v1=10_000)], prune=True) == [
            "~ a/b/c traffic: v1=100% → v1=90% v2=10%; fallback v0",
            "+ a/b/d traffic: v1=100%",
            "- z/b/c traffic: v1=100% → (not set)",
        ]

    def test_the_order_of_targets_is_no_difference_and_that_of_fallbacks_is(self) -> None:
        there = self.traffic("a/b/c", ("x", "y"), v1=9000, v2=1000)
        assert self.diff([self.entry("a/b/c", ("x", "y"), v2=1000, v1=9000)], [there]) == []
        assert len(self.diff([self.entry("a/b/c", ("y", "x"), v1=9000, v2=1000)], [there])) == 1

    def test_a_version_without_calls_is_a_difference(self) -> None:
        assert len(self.diff([self.entry("a/b/c", v1=10_000, v2=0)], [self.traffic("a/b/c", v1=10_000)])) == 1

    def test_a_file_without_traffic_prunes_only_where_it_has_no_route_left(self) -> None:
        there = [self.traffic("a/b/c", v1=10_000), self.traffic("a/b/d", v1=10_000)]
        assert self.diff(None, there, routes=(entry("a/b/c/v1"),), prune=True) == [
            "- a/b/d traffic: v1=100% → (not set)"
        ]
        assert len(self.diff([], there, routes=(entry("a/b/c/v1"),), prune=True)) == 2
        assert self.diff([], there) == []
