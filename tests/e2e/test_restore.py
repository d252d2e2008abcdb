"""``pointsman-server restore``: what it says, what it changes, and how it ends."""

import os
import pty
import re
import subprocess
import sys

import psycopg
import pytest

from tests.support.processes import PATIENCE_SECONDS, clean_environ, run

SAID = r"old epoch  (\S+)\nnew epoch  (\S+)\nthe database is at revision 7; changes after 5 are published again\n"


def epoch(database_url: str) -> str:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT epoch::text FROM clock").fetchone()
    return str(row[0]) if row else ""


@pytest.fixture
def restored(database_url: str) -> str:
    """A database with a past, part of it published."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE clock SET revision = 7")
        connection.execute("UPDATE relay SET revision = 5")
    return database_url


@pytest.mark.parametrize("flags", [[], ["--yes"]])
def test_restore_gives_a_new_epoch_and_says_both(restored: str, flags: list[str]) -> None:
    before = epoch(restored)

    done = run("pointsman-server", "restore", *flags, DATABASE_URL=restored)

    assert done.returncode == 0, done.stderr
    said = re.fullmatch(SAID, done.stdout)
    assert said, done.stdout
    assert (said[1], said[2]) == (before, epoch(restored))
    assert before != epoch(restored)


def test_progress_beyond_the_clock_is_taken_back(restored: str) -> None:
    """As after a restore that was put together from more than one backup."""
    with psycopg.connect(restored) as connection:
        connection.execute("UPDATE relay SET revision = 9")

    done = run("pointsman-server", "restore", DATABASE_URL=restored)

    assert "revision 7; changes after 7 are published again" in done.stdout


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_on_a_terminal_it_asks_first(restored: str, answer: str, code: int) -> None:
    before = epoch(restored)

    ended, said = on_a_terminal(answer, restored)

    assert "a new epoch?" in said
    assert ended == code
    assert (epoch(restored) != before) is (code == 0)


def on_a_terminal(answer: str, database_url: str) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pointsman_server", "restore"],
        env={**clean_environ(), "DATABASE_URL": database_url},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.close(theirs)
    try:
        os.write(ours, f"{answer}\n".encode())
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return process.returncode, said


def test_a_database_without_a_schema_is_refused_with_a_clear_line(engines) -> None:
    from tests.support.engines import create_database, drop_database

    url = create_database(engines.urls["DATABASE_URL"])
    try:
        done = run("pointsman-server", "restore", "--yes", DATABASE_URL=url)
    finally:
        drop_database(url)

    assert done.returncode == 1
    assert "has no schema: run `pointsman-server migrate`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_down_is_named_without_its_password() -> None:
    done = run("pointsman-server", "restore", DATABASE_URL="postgresql://u:canary@127.0.0.1:1/d")

    assert done.returncode == 1
    assert "PostgreSQL at 127.0.0.1:1 cannot be reached" in done.stderr
    assert "canary" not in done.stderr
