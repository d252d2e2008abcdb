import os
from typing import Any

from pointsman.near_cache import forks


class Recorder:
    """Writes what is called to a pipe."""

    def __init__(self, pipe: int, fork_order: int = 0) -> None:
        self.pipe = pipe
        self.fork_order = fork_order

    def before_fork(self) -> None:
        os.write(self.pipe, b"before ")

    def after_fork_in_parent(self) -> None:
        os.write(self.pipe, b"parent ")

    def after_fork_in_child(self) -> None:
        os.write(self.pipe, b"child ")


def test_each_side_is_called_as_long_as_it_exists(monkeypatch: Any) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(forks, "_everyone", type(forks._everyone)())
    recorder = Recorder(writer)
    forks.follow_forks(recorder)
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    del recorder
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    said = os.read(reader, 1000).decode().split()
    os.close(reader)
    assert sorted(said) == sorted(["before", "parent", "child"] * 2)
    assert said[0] == "before"


def test_before_a_fork_they_are_called_in_order_and_after_it_the_other_way_round(monkeypatch: Any) -> None:
    called: list[str] = []

    class Named(Recorder):
        def before_fork(self) -> None:
            called.append(f"before {self.fork_order}")

        def after_fork_in_parent(self) -> None:
            called.append(f"after {self.fork_order}")

    monkeypatch.setattr(forks, "_everyone", type(forks._everyone)())
    everyone = [Named(0, order) for order in (2, 0, 1)]
    for each in everyone:
        forks.follow_forks(each)
    forks._before()
    forks._in_parent()
    assert called == ["before 0", "before 1", "before 2", "after 2", "after 1", "after 0"]
