"""app.private_directory: a directory of one process, and what is left of those that were killed."""

import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pointsman_server.app import private_directory


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
        "import os; from pointsman_server.app import private_directory as d;"
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
