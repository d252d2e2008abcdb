import os

from pointsman.near_cache import forks


class Recorder:
    """Writes what is called to a pipe."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def before_fork(self) -> None:
        os.write(self.pipe, b"before ")

    def after_fork_in_parent(self) -> None:
        os.write(self.pipe, b"parent ")

    def after_fork_in_child(self) -> None:
        os.write(self.pipe, b"child ")


def test_each_side_is_called_as_long_as_it_exists(monkeypatch) -> None:  # type: ignore[no-untyped-def]
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
