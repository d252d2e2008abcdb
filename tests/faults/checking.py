"""The checker: sorting and bisecting, no search, because every reply carries a revision.

Each rule is a function that says which promise of PROMISES.md it holds a history to. ``check`` runs all of them.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.history import SETS, UNANSWERED, History, Read, Row, Write

# What may have nothing to change; "confirmed" is a change set that had nothing.
NO_OPS = frozenset({"activate", "deactivate", "confirmed"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds. ``local`` and ``shared`` are the times to live; ``allowance`` is for fills that began before a write."""

    local: float = 1.0
    shared: float = 20.0
    allowance: float = 1.0

    @property
    def lost(self) -> float:
        """The bound for what was written while Redis was out of reach."""
        return self.local + self.shared + self.allowance


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise, when it showed, and what shows it."""

    promise: int
    rule: str
    at: float
    text: str


@dataclass(slots=True)
class Applied:
    """A write that is in the store: its row, and the times of the call that caused it."""

    row: Row
    write: Write
    ret: float


class Missed:
    """Of the answered writes of one key: which one has been answered longest among those above a revision."""

    def __init__(self, writes: Sequence[Applied]) -> None:
        answered = sorted((each for each in writes if each.ret < UNANSWERED), key=lambda each: each.row.revision)
        self._revisions = [each.row.revision for each in answered]
        self._oldest: list[Applied] = []
        for each in reversed(answered):
            oldest = self._oldest[-1] if self._oldest else each
            self._oldest.append(each if each.ret < oldest.ret else oldest)
        self._oldest.reverse()

    def by(self, revision: int, moment: float) -> Applied | None:
        """Return what a reader at ``moment`` misses who sees the key at ``revision``."""
        place = bisect_right(self._revisions, revision)
        found = self._oldest[place] if place < len(self._oldest) else None
        return found if found and found.ret < moment else None


@dataclass(slots=True)
class Model:
    """The truth, from the store, and the calls that made it.

    ``degraded`` are the times during which Redis was out of reach of a server, for promise 5.
    """

    history: History
    rows: Sequence[Row]
    bounds: Bounds = Bounds()
    degraded: Sequence[tuple[float, float]] = ()
    applied: dict[int, Applied] = field(default_factory=dict)
    requests: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    _revisions: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _by_revision: dict[int, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in sorted(self.rows, key=lambda row: row.revision):
            self.requests[row.request_id].append(row)
            self._revisions[row.key].append(row.revision)
            self._by_revision[row.revision] = row
        for write in self.history.writes:
            for row in self.requests.get(write.request_id, ()):
                self.applied[row.revision] = Applied(row, write, write.ret if write.answer == "ok" else UNANSWERED)

    def at(self, key: str, as_of: int) -> Row | None:
        """Return the newest change of ``key`` as of a revision."""
        revisions = self._revisions.get(key, [])
        place = bisect_right(revisions, as_of)
        return self._by_revision[revisions[place - 1]] if place else None

    def own(self, write: Write) -> list[Row]:
        """Return the rows of the write's own key: an exclusive activation has others too. Of a change set, all."""
        rows = self.requests.get(write.request_id, ())
        return [row for row in rows if row.key == write.key or write.kind in SETS]

    def changed_nothing(self, write: Write) -> bool:
        """Say whether the write found what it wanted: its answer is then a read."""
        return write.kind in NO_OPS and not self.own(write)

    def tells(self, read: Read) -> bool:
        """Say whether a reply, absence too, is what the history says as of the reply's revision."""
        row = self.at(read.key, read.as_of)
        state = row.state if row else "absent"
        truth = (state, row.revision, row.url) if row and state == "active" else (state, 0, "")
        return (read.state, read.revision, read.url) == truth

    def effective(self, read: Read) -> int:
        """Return the revision of the key that a read shows, for an absence too."""
        if read.revision:
            return read.revision
        row = self.at(read.key, read.as_of)
        return row.revision if row else 0

    def excused(self, since: float, until: float) -> bool:
        """Say whether Redis was out of somebody's reach at some time between the two."""
        return any(start <= until and since <= end for start, end in self.degraded)


