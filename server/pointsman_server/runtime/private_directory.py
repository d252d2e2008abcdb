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
# Of a Unix socket, without the NUL at its end (unix(7)).
LONGEST_SOCKET_PATH = 107
# What mkdtemp adds to a prefix.
RANDOM_CHARACTERS = 8


class UnusableDirectory(Exception):
    """No directory of temporary files can be used; the text says what to set."""


def require_room(prefix: str, socket: str) -> None:
    """Raise UnusableDirectory where a directory made by ``make(prefix)`` cannot hold a Unix socket of that name."""
    parent = _temporary_directory()
    length = len(os.fsencode(parent)) + len(f"/{prefix}/{socket}") + RANDOM_CHARACTERS
    if length > LONGEST_SOCKET_PATH:
        most = LONGEST_SOCKET_PATH - (length - len(os.fsencode(parent)))
        raise UnusableDirectory(
            f"{parent} is too long for the path of a Unix socket in it: set TMPDIR to a directory "
            f"whose path has at most {most} bytes"
        )


def make(prefix: str) -> Path:
    """Make a directory of mode 0700 whose name starts with ``prefix``; remove those of processes that have ended."""
    _temporary_directory()
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


def _temporary_directory() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UnusableDirectory("no directory of temporary files can be written to: set TMPDIR to one") from error


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
