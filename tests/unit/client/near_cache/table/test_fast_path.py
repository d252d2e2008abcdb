import threading
from typing import Any

import pytest

from pointsman.near_cache.table.entries import CachedResolution, InactiveRoute
from pointsman.near_cache.table.fast_path import SHORT, FastPath, fast_path
from pointsman.near_cache.table.selections import CachedSelection, Entry, FamilyEntry
from pointsman.near_cache.table.view import View
from tests.support.watch_events import Division, traffic

KEY, OTHER = "team-a/payments/prod/v1", "team-a/payments/prod/v2"
FAMILY = "team-a/payments/prod"


class Rig:
    def __init__(self) -> None:
        self.now = 10.0
        self.slow: list[Any] = []
        self.samples: list[str] = []
        self.path: FastPath[str, str] = fast_path(self.answer, self.answer_select, self.sample, clock=lambda: self.now)
        self.view = View()
        self.view.fresh_until = 20.0
        self.entry = CachedResolution(self.view, KEY, "https://one.internal", 5, b"")
        self.routes: dict[str, Entry] = {KEY: self.entry, OTHER: InactiveRoute(self.view, OTHER, "", 5, b"")}
        both = {"v1": self.entry, "v2": CachedResolution(self.view, OTHER, "https://two.internal", 5, b"")}
        self.family = FamilyEntry(self.view, FAMILY, traffic(FAMILY, 5, Division((("v1", 5_000), ("v2", 5_000)))), both)
        self.routes[FAMILY] = self.family
        self.path.use(self.routes)

    def answer(self, key: Any) -> str:
        self.slow.append(key)
        return "slow"

    def answer_select(self, family: Any, sticky_key: str) -> str:
        self.slow.append((family, sticky_key))
        return "slow"

    def sample(self, key: str) -> int:
        self.samples.append(key)
        return 10


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_fresh_route_is_returned_and_counted(rig: Rig) -> None:
    assert [rig.path.resolve(KEY) for _ in range(3)] == [rig.entry] * 3
    assert (rig.path.reads(), rig.slow) == (3, [])


@pytest.mark.parametrize("key", ["team-a/payments/prod/v3", OTHER, FAMILY, "no key"])
def test_the_rest_is_not(rig: Rig, key: str) -> None:
    assert rig.path.resolve(key) == "slow"
    assert (rig.path.reads(), rig.slow) == (0, [key])


def test_nor_is_what_is_stale(rig: Rig) -> None:
    rig.now = 20.0
    assert rig.path.resolve(KEY) == "slow"


def test_a_fresh_choice_is_returned_and_counted(rig: Rig) -> None:
    for number in range(50):
        found = rig.path.select(FAMILY, f"user-{number}")
        assert isinstance(found, CachedSelection)
        assert found is rig.family.choose(b"user-%d" % number)
    assert (rig.path.reads(), rig.slow) == (50, [])
    assert set(rig.samples) <= {KEY, OTHER}  # the route that was chosen is what was read
    assert len(rig.samples) == 5


def test_without_a_sticky_key_the_choice_is_random(rig: Rig) -> None:
    found = [rig.path.select(FAMILY) for _ in range(200)]
    assert {each.version for each in found if isinstance(each, CachedSelection)} == {"v1", "v2"}


@pytest.mark.parametrize("family", ["team-a/payments/test", KEY, OTHER, "no family"])
def test_other_selects_are_slow(rig: Rig, family: str) -> None:
    assert rig.path.select(family, "user-1") == "slow"
    assert (rig.path.reads(), rig.slow) == (0, [(family, "user-1")])


def test_so_are_stale_ones_and_those_of_long_keys(rig: Rig) -> None:
    assert rig.path.select(FAMILY, "x" * (SHORT + 1)) == "slow"
    rig.now = 20.0
    assert rig.path.select(FAMILY, "user-1") == "slow"
    assert rig.path.reads() == 0


def test_who_will_not_wait_is_answered_the_same(rig: Rig) -> None:
    assert [rig.path.fresh(KEY) for _ in range(11)] == [rig.entry] * 11
    assert [rig.path.fresh(key) for key in (OTHER, FAMILY, "no key")] == [None] * 3
    for number in range(50):
        assert rig.path.fresh_select(FAMILY, f"user-{number}") is rig.family.choose(b"user-%d" % number)
    assert [rig.path.fresh_select(key, "user-1") for key in (KEY, OTHER, "no family")] == [None] * 3
    assert rig.path.fresh_select(FAMILY, "x" * (SHORT + 1)) is None
    assert (rig.path.reads(), len(rig.samples)) == (61, 7)
    rig.now = 20.0
    assert (rig.path.fresh(KEY), rig.path.fresh_select(FAMILY, "user-1")) == (None, None)
    assert (rig.path.reads(), rig.slow) == (61, [])


def test_another_dict_is_read_from_then_on(rig: Rig) -> None:
    rig.path.use({})
    assert rig.path.resolve(KEY) == "slow"


def test_some_reads_are_sampled(rig: Rig) -> None:
    for _ in range(25):
        rig.path.resolve(KEY)
    assert rig.samples == [KEY] * 3  # the first, the eleventh and the twenty-first


def test_threads_lose_no_counts(rig: Rig) -> None:
    def read() -> None:
        for _ in range(20_000):
            rig.path.resolve(KEY)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rig.path.reads() == 80_000
