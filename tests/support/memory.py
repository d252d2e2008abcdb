"""Resident memory of a process, now and at its peak. Linux only."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MEGABYTE = 1 << 20


def resident(pid: int | str = "self", *, worst: bool = False) -> int:
    """Return the resident memory of a process in bytes; with ``worst`` the peak since the last ``forget_worst``."""
    name = "VmHWM" if worst else "VmRSS"
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def forget_worst(pid: int | str = "self") -> None:
    """Reset the peak (proc(5): 5 to clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextmanager
def growing() -> Iterator[Callable[[], int]]:
    """Give a function that returns the peak growth of this process since the block began, in bytes."""
    forget_worst()
    before = resident()
    yield lambda: resident(worst=True) - before
