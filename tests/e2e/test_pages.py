"""Every command that our pages show runs, against ``pointsman-server dev --demo``, and prints what they say.

A ``console`` block is commands after ``$ `` (a line that leaves a quote open, or ends in a backslash, goes on) and
their output on stdout and stderr; every command must succeed. A ``python`` block is run, and a ``text`` block right
after it is what it prints. In what is expected ``...`` stands for anything, and numbers, times, ids and layers need not
be the same: see VOLATILE. A block that cannot run has a comment before it that says why: ``<!-- not run: … -->``.

What stands under one heading is one test, which relies on the demo's routes and on nothing of another heading.
"""

import contextlib
import io
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ServerProcess, clean_environ, get_json, server_process
from tests.support.tools import BIN as TOOLS
from tests.support.tools import require, tool
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/api.md",
    "docs/json.md",
    "docs/watch.md",
    "docs/traffic.md",
    "docs/xds.md",
    "docs/architecture.md",
    "docs/operating.md",
    "docs/deploying.md",
    "docs/releasing.md",
    "docs/runbook.md",
    "docs/access.md",
    "docs/security.md",
)
# Programs in Go and Node.js run in tests/e2e/xds/test_page.py.
LANGUAGES = {"console", "python", "text", "yaml", "go", "javascript"}
CLIENTS = ("curl", "grpcurl", "grpc-health-probe")
COMMAND_SECONDS = 60
READY = r"gRPC on localhost:(\d+), metrics and health on http://localhost:(\d+), xDS on localhost:(\d+)"

# What differs between two runs that do the same, and what takes its place on both sides.
VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\b|\b[0-9a-f]{32}\b"), "ID"),
    (re.compile(r"(?<![A-Z])(LOCAL|REDIS|POSTGRES)(?![A-Z])"), "LAYER"),
    (re.compile(r"\b\d+(\.\d+)? ?s\b"), "SECONDS"),
    # Revisions: the demo alone makes 240. Not ports, versions and codes.
    (re.compile(r"(?<![:\w.-])\d{3,}(?![\w.])"), "REVISION"),
)


PRINTED_SET = re.compile(r"\bchange set (\d{3,})\b")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    heading: str
    line: int
    language: str
    text: str
    not_run: str

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.page}:{self.line}"


NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


def blocks_of(page: str) -> Iterator[Block]:
    """Read a page line by line."""
    heading = before = ""
    lines = enumerate((ROOT / page).read_text().splitlines(), 1)
    for number, line in lines:
        if line.startswith("```"):
            body = itertools.takewhile(lambda numbered: numbered[1] != "```", lines)
            text = "".join(f"{line}\n" for _, line in body)
            reason = NOT_RUN.fullmatch(before)
            yield Block(page, heading, number, line.removeprefix("```"), text, reason[1] if reason else "")
        elif line.startswith("#"):
            heading = line.lstrip("# ")
        before = line


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [block for block in BLOCKS if block.language in {"console", "python"} and not block.not_run]
# By the place of a python block, the text block that follows it.
PRINTED = {
    block.place: after.text
    for block, after in itertools.pairwise(BLOCKS)
    if (block.language, after.language) == ("python", "text") and block.heading == after.heading
}
SECTIONS = {
    (block.page, block.heading): [each for each in RUN if (each.page, each.heading) == (block.page, block.heading)]
    for block in RUN
}


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """What ``make run`` starts, on free ports and in a directory of its own."""
    data = tmp_path_factory.mktemp("data")
    arguments = ("dev", "--fresh", "--demo", "--data", str(data))
    environ = {
        "POINTSMAN_LISTEN": "127.0.0.1:0",
        "POINTSMAN_HTTP_LISTEN": "127.0.0.1:0",
        "POINTSMAN_XDS_LISTEN": "127.0.0.1:0",
        # A slow machine must not look like a broken Redis.
        "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
    }
    with server_process(*arguments, **environ) as process:
        http = process.wait_for_output(READY)[2]
        process.wait_for_output(r"Ctrl-C stops it")
        # A reader types more slowly than the tests do.
        assert eventually(lambda: get_json(f"http://localhost:{http}/health/ready")[0] == 200), process.errors
        yield process


