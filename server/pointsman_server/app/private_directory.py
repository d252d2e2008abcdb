"""A directory that belongs to one process, also after an ``exec``, and is removed when that process has ended.

A process that is killed removes nothing. So each holds a lock in its directory, which the kernel drops with the
process, and the next one to start removes what has no holder.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

LOCK = "lock"


def make(prefix: str) -> Path:
    """Make a directory of mode 0700 whose name starts with ``prefix``; remove those of processes that have ended."""
    remove_abandoned(prefix)
    # It gets its name when it is locked: before, it would look abandoned.
    made = Path(tempfile.mkdtemp(prefix=f"new-{prefix}"))
    _lock(made)
    return made.rename(made.with_name(made.name.removeprefix("new-")))


def remove_abandoned(prefix: str) -> None:
    """Remove the directories of ``make`` whose processes have ended."""
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # Another process may remove it at the same time. Those of other users are theirs.
        with suppress(OSError):
            if path.stat().st_uid == os.geteuid() and _abandoned(path):
                shutil.rmtree(path)


def _lock(directory: Path) -> None:
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Kept open until the process ends, whatever it becomes.
    os.set_inheritable(descriptor, True)


def _abandoned(directory: Path) -> bool:
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
