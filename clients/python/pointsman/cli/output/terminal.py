"""What a command writes: for people to a terminal, or one JSON document. Results to stdout, all else to stderr.

rich is loaded once there is something to be laid out or coloured; a line of text needs neither.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pointsman.cli.output.streams import json_text, write_note, write_result, writing

if TYPE_CHECKING:
    from rich.console import Console

# A pipe has no width: nothing is wrapped or cut for the programs that read it. rich ignores a width without a height
# where TERM is dumb and FORCE_COLOR is set.
_PIPE_WIDTH, _PIPE_HEIGHT = 100_000, 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Color(StrEnum):
    """When to use colour; ``auto`` means on a terminal, unless NO_COLOR is set."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Terminal:
    """Where a command writes to, in the manner that its options ask for."""

    def __init__(self, as_json: bool, color: Color) -> None:
        self.as_json = as_json
        self._color = color

    @cached_property
    def _out(self) -> "Console":
        return _console(self._color, stderr=False)

    @cached_property
    def err(self) -> "Console":
        """The console for progress and questions."""
        return _console(self._color, stderr=True)

    def document(self, document: object) -> None:
        """Write the one JSON document of this command."""
        write_result(json_text(document, sys.stdout, indent=2))

    def line(self, text: str, style: str = "") -> None:
        """Write one line for people; it is never wrapped."""
        if not style:
            write_result(f"{printable(text)}\n")
            return
        from rich.text import Text

        with writing():
            self._out.print(Text(printable(text), style=style), soft_wrap=True)

    def note(self, text: str) -> None:
        """Write one line to stderr, about the work and not of it; none with ``--json``."""
        if not self.as_json:
            write_note(f"{printable(text)}\n")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table: to a terminal it folds, to a pipe each row is one line."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        with writing():
            self._out.print(table)


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped: what others wrote must not steer the terminal."""
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], text)


def write_error(document: dict[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Write an error to stderr: the document with ``--json``, the lines otherwise."""
    if as_json:
        write_note(json_text({"error": document}, sys.stderr))
    else:
        write_note("".join(f"{printable(line)}\n" for line in lines))


def _console(color: Color, *, stderr: bool) -> "Console":
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        width=None if stream.isatty() else _PIPE_WIDTH,
        height=None if stream.isatty() else _PIPE_HEIGHT,
        force_terminal=True if color is Color.ALWAYS else None,
        no_color=True if color is Color.NEVER else None,
        markup=False,
        emoji=False,
        highlight=False,
    )
