import os
from pathlib import Path

import pytest

from pointsman.near_cache.disk import snapshot as module
from pointsman.near_cache.disk.snapshot import DiskSnapshot, load
from pointsman.near_cache.table.entries import CachedResolution, InactiveRoute, entry_of
from pointsman.near_cache.table.selections import Entry
from pointsman.near_cache.table.table import Table
from pointsman.near_cache.table.view import Filter, View
from pointsman.near_cache.watch.protocol import Position
from tests.support.watch_events import EPOCH, Division, change, route, traffic, traffic_change

KEY, OTHER = "team-a/payments/prod/v1", "team-b/payments/prod/v2"
FAMILY = "team-a/payments/prod"
ALL_TO_V1 = Division((("v1", 10_000),))
FILTERS = (Filter("team-a"), Filter("team-b"))


class Memory:
    """A table, and what its clocks say: ``wall`` of the day, ``now`` of the process."""

    def __init__(self, *filters: Filter, now: float = 100.0) -> None:
        self.now = now
        self.wall = 1_700_000_000.0
        self.views = [View(each) for each in filters]
        self.routes: dict[str, Entry] = {}
        self.table = Table(self.views, 30.0, self.use, clock=lambda: self.now)

    def use(self, routes: dict[str, Entry]) -> None:
        self.routes = routes

    def fill(self) -> None:
        first = [entry_of(self.views[0], route(KEY, 4))]
        self.table.replace(self.views[0], Position(EPOCH, 5), first, [traffic(FAMILY, 5, ALL_TO_V1)])
        second = [entry_of(self.views[1], route(OTHER, 3, active=False))]
        self.table.replace(self.views[1], Position(EPOCH, 6), second)
        for view in self.views:
            self.table.confirm(view, Position(EPOCH, view.revision), 0.0)

    def disk(self, path: Path) -> DiskSnapshot:
        return DiskSnapshot(path, now=lambda: self.wall)

    def save(self, disk: DiskSnapshot) -> bool:
        return disk.write(self.table, lambda: self.now)

    def load(self, path: Path) -> DiskSnapshot:
        disk = self.disk(path)
        stored = disk.read()
        if stored:
            load(stored, self.table, self.wall, self.now)
        return disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "routes"


@pytest.fixture
def full() -> Memory:
    memory = Memory(*FILTERS)
    memory.fill()
    return memory


def test_what_was_written_is_there_again_with_its_age(full: Memory, path: Path) -> None:
    full.now += 3
    assert full.save(full.disk(path))
    again = Memory(*FILTERS, now=5.0)
    again.wall = full.wall + 60
    again.load(path)
    assert [view.position for view in again.views] == [Position(EPOCH, 5), Position(EPOCH, 6)]
    assert [again.now - view.confirmed_at for view in again.views] == [63.0, 63.0]
    found, inactive = again.routes[KEY], again.routes[OTHER]
    assert isinstance(found, CachedResolution)
    assert found.route == full.routes[KEY].route  # type: ignore[union-attr]
    assert isinstance(inactive, InactiveRoute)
    assert not again.views[0].live


def test_traffic_is_there_again_where_it_was_known(full: Memory, path: Path) -> None:
    disk = full.disk(path)
    assert full.save(disk)
    again = Memory(*FILTERS)
    again.load(path)
    assert [view.has_traffic for view in again.views] == [True, False]
    entry = again.table.family(again.views[0], FAMILY)
    assert entry is not None
    assert (entry.traffic_revision, entry.choose(b"user-1").url) == (5, full.routes[KEY].url)  # type: ignore[union-attr]
    full.table.apply(full.views[0], Position(EPOCH, 7), [traffic_change(FAMILY, 7, None)])
    assert full.save(disk)
    third = Memory(*FILTERS)
    third.load(path)
    assert third.views[0].has_traffic
    assert third.table.family(third.views[0], FAMILY).traffic_revision == 0  # type: ignore[union-attr]


def test_that_traffic_was_lost_is_written(full: Memory, path: Path) -> None:
    disk = full.disk(path)
    full.save(disk)
    full.table.drop_traffic(full.views[0])
    full.save(disk)
    again = Memory(*FILTERS)
    again.load(path)
    assert not again.views[0].has_traffic


def test_a_clock_that_was_set_back_makes_nothing_younger_than_now(full: Memory, path: Path) -> None:
    full.save(full.disk(path))
    again = Memory(*FILTERS)
    again.wall -= 3600
    again.load(path)
    assert again.views[0].confirmed_at == again.now