class Reader:
    """Does what a page says, on the server that is really there."""

    def __init__(self, process: ServerProcess, directory: Path) -> None:
        self._directory = directory
        grpc, http, xds = process.wait_for_output(READY).groups()
        self._ports = {
            "localhost:50051": f"localhost:{grpc}",
            "localhost:9464": f"localhost:{http}",
            "localhost:50052": f"localhost:{xds}",
        }
        self._sets: dict[str, str] = {}

    def run(self, block: Block) -> None:
        for name in CLIENTS:
            if block.language == "console" and re.search(rf"\b{name}\b", block.text):
                require(name, tool(name), "run `make tools`")
        if block.language == "python":
            self._python(block)
        for command, expected in commands(block.text) if block.language == "console" else ():
            self._console(block, command, expected)

    def _python(self, block: Block) -> None:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(self._here(block.text), block.place, "exec"), {"__name__": "__main__"})  # noqa: S102 - our page
        if block.place in PRINTED:
            compare(block.place, self._here(PRINTED[block.place]), output.getvalue())

    def _console(self, block: Block, command: str, expected: str) -> None:
        here = re.sub(r"\b\d{3,}\b", lambda match: self._sets.get(match[0], match[0]), self._here(command))
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", here],
            env=self._environ(),
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{block.place}: {command}\nexit code {done.returncode}\n{done.stdout}"
        compare(f"{block.place}: {command}", self._here(expected), done.stdout)
        # Only once they are known to say the same.
        self._sets |= dict(zip(PRINTED_SET.findall(expected), PRINTED_SET.findall(done.stdout), strict=False))

    def _here(self, text: str) -> str:
        for documented, real in self._ports.items():
            text = text.replace(documented, real)
        return text

    def _environ(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), str(TOOLS), os.environ["PATH"]])
        # Unbuffered, so that stdout and stderr come in the order of a terminal.
        ours = {
            "PATH": path,
            "PYTHONUNBUFFERED": "1",
            "POINTSMAN_SERVER": self._ports["localhost:50051"],
            "POINTSMAN_XDS_SERVER": self._ports["localhost:50052"],
        }
        return {**clean_environ(), **ours}


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Split a console block into commands and what each prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        count = next(count for count in range(1, len(lines) + 1) if is_complete("".join(lines[:count])))
        yield "".join(lines[:count]), "".join(lines[count:])


def is_complete(command: str) -> bool:
    here = re.search(r"<<'(\w+)'\n", command)
    ended = here is None or command.endswith(f"\n{here[1]}\n")
    return not command.endswith("\\\n") and command.count("'") % 2 == 0 and ended


def compare(place: str, expected: str, got: str) -> None:
    want, have = settled(expected), settled(got)
    if not OutputChecker().check_output(want, have, ELLIPSIS | NORMALIZE_WHITESPACE):
        pytest.fail(f"{place}\nexpected:\n{expected}\ngot:\n{got}", pytrace=False)


def settled(text: str) -> str:
    for pattern, replacement in VOLATILE:
        text = pattern.sub(replacement, text)
    # Each line by itself, so that "..." as a line of its own may also stand for no line.
    return "\n".join(line.strip() for line in text.strip().splitlines()) + "\n"


def slug(section: tuple[str, str]) -> str:
    return re.sub(r"\W+", "-", " ".join(section)).lower()


def marked(section: tuple[str, str]) -> Any:
    text = "\n".join(block.text for block in SECTIONS[section] if block.language == "console")
    built = re.search(r"\b(grpcurl|grpc-health-probe)\b", text)
    return pytest.param(section, id=slug(section), marks=[pytest.mark.go] if built else [])


