"""The rounds: every contestant in turn, time and again, so that all of them see the same machine."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench.contests import Contest, Refused, Row, Sample
from tests.bench.generators import LoadFailed


@dataclass
class Results:
    """The runs of each contestant by title and name, what was refused and why, and the rows."""

    rows: list[tuple[str, Row]] = field(default_factory=list)
    runs: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def run(contest: Contest, rounds: int, results: Results, say: Callable[[str], None]) -> None:
    """Run a contest. A contestant that has failed once is not tried again, and its rows have no figures."""
    rounds = min(rounds, contest.rounds or rounds)
    results.rows += [(contest.title, row) for row in contest.rows]
    for number in range(rounds):
        for name, contestant in contest.contestants.items():
            place = (contest.title, name)
            if place in results.refused:
                continue
            say(f"{contest.title}, round {number + 1} of {rounds}: {name}")
            try:
                results.runs.setdefault(place, []).append(contestant())
            except (Refused, LoadFailed) as error:
                results.runs.pop(place, None)
                results.refused[place] = str(error)


def progress(text: str) -> None:
    """Show on a terminal what goes on; elsewhere nothing."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()
