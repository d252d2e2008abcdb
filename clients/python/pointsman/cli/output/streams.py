"""The streams of a command: they take any text, and what cannot be written is an error in words."""

import codecs
import errno
import io
import json
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO


class OutputFailed(Exception):
    """The results cannot be written; the ``OSError`` is the ``__cause__``."""


class FileFailed(OutputFailed):
    """The same of a file that the command was to write; nothing else was to be changed."""


def prepare() -> None:
    """Escape what the encoding of a stream lacks, as ``\\u2192``; a stream that is closed discards everything."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process exits
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def writing() -> Iterator[None]:
    """Make OutputFailed of the error of a write to stdout."""
    try:
        yield
    except OSError as error:
        raise OutputFailed(f"the output cannot be written: {error.strerror or type(error).__name__}") from error


def write_result(text: str) -> None:
    """Write to stdout. Raises OutputFailed."""
    with writing():
        sys.stdout.write(text)


def write_note(text: str) -> None:
    """Write to stderr, if it takes anything: the work goes on without."""
    with suppress(OSError):
        sys.stderr.write(text)


def finish() -> None:
    """Write what is buffered. Raises OutputFailed."""
    with writing():
        sys.stdout.flush()


def finish_notes() -> None:
    """Write what is buffered for stderr, or discard it: Python would make an error of it when it exits."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        discard(sys.stderr)


def check_reader(stream: TextIO) -> None:
    """Raise OutputFailed if ``stream`` is a pipe that nobody reads any more, before there is something to write."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # errors are told without being asked for
    except (AttributeError, OSError, ValueError):  # no poll on Windows; in tests a stream may have no file
        return
    if any(state & select.POLLERR for _, state in poll.poll(0)):
        with writing():
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def discard(stream: TextIO) -> None:
    """Discard what the stream still holds, which Python would try to write once more when it exits."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def json_text(document: object, stream: TextIO, indent: int | None = None) -> str:
    """Return a document as ``stream`` can hold it without loss: in ASCII, unless it is UTF-8."""
    is_utf8 = codecs.lookup(stream.encoding or "utf-8").name == "utf-8"
    return json.dumps(document, indent=indent, ensure_ascii=not is_utf8) + "\n"