@pytest.mark.parametrize("section", [marked(section) for section in SECTIONS])
def test_what_the_page_shows_happens(section: tuple[str, str], dev: ServerProcess, tmp_path: Path) -> None:
    reader = Reader(dev, tmp_path)
    for block in SECTIONS[section]:
        reader.run(block)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_every_block_is_run_or_says_why_not(block: Block) -> None:
    assert block.language in LANGUAGES, f"{block.place}: nothing checks a block of {block.language or 'no language'}"
    if block.language == "console":
        assert block.text.startswith("$ "), f"{block.place}: begins with no command"
    if block.language in {"console", "yaml"}:
        assert block in RUN or len(block.not_run) > 10, f"{block.place}: say why it is not run"


def test_the_first_page_shows_every_way_to_ask() -> None:
    shown = "\n".join(block.text for block in RUN if block.page == "README.md")
    for word in ("pointsman resolve", "grpcurl", "from pointsman import Client", "grpc-health-probe", "curl -s"):
        assert word in shown


def test_make_run_is_the_server_of_these_tests() -> None:
    done = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)

    assert "exec .venv/bin/pointsman-server dev --demo" in done.stdout.splitlines()


def test_make_run_greets_as_documented(dev: ServerProcess) -> None:
    (documented,) = [block.text for block in BLOCKS if block.text.startswith("$ make run\n")]
    ((_, expected),) = commands(documented)
    grpc, http, xds = dev.wait_for_output(READY).groups()
    # On the usual port the hints need no --server; and the data would lie in the directory of the project.
    greeting = dev.output.replace(f" --server localhost:{grpc}", "").replace(f":{grpc}", ":50051")
    greeting = re.sub(r"stays in \S+", "stays in .pointsman/", greeting.replace(f":{http}", ":9464"))
    greeting = greeting.replace(f":{xds}", ":50052")

    compare("make run", expected, greeting)
    assert "240 example routes" in (ROOT / "README.md").read_text()


class TestTheComparison:
    """A test of pages that compares too loosely would say nothing."""

    @pytest.mark.parametrize(
        ("expected", "got"),
        [
            ("created a at revision 241: x\n", "created a at revision 9317: x\n"),
            ('{\n  ...\n  "url": "x",\n  ...\n}\n', '{\n  "a": 1,\n  "url": "x",\n  "b": 2\n}\n'),
            ("at 2026-01-31 10:00:02Z\n", "at 2031-12-01 23:59:59Z\n"),
            ('"age": "0.032716978s"', '"age": "0s"'),
            ("source REDIS, age 0.000 s", "source LOCAL, age 0.412 s"),
        ],
    )
    def test_accepts_what_is_the_same(self, expected: str, got: str) -> None:
        compare("here", expected, got)

    @pytest.mark.parametrize(
        ("expected", "got"),
        [
            ("created a at revision 241: x\n", "created b at revision 241: x\n"),
            ("https://a.internal:8443\n", "https://a.internal:8444\n"),
            ("exit code 3\n", "exit code 5\n"),
            ("status: SERVING\n", "status: NOT_SERVING\n"),
            ("", "surprise\n"),
            ("something\n", ""),
            ("pointsman_ready 1.0", "pointsman_ready 0.0"),
        ],
    )
    def test_refuses_what_is_not(self, expected: str, got: str) -> None:
        with pytest.raises(pytest.fail.Exception):
            compare("here", expected, got)

    def test_commands_go_on_over_lines(self) -> None:
        text = "$ a '{\n  b\n}' c\nout\n$ d \\\n    e\n$ f\nmore\n\nlines\n"

        assert list(commands(text)) == [
            ("a '{\n  b\n}' c\n", "out\n"),
            ("d \\\n    e\n", ""),
            ("f\n", "more\n\nlines\n"),
        ]
