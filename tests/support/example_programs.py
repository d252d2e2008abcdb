"""Runs the example clients of other languages: a resolve to its end, or a watch until a test stops it."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import pytest

from tests.support.examples import EXAMPLES, Example
from tests.support.processes import clean_environ
from tests.support.tools import require
from tests.support.waiting import eventually

PATIENCE_SECONDS = 60.0
MARKS = {"go": pytest.mark.go, "typescript": pytest.mark.node, "java": pytest.mark.java}
LANGUAGES = [pytest.param(name, marks=MARKS[name]) for name in EXAMPLES]
"""The parameters of a test that is to be run for each example."""


def built(name: str) -> Example:
    """Return an example that can be run; skip the test where there is none."""
    example = EXAMPLES[name]
    require(f"the example in {name}", not example.missing(), example.missing())
    return example


def resolve(example: Example, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``resolve`` of an example to its end, with a deadline that a slow machine meets."""
    return _run(example.command("resolve", "--timeout", "50", *arguments), example)


def select(
    example: Example, family: str, sticky_keys: Sequence[str], *options: str
) -> subprocess.CompletedProcess[str]:
    """Run ``select`` of an example to its end: it prints a version and a URL for each sticky key."""
    return _run(example.command("select", "--timeout", "50", *options, family, *sticky_keys), example)


def run_own_tests(example: Example) -> subprocess.CompletedProcess[str]:
    """Run the tests that an example has in its own language. The output has both streams."""
    return _run(example.test_command(), example, example.tested_in)


def _run(command: list[str], example: Example, folder: str = ".") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=example.directory / folder,
        env=clean_environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


class Watching:
    """A ``watch`` under way, and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], output: IO[str], errors: IO[str]) -> None:
        self.process = process
        self._output = output
        self._errors = errors

    @property
    def lines(self) -> list[str]:
        """The complete lines of stdout so far."""
        return _lines(self._output)

    @property
    def errors(self) -> list[str]:
        """The complete lines of stderr so far."""
        return _lines(self._errors)

    def wait_for(self, *lines: str) -> None:
        """Wait until stdout is exactly these lines."""
        assert eventually(lambda: self.lines == [*lines] or self._ended, PATIENCE_SECONDS), (self.lines, self.errors)
        assert self.lines == [*lines], self.errors

    def wait_for_error(self, text: str) -> str:
        """Wait for a line of stderr that has a text, and return the first one."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [line for line in self.errors if text in line]
            return bool(found) or self._ended

        assert eventually(is_there, PATIENCE_SECONDS), self.errors
        assert found, self.errors
        return found[0]

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_SECONDS)

    @property
    def _ended(self) -> bool:
        return self.process.poll() is not None


@contextmanager
def watching(example: Example, *arguments: str) -> Iterator[Watching]:
    """Run ``watch`` until the block ends."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            example.command("watch", *arguments),
            cwd=example.directory,
            env=clean_environ(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            text=True,
        )
        try:
            yield Watching(process, output, errors)
        finally:
            process.kill()
            process.wait()


def _lines(file: IO[str]) -> list[str]:
    # pread: parent and child share the file offset, which must stay at the end.
    text = os.pread(file.fileno(), 1 << 24, 0).decode(errors="replace")
    return text.split("\n")[:-1]
