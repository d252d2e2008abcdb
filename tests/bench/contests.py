"""What a benchmark is made of: contestants that run in turn, and rows that compare two of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

# One run: figures by name, of which these are the usual ones.
#   rate: per second · seconds: for one · p50, p99: milliseconds · cpu: microseconds of the server's processor for one
#   busy: how much of its core the side of the server used, of 1 · generator: how much of its core the generator used
Sample = Mapping[str, float]


class Refused(Exception):
    """A figure that would not be what it says: the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a row is to reach: its ``ratio``, or the ``value`` itself."""

    of: Literal["ratio", "value"]
    most: float | None = None
    least: float | None = None

    def met(self, ratio: float | None, value: float) -> bool:
        """Say whether a row reaches it."""
        figure = value if self.of == "value" else ratio
        if figure is None:
            return False
        return (self.most is None or figure <= self.most) and (self.least is None or figure >= self.least)


def at_least(ratio: float) -> Target:
    """Ask for a ratio of at least this."""
    return Target("ratio", least=ratio)


def at_most(ratio: float) -> Target:
    """Ask for a ratio of at most this."""
    return Target("ratio", most=ratio)


def no_less_than(value: float) -> Target:
    """Ask for a figure of at least this."""
    return Target("value", least=value)


def no_more_than(value: float) -> Target:
    """Ask for a figure of at most this."""
    return Target("value", most=value)


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of one contestant, beside the same figure of another if there is one to compare with.

    ``name`` stays the same from release to release: runs are compared by it.
    """

    name: str
    what: str
    ours: str
    target: Target | None
    theirs: str = ""
    figure: str = "rate"
    unit: str = "calls/s"


@dataclass(frozen=True, slots=True)
class Contest:
    """Contestants by name, each making one run of a kind when it is called, and the rows that come of them."""

    title: str
    contestants: Mapping[str, Callable[[], Sample]]
    rows: Sequence[Row]
    # What costs much and varies little is measured less often.
    rounds: int | None = None


Part = Callable[..., AbstractContextManager[Contest]]
