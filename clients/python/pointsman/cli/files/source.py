"""Where a file of routes comes from."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from pointsman.cli.files.problems import InvalidFile, Problem

STDIN = "-"


@contextmanager
def open_text(name: str) -> Iterator[TextIO]:
    """Open what ``read_text`` reads, for files too large for that. Raises InvalidFile; so does the block."""
    try:
        with _opened(name) as data, io.TextIOWrapper(data, encoding="utf-8-sig", newline="\n") as text:
            yield text
    except OSError as error:
        raise InvalidFile(name, [Problem(0, error.strerror or str(error))]) from error
    except UnicodeDecodeError as error:
        raise InvalidFile(name, [Problem(0, "must be UTF-8 text")]) from error


def _opened(name: str) -> BinaryIO:
    return sys.stdin.buffer if name == STDIN else Path(name).open("rb")


def read_text(name: str) -> str:
    """Return the text of the file ``name``, or of standard input for ``-``. Raises InvalidFile when it has none."""
    try:
        data = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidFile(name, [Problem(0, error.strerror or str(error))]) from error
    except UnicodeDecodeError as error:
        raise InvalidFile(name, [Problem(0, "must be UTF-8 text")]) from error
