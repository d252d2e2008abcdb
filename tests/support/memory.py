"""How much memory a process takes, and took at its worst. Linux tells; nobody else does it so well."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MEGABYTE = 1 << 20


def resident(pid: int | str = "self", *, worst: bool = False) -> int:
    """Return the resident memory of a process in bytes, or the most since the last ``forget_worst``."""
    name = "VmHWM" if worst else "VmRSS"
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def forget_worst(pid: int | str = "self") -> None:
    """Start the worst anew (proc(5): 5 to clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextmanager
def growing() -> Iterator[Callable[[], int]]:
    """Lend a function that says by how many bytes this process grew since the block began, at its worst."""
    forget_worst()
    before = resident()
    yield lambda: resident(worst=True) - before
