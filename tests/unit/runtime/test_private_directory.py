"""runtime.private_directory: a directory of one process, and what is left of those that were killed."""

import fcntl
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pointsman_server.runtime import private_directory


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_open_to_its_user_alone(temporary: Path) -> None:
    made = private_directory.make("kept-")

    assert made.parent == temporary
    assert made.name.startswith("kept-")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_that_of_a_process_that_runs_stays_and_that_of_one_that_was_killed_goes(temporary: Path) -> None:
    # It becomes another program, which keeps the lock.
    code = (
        "import os; from pointsman_server.runtime import private_directory as d;"
        f"d.tempfile.tempdir = {str(temporary)!r}; print(d.make('kept-'), flush=True);"
        "os.execv('/bin/cat', ['cat'])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        try:
            theirs = Path(other.stdout.readline().decode().strip())
            private_directory.remove_abandoned("kept-")
            assert theirs.exists()
        finally:
            other.kill()
            other.wait()

        private_directory.remove_abandoned("kept-")

        assert not theirs.exists()


def test_a_directory_without_a_lock_is_not_ours(temporary: Path) -> None:
    other = temporary / "kept-by-another"
    other.mkdir()

    private_directory.remove_abandoned("kept-")

    assert other.exists()


def test_one_of_another_user_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = temporary / "kept-by-another"
    theirs.mkdir()
    (theirs / private_directory.LOCK).touch()
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1)

    private_directory.remove_abandoned("kept-")

    assert theirs.exists()


def test_it_is_locked_before_it_gets_its_name(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    lock = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        seen.append([path.name for path in temporary.glob("kept-*")])
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    private_directory.make("kept-")

    assert seen == [[]]


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_a_unix_socket_has_room_in_it_or_tmpdir_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spare: int, fits: bool
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        parent = Path(short)
        longest = private_directory.LONGEST_SOCKET_PATH - len("/kept-12345678/admin.sock") - spare
        parent = parent / ("x" * (longest - len(str(parent)) - 1))
        parent.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(parent))
        if not fits:
            with pytest.raises(private_directory.UnusableDirectory, match=r"set TMPDIR to .* most \d+ bytes"):
                private_directory.require_room("kept-", "admin.sock")
            return
        private_directory.require_room("kept-", "admin.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(private_directory.make("kept-") / "admin.sock"))


def test_no_directory_at_all_is_an_error_that_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", absent)
    with pytest.raises(private_directory.UnusableDirectory, match="set TMPDIR"):
        private_directory.make("kept-")
