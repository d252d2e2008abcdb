"""What is wrong with a file of routes, line by line."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry that cannot be used: its line (from 1; 0: the file as a whole), and why, for people."""

    line: int
    message: str


class InvalidFile(Exception):
    """A file of routes that cannot be used, with every problem that was found in it."""

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        self.name = name
        self.problems = tuple(problems)
        # A line each, whatever ends of lines are in what the file says.
        lines = (f"{place(name, problem.line)}: {' '.join(problem.message.split())}" for problem in problems)
        super().__init__("\n".join(lines))


def place(name: str, line: int) -> str:
    """Return where something is, in the form that editors and terminals make clickable: ``routes.yaml:12``."""
    return f"{name}:{line}" if line else name