@dataclass(slots=True)
class Verdict:
    """What the checker found. ``staleness``: for each read that missed an answered write, when, and for how long."""

    violations: list[Violation]
    staleness: list[tuple[float, float]]
    checked: int


def check(model: Model) -> Verdict:
    """Hold a history to every rule."""
    violations = [violation for rule in RULES for violation in rule(model)]
    return Verdict(violations, list(staleness(model)), len(model.history.reads) + len(model.history.writes))


def nothing_is_lost(model: Model) -> Iterator[Violation]:
    """Promise 1: every write answered OK has its change row, unless it had nothing to change."""
    for write in model.history.writes:
        if write.answer == "ok" and write.kind not in NO_OPS and not model.own(write):
            yield Violation(1, "an acknowledged write is lost", write.ret, _show(write))


def applied_once(model: Model) -> Iterator[Violation]:
    """Promise 2: a request_id is applied at most once, and answered with what it did; a refusal did nothing."""
    for write in model.history.writes:
        rows = model.own(write)
        if len({row.change_set_id if write.kind in SETS else row.revision for row in rows}) > 1:
            yield Violation(2, "a request was applied twice", write.call, _show(write, rows))
        elif rows and write.answer == "ok" and write.revision != rows[0].revision:
            yield Violation(2, "the answer is not that of the change", write.ret, _show(write, rows))
        elif rows and write.answer == "refused" and write.attempts == 1:
            yield Violation(2, "a refused write was applied", write.ret, _show(write, rows))


def nothing_from_nowhere(model: Model) -> Iterator[Violation]:
    """Promise 2: every change was asked for."""
    for row in model.rows:
        if row.revision not in model.applied:
            yield Violation(2, "a change that nobody asked for", 0.0, _show(row))


def revisions_are_dense(model: Model) -> Iterator[Violation]:
    """Promise 3: no revision twice, none left out (of the rows), none given to two requests (of the answers)."""
    revisions = sorted(row.revision for row in model.rows)
    if revisions != list(range(1, len(revisions) + 1)):
        yield Violation(3, "the revisions of the store are not 1, 2, 3, …", 0.0, f"{len(revisions)} rows")
    owners: dict[int, Write] = {}
    for write in model.history.writes:
        if write.answer == "ok" and not model.changed_nothing(write):
            first = owners.setdefault(write.revision, write)
            if first.request_id != write.request_id:
                yield Violation(3, "two writes have one revision", write.ret, _show(first, write))


def revisions_follow_time(model: Model) -> Iterator[Violation]:
    """Promise 3: a write called after another was answered has the higher revision, whatever their keys."""
    answered = sorted((each for each in model.applied.values() if each.ret < UNANSWERED), key=lambda each: each.ret)
    highest: list[Applied] = []
    for each in answered:
        highest.append(max(highest[-1], each, key=lambda one: one.row.revision) if highest else each)
    returns = [each.ret for each in answered]
    for each in model.applied.values():
        place = bisect_right(returns, each.write.call)
        if place and highest[place - 1].row.revision > each.row.revision:
            yield Violation(3, "a later write has a lower revision", each.write.call, _show(highest[place - 1], each))


def no_ops_are_current(model: Model) -> Iterator[Violation]:
    """Promise 3: a write that changed nothing shows every write that was answered before it was called."""
    by_key: dict[str, list[Applied]] = defaultdict(list)
    for each in model.applied.values():
        by_key[each.row.key].append(each)
    missed = {key: Missed(writes) for key, writes in by_key.items()}
    for write in model.history.writes:
        if write.answer == "ok" and model.changed_nothing(write):
            found = missed[write.key].by(write.revision, write.call) if write.key in missed else None
            if found:
                yield Violation(3, "a write that changed nothing is behind", write.ret, _show(write, found))


def answers_are_true(model: Model) -> Iterator[Violation]:
    """Promises 5 and 6: what a reply says, absence too, is what the history says as of the reply's revision."""
    for read in model.history.reads:
        if not model.tells(read):
            yield Violation(6, "an answer that was never true", read.ret, _show(read, model.at(read.key, read.as_of)))