def test_the_age_is_written_also_when_nothing_changes(full: Memory, path: Path) -> None:
    disk = full.disk(path)
    full.save(disk)
    written = path.stat().st_mtime_ns, path.read_bytes()
    full.now += 50
    full.wall += 50
    for view in full.views:
        full.table.confirm(view, Position(EPOCH, 9), 0.0)
    assert full.save(disk)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == written
    again = Memory(*FILTERS)
    again.wall = full.wall + 1
    again.load(path)
    assert [view.revision for view in again.views] == [9, 9]
    assert again.views[0].confirmed_at == again.now - 1


def test_a_change_is_written_with_its_position(full: Memory, path: Path) -> None:
    disk = full.disk(path)
    full.save(disk)
    full.table.confirm(full.views[0], Position(EPOCH, 7), 0.0)
    full.save(disk)
    full.table.apply(full.views[0], Position(EPOCH, 8), [change(KEY, 8, None)])
    full.save(disk)
    again = Memory(*FILTERS)
    again.load(path)
    assert (again.views[0].revision, list(again.routes)) == (8, [OTHER])


def test_an_age_of_an_older_table_counts_for_nothing(full: Memory, path: Path) -> None:
    """The process ended between the two files."""
    disk = full.disk(path)
    full.save(disk)
    full.table.confirm(full.views[0], Position(EPOCH, 7), 0.0)
    full.save(disk)
    old_age = path.with_name("routes.age").read_bytes()
    full.table.apply(full.views[0], Position(EPOCH, 8), [change(KEY, 8, None)])
    full.save(disk)
    path.with_name("routes.age").write_bytes(old_age)
    again = Memory(*FILTERS)
    again.load(path)
    assert again.views[0].revision == 8


def test_views_of_other_filters_are_left_out(full: Memory, path: Path) -> None:
    full.save(full.disk(path))
    again = Memory(Filter("team-b"), Filter("team-c"))
    again.load(path)
    assert list(again.routes) == [OTHER]
    assert [view.loaded for view in again.views] == [True, False]


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_what_is_damaged_counts_as_absent_and_is_overwritten(full: Memory, path: Path, damage: bytes | None) -> None:
    full.save(full.disk(path))
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    again = Memory(*FILTERS)
    disk = again.load(path)
    assert not again.routes
    assert disk.problem.startswith("cannot be read")
    assert full.save(full.disk(path))
    assert Memory(*FILTERS).load(path).problem == ""


def test_a_damaged_age_leaves_the_age_of_the_table(full: Memory, path: Path) -> None:
    disk = full.disk(path)
    full.save(disk)
    full.table.confirm(full.views[0], Position(EPOCH, 7), 0.0)
    full.save(disk)
    age = path.with_name("routes.age")
    age.write_bytes(age.read_bytes()[:-1])
    again = Memory(*FILTERS)
    again.load(path)
    assert again.views[0].revision == 5


def test_one_writes_and_the_others_are_told(path: Path) -> None:
    first, second = DiskSnapshot(path), DiskSnapshot(path)
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    assert "another near-cache writes" in second.problem
    assert (first.writable, second.writable) == (True, False)
    first.release()
    assert second.acquire()
    assert second.problem == ""
    second.release()


def test_a_child_leaves_the_lock_with_its_parent(path: Path) -> None:
    parent = DiskSnapshot(path)
    assert parent.acquire()
    child = os.dup(parent._lock or 0)  # what a fork does: another descriptor of the same lock
    os.close(child)
    assert not DiskSnapshot(path).acquire()
    parent.release()


def test_a_write_that_fails_leaves_what_there_was(full: Memory, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = full.disk(path)
    full.save(disk)
    before = path.read_bytes()
    full.table.apply(full.views[0], Position(EPOCH, 8), [change(KEY, 8, None)])

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fsync", full_disk)
        assert not full.save(disk)
    assert disk.problem == "cannot be written: No space left on device"
    assert path.read_bytes() == before
    assert sorted(each.name for each in path.parent.iterdir()) == ["routes"]
    assert full.save(disk)
    assert disk.problem == ""


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    disk = DiskSnapshot(tmp_path / "absent" / "routes")
    assert disk.read() is None
    assert not disk.acquire()
    assert disk.problem == "cannot be locked: No such file or directory"
