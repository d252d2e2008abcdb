"""streams: a command as a process, whose output goes where not everything can be written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_route_service import FakeServer

URL = "https://x.internal"
FULL = Path("/dev/full")


def pointsman(server: FakeServer, *arguments: str, redirect: str = "", **environment: str) -> tuple[int, str, str]:
    """Run the command, and return its exit code and its output. ``redirect`` is a shell's redirection."""
    command = [sys.executable, "-m", "pointsman.cli", "--server", server.target, *arguments]
    if redirect:
        command = ["bash", "-c", f'"$@" {redirect}', "bash", *command]
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("POINTSMAN_", "COLUMNS", "LINES"))
    }
    done = subprocess.run(command, capture_output=True, env=inherited | environment, timeout=60, check=False)
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    return done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)


@pytest.fixture
def changed(server: FakeServer) -> FakeServer:
    """A server with a route that was deactivated, whose texts are of no one encoding."""
    server.add("a/b/c/d", "https://größe.internal/日本", labels={"name": "größe", "smile": "😀"})
    assert pointsman(server, "deactivate", "a/b/c/d", "--reason", "日本 😀 grün", PYTHONUTF8="1")[0] == 0
    return server


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize(
    "arguments", [("history",), ("list",), ("get", "a/b/c/d"), ("update", "a/b/c/d", "--url", URL), ("--help",)]
)
def test_text_of_another_encoding_is_escaped(changed: FakeServer, encoding: str, arguments: tuple[str, ...]) -> None:
    code, out, err = pointsman(changed, *arguments, PYTHONIOENCODING=encoding)
    assert (code, err) == (0, "")
    if arguments[0] != "--help":
        assert ("größe" if encoding != "ascii" else "gr\\xf6\\xdfe") in out
        assert ("😀" if encoding == "utf-8" else "\\U0001f600") in out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_document_loses_nothing_in_another_encoding(changed: FakeServer, encoding: str) -> None:
    code, out, _ = pointsman(changed, "history", "--json", PYTHONIOENCODING=encoding)
    assert code == 0
    (change, _) = json.loads(out)
    assert (change["reason"], change["after"]["labels"]["smile"]) == ("日本 😀 grün", "😀")


def test_nor_does_an_error(server: FakeServer) -> None:
    code, _, err = pointsman(server, "resolve", "😀", "--json", PYTHONIOENCODING="cp1252", PYTHONUTF8="1")
    assert code == 2
    assert "😀" in json.loads(err)["error"]["message"]


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_output_that_cannot_be_written_is_said_once_the_change_is_made(
    server: FakeServer, unbuffered: str, json_option: tuple[str, ...]
) -> None:
    arguments = ("create", "a/b/c/d", URL, *json_option)
    code, _, err = pointsman(server, *arguments, redirect=f">{FULL}", PYTHONUNBUFFERED=unbuffered)
    assert code == 1
    assert "Traceback" not in err
    message = json.loads(err)["error"]["message"] if json_option else err.splitlines()[0]
    assert "the output cannot be written: No space left on device" in message
    assert "may have been changed" in err
    assert list(server.state()) == ["a/b/c/d"]


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_takes_no_output_and_hinders_nothing(server: FakeServer, redirect: str) -> None:
    code, out, err = pointsman(server, "create", "a/b/c/d", URL, redirect=redirect)
    assert (code, err) == (0, "")
    assert (out == "") == (">&-" in redirect.split())
    assert pointsman(server, "create", "a/b/c/d", URL, redirect=redirect)[0] == 4


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
def test_notes_that_cannot_be_written_hinder_nothing(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "routes.csv"
    file.write_text(f"key,url\na/b/c/d,{URL}\n")
    code, out, _ = pointsman(server, "import", str(file), redirect=f"2>{FULL}")
    assert (code, out) == (0, "1 rows: 1 created, 0 updated, 0 unchanged, 0 failed\n")


@pytest.mark.parametrize("arguments", [("list",), ("list", "--json"), ("get", "a/b/c/0"), ("--help",)])
def test_a_reader_that_goes_away_is_no_error_to_speak_of(server: FakeServer, arguments: tuple[str, ...]) -> None:
    for number in range(20):
        server.add(f"a/b/c/{number}", URL)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pointsman.cli", "--server", server.target, *arguments]
    with os.fdopen(write, "wb") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("term", ["dumb", "xterm"])
@pytest.mark.parametrize("color", ["auto", "always"])
def test_a_row_is_a_line_wherever_it_is_no_terminal(server: FakeServer, term: str, color: str) -> None:
    server.add("a/b/c/d", f"{URL}/" + "y" * 300)
    for command in ("list", "history"):
        _, out, _ = pointsman(server, "--color", color, command, FORCE_COLOR="1", TERM=term)
        header, row = out.splitlines()
        assert "KEY" in header
        assert "y" * 300 in row
