"""Where a file of routes comes from."""

import sys
from pathlib import Path

from pointsman.cli.problems import InvalidFile, Problem

STDIN = "-"


def read_text(name: str) -> str:
    """Return the text of the file ``name``, or of standard input for ``-``. Raises InvalidFile when it has none."""
    try:
        data = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidFile(name, [Problem(0, error.strerror or str(error))]) from error
    except UnicodeDecodeError as error:
        raise InvalidFile(name, [Problem(0, "must be UTF-8 text")]) from error
