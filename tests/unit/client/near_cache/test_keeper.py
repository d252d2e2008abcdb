from pathlib import Path
from typing import Any

import pytest

from pointsman.near_cache.disk.snapshot import DiskSnapshot
from pointsman.near_cache.keeper import DISK_SECONDS, Keeper
from pointsman.near_cache.statistics.counts import Counts, ReadCounts
from pointsman.near_cache.table.table import Table
from pointsman.near_cache.table.view import View
from pointsman.near_cache.watch.protocol import Position
from tests.support.waiting import eventually


class Follower:
    def __init__(self) -> None:
        self.checks = 0

    def check_silence(self) -> None:
        self.checks += 1


class Rig:
    def __init__(self, path: Path) -> None:
        self.now = 100.0
        self.follower: Any = Follower()
        self.service: Any = None
        self.path = path
        self.counts = Counts()
        self.view = view = View()
        self.table = Table([view], 30.0, lambda _: None, clock=lambda: self.now)
        self.table.replace(view, Position("e", 5), [])
        self.keeper = Keeper(
            [self.follower], self.table, DiskSnapshot(path), ReadCounts(), self.counts, clock=lambda: self.now
        )

    def confirm(self) -> None:
        self.table.confirm(self.view, Position("e", 5), 0.0)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "routes")


def test_silence_is_looked_for_and_the_disk_written_at_intervals(rig: Rig) -> None:
    rig.confirm()
    for _ in range(3):
        rig.keeper.beat(rig.service)
    assert (rig.follower.checks, rig.counts.values()["disk_writes"]) == (3, 1)
    rig.now += DISK_SECONDS
    rig.keeper.beat(rig.service)
    assert rig.counts.values()["disk_writes"] == 2
    assert rig.path.exists()


def test_what_no_server_has_confirmed_is_not_written(rig: Rig) -> None:
    rig.keeper.beat(rig.service)
    assert not rig.path.exists()


def test_who_does_not_have_the_lock_does_not_write(rig: Rig) -> None:
    other = DiskSnapshot(rig.path)
    assert other.acquire()
    rig.confirm()
    rig.keeper.write_disk()
    assert not rig.path.exists()
    other.release()
    rig.keeper.write_disk()
    assert rig.path.exists()


def test_a_failure_is_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.confirm()
    monkeypatch.setattr(DiskSnapshot, "write", lambda *_: False)
    rig.keeper.write_disk()
    assert rig.counts.values()["disk_failures"] == 1


def test_a_bug_does_not_end_the_thread(rig: Rig) -> None:
    def fail() -> None:
        rig.follower.checks += 1
        raise RuntimeError("a bug")

    rig.follower.checks = 0
    rig.follower.check_silence = fail
    rig.keeper.start(rig.service)
    assert eventually(lambda: rig.follower.checks >= 2)
    rig.keeper.stop()
    rig.keeper.join(5)
    assert not rig.keeper._thread.is_alive()  # type: ignore[union-attr]
