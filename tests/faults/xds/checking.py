"""Holds the answers of xDS clients to the history: promises 15 and 18.

An xDS client says no revision, so its answers are held to time: each must be what the routes and the traffic made of
its name at some moment shortly before or during the call. While a fault lasts, and until the clients have followed a
cut-over after it, they may keep to what they had when it began; they may never fail, nor be told that nothing is live
where something was.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.faults.checking import Violation
from tests.faults.history import UNANSWERED, Era, Row
from tests.faults.traffic.families import Families, Family
from tests.faults.xds.records import NOTHING, Answer, Disturbance, Observed

# How long after a write was answered clients may have what was before: two cores run all of this.
BEHIND_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Piece:
    """What a name may be answered from ``since`` on. ``settled``: when the write of it was answered."""

    since: float
    settled: float
    answers: frozenset[str]


class Timeline:
    """What one name may be answered, and when. ``torn`` are the pieces in the middle of change sets."""

    def __init__(self, pieces: Sequence[Piece], torn: Sequence[Piece] = ()) -> None:
        self._pieces = pieces
        self._since = [piece.since for piece in pieces]
        # Also where the clock of PostgreSQL went back, pieces follow one another in the order of revisions.
        for place in range(1, len(pieces)):
            self._since[place] = max(self._since[place], self._since[place - 1])
        self._torn = torn

    def allowed(self, since: float, until: float) -> frozenset[str]:
        """Return what may be answered to one who has what was true at some time between the two."""
        last = bisect_right(self._since, until)
        first = max(0, bisect_right(self._since, since) - 1)
        # What a write ended was true until the write was answered.
        while first and self._pieces[first].settled >= since:
            first -= 1
        return frozenset().union(*(piece.answers for piece in self._pieces[first:last]))

    def ends_within(self, since: float, until: float) -> Sequence[float]:
        """Return the last moments of what ended between the two."""
        ends = self._since[bisect_right(self._since, since) : bisect_left(self._since, until)]
        return [math.nextafter(end, -math.inf) for end in ends]

    def is_torn(self, answer: str, since: float, until: float) -> bool:
        """Say whether an answer is that of a part of a change set of that time."""
        return any(answer in piece.answers for piece in self._torn if since <= piece.since <= until)


def check_xds(observed: Observed, eras: Sequence[Era], wall: float) -> list[Violation]:
    """Hold everything to every rule. ``wall`` is what must be added to a monotonic time to get seconds since 1970."""
    violations = [*nobody_dies(observed), *everybody_follows(observed)]
    answered = {each.write.request_id: each.write.ret for each in observed.sets if each.write.ret < UNANSWERED}
    lines = {name: timeline(name, eras, observed.backends, answered, wall) for _, name in observed.answers}
    for (client, name), answers in observed.answers.items():
        violations += no_call_fails(f"{client} of {name}", answers)
        violations += answers_are_true(f"{client} of {name}", answers, lines[name], observed)
    return violations


def family_of(name: str) -> str:
    """Return the family that a name is of, or is."""
    tenant, service, env = reversed(name.split("~")[-3:])
    return f"{tenant}/{service}/{env}"


def timeline(
    name: str, eras: Sequence[Era], backends: Mapping[str, str], answered: Mapping[str, float], wall: float
) -> Timeline:
    """Say what a name may be answered from when on, across restores. ``answered``: requests, and when they were."""
    family = family_of(name)
    pieces: list[Piece] = []
    torn: list[Piece] = []
    for era in eras:
        families = Families([row for row in era.rows if row.family == family])
        state = families.at(family, era.base)
        pieces.append(Piece(era.opened, max(era.opened, era.switched), answers_of(name, state, backends)))
        for row in sorted(era.rows, key=lambda row: row.revision):
            if row.revision <= era.base or row.family != family:
                continue
            found = answers_of(name, families.at(family, row.revision), backends)
            piece = Piece(row.made - wall, _settled(row, answered, wall), found)
            (torn if families.torn(family, row.revision) else pieces).append(piece)
    return Timeline(pieces, torn)


def _settled(row: Row, answered: Mapping[str, float], wall: float) -> float:
    return max(row.made - wall, answered.get(row.request_id, -math.inf))


def answers_of(name: str, family: Family, backends: Mapping[str, str]) -> frozenset[str]:
    """Return the backends that calls by a name may reach; a name of four parts is a route, one of three a family."""
    parts = name.split("~")
    if len(parts) == 4:
        route = family.routes.get(parts[0])
        return frozenset([backends.get(route["url"], route["url"]) if route and route["active"] else NOTHING])
    expected = family.answers("")
    return frozenset(backends.get(each.url, each.url) if each.state == "chosen" else NOTHING for each in expected)


def nobody_dies(observed: Observed) -> Iterator[Violation]:
    """Promise 18: nothing that a server sends ends the process of a client."""
    for client, text in observed.deaths.items():
        yield Violation(18, "an xDS client died", observed.ended, f"{client}: {text}")


def everybody_follows(observed: Observed) -> Iterator[Violation]:
    """Promise 18: after each fault every client has what a new change set makes of each of its names."""
    for each in observed.disturbances:
        if each.missing:
            text = f"after {each.fault}: {each.missing}"
            yield Violation(18, "an xDS client does not follow after a fault", each.begin, text)


def no_call_fails(who: str, answers: Sequence[Answer]) -> Iterator[Violation]:
    """Promise 18: calls reach a backend, or are told that nothing is live; they never fail."""
    for each in answers:
        if each.failed:
            yield Violation(18, "a call by xDS failed", each.at, f"{who}: {each}")


def answers_are_true(who: str, answers: Sequence[Answer], line: Timeline, observed: Observed) -> Iterator[Violation]:
    """Promises 15 and 18: what calls are answered was true, at most a moment ago or when a fault began."""
    for place, each in enumerate(answers):
        if each.failed:
            continue
        following = answers[place + 1] if place + 1 < len(answers) else None
        last = following.last if following else observed.ended
        # Calls went on all the time: what is answered before and after a change is so right before it, too.
        moments = [(moment, moment) for moment in (*line.ends_within(each.at, last), last) if moment > each.at]
        for moment in ((each.began, each.at), *moments):
            yield from _is_true(who, each, moment, line, observed.disturbances)


def _is_true(
    who: str, answer: Answer, moment: tuple[float, float], line: Timeline, disturbances: Sequence[Disturbance]
) -> Iterator[Violation]:
    began, at = moment
    since = min([began, *(each.begin for each in disturbances if each.begin <= at and began <= each.end)])
    since -= BEHIND_SECONDS
    allowed = line.allowed(since, at)
    if answer.backend in allowed:
        return
    text = f"{who}: {answer}, not one of {sorted(allowed)} since {since:.3f}"
    if line.is_torn(answer.backend, began - BEHIND_SECONDS, at):
        yield Violation(15, "an xDS client shows a part of a change set", at, text)
    elif answer.backend == NOTHING:
        yield Violation(18, "an xDS client was told that nothing is live", at, text)
    else:
        yield Violation(18, "an xDS client reached a backend that was not to be reached", at, text)