def nothing_from_the_future(model: Model) -> Iterator[Violation]:
    """Promise 6: no reply is as of a change whose call began after the reply was there."""
    for read in model.history.reads:
        made = model.applied.get(read.as_of)
        if read.as_of and (made is None or made.write.call > read.ret):
            yield Violation(6, "a reply from the future", read.ret, _show(read, made))


def floors_hold(model: Model) -> Iterator[Violation]:
    """Promise 4: a reply is never from before min_revision, whatever fails."""
    for read in model.history.reads:
        if read.as_of < read.floor:
            yield Violation(4, "a reply from before min_revision", read.ret, _show(read))


def staleness_is_bounded(model: Model) -> Iterator[Violation]:
    """Promise 5 (and 6): no read that starts more than T_local after a write's answer misses that write.

    Where Redis was out of some server's reach between that write and the read: T_local + the shared TTL.
    """
    for read, missed in _missing(model, lambda _read, key: key):
        behind = read.call - missed.ret
        excused = model.excused(missed.write.call, read.ret)
        bounds = model.bounds
        if behind > (bounds.lost if excused else bounds.local):
            yield Violation(5, f"stale by {behind:.3f} s", read.ret, _show(read, missed))


def own_writes_show_at_once(model: Model) -> Iterator[Violation]:
    """Promise 5: the server that answered a write shows it in every read that starts later; while Redis is reachable.

    Otherwise the bound of ``staleness_is_bounded`` applies, which looks at these reads too.
    """
    for read, missed in _missing(model, lambda server, key: (server, key) if server else None):
        if not model.excused(missed.write.call, read.ret):
            text = f"the writer's server is stale by {read.call - missed.ret:.3f} s"
            yield Violation(5, text, read.ret, _show(read, missed))


def sessions_go_forward(model: Model) -> Iterator[Violation]:
    """Promise 7: a client that sends back what it saw (min_revision) never sees a key go back, whatever fails.

    One that stays with one server does not either, without a token, while that server lives and Redis is reachable.
    """
    seen: dict[Any, tuple[int, Read]] = {}
    for read in sorted(model.history.reads, key=lambda read: read.call):
        place = (read.session, read.key, "" if read.token else read.server)
        if not read.token and not read.server:
            continue
        now = model.effective(read)
        before, which = seen.get(place, (0, read))
        since = which.call - model.bounds.lost
        if now < before and which.ret < read.call and (read.token or not model.excused(since, read.ret)):
            yield Violation(7, "a client saw a key go back", read.ret, _show(which, read))
        if now >= before:
            seen[place] = (now, read)


def staleness(model: Model) -> Iterator[tuple[float, float]]:
    """Measure, for every read that missed an answered write: when, and for how many seconds it had been answered."""
    for read, missed in _missing(model, lambda _server, key: key):
        yield read.call, read.call - missed.ret


def _missing(model: Model, group: Callable[[str, str], Any]) -> Iterator[tuple[Read, Applied]]:
    """Find the reads that miss an answered write of their group, with the one that was answered first."""
    groups: dict[Any, list[Applied]] = defaultdict(list)
    for each in model.applied.values():
        groups[group(each.write.server, each.row.key)].append(each)
    missed = {name: Missed(writes) for name, writes in groups.items() if name is not None}
    for read in model.history.reads:
        name = group(read.server, read.key)
        found = missed[name].by(model.effective(read), read.call) if name in missed else None
        if found:
            yield read, found


def _show(*things: object) -> str:
    return "; ".join(map(str, things))


RULES: tuple[Callable[[Model], Iterator[Violation]], ...] = (
    nothing_is_lost,
    applied_once,
    nothing_from_nowhere,
    revisions_are_dense,
    revisions_follow_time,
    no_ops_are_current,
    answers_are_true,
    nothing_from_the_future,
    floors_hold,
    staleness_is_bounded,
    own_writes_show_at_once,
    sessions_go_forward,
)
