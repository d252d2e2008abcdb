"""What watchers saw, against the history of the era that it is of: promises 8 and 15."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from tests.faults.checking import Model, Violation
from tests.faults.history import Era, History, Row
from tests.faults.watchers import State, View


def check_watchers(watchers: Sequence[Sequence[View]], eras: Sequence[Era]) -> list[Violation]:
    """Hold every view to every rule, and the last one of each watcher to the end of the last era."""
    by_epoch = {era.epoch: Truth(era.rows) for era in eras}
    violations = []
    for views in watchers:
        for view in views:
            truth = by_epoch.get(view.epoch)
            if truth is None:
                violations.append(Violation(8, "a view of an epoch that never was", 0.0, view.epoch))
                continue
            violations += check_view(view, truth)
        violations += is_at_the_end(views, eras[-1])
    return violations


class Truth:
    """The rows of an era, by revision. ``last_of``: the newest change of a key as of a revision."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = sorted(rows, key=lambda row: row.revision)
        self._revisions = [row.revision for row in self.rows]
        self.last_of = Model(History(), self.rows).at

    def between(self, after: int, until: int) -> Sequence[Row]:
        """Return the rows after one revision up to another."""
        return self.rows[bisect_right(self._revisions, after) : bisect_right(self._revisions, until)]

    def at(self, revision: int) -> Row | None:
        """Return the row of a revision."""
        place = bisect_left(self._revisions, revision)
        return self.rows[place] if place < len(self.rows) and self._revisions[place] == revision else None

    def ends_between(self, first: int, last: int) -> list[int]:
        """Return the revisions between the two, both included, at which a change set ends; and the first."""
        return [first] + [row.revision for row in self.between(first, last) if row.change_set_end <= row.revision]

    def table(self, view: View, as_of: int) -> dict[str, State]:
        """Return what a view must hold as of a revision."""
        return {key: state for key, state in self.table_at(as_of).items() if view.matches(key)}

    def table_at(self, as_of: int) -> dict[str, State]:
        """Return every route as of a revision."""
        found: dict[str, State] = {}
        for row in self.between(0, as_of):
            if row.state == "absent":
                found.pop(row.key, None)
            else:
                found[row.key] = (row.revision, row.state, row.url)
        return found


def check_view(view: View, truth: Truth) -> Iterator[Violation]:
    """Hold one view to every rule."""
    for problem in view.problems:
        yield Violation(8, "an event out of order", 0.0, f"watcher {view.watcher}: {problem}")
    yield from snapshot_is_true(view, truth)
    yield from without_gap_or_repetition(view, truth)
    yield from sets_are_whole(view, truth)
    if view.table != truth.table(view, view.revision):
        yield Violation(8, "a replica differs", 0.0, f"watcher {view.watcher} as of {view.revision}")


def snapshot_is_true(view: View, truth: Truth) -> Iterator[Violation]:
    """Promise 8: a snapshot is the table as of its revision."""
    if view.snapshot != truth.table(view, view.base):
        yield Violation(8, "a snapshot that was never true", 0.0, f"watcher {view.watcher} as of {view.base}")


def without_gap_or_repetition(view: View, truth: Truth) -> Iterator[Violation]:
    """Promise 8: what was received is every change that matches, once, in the order of revisions."""
    received = [revision for each in view.received for revision, _ in each.changes]
    expected = [row.revision for row in truth.between(view.base, view.revision) if view.matches(row.key)]
    if received == expected:
        return
    missing = sorted(set(expected) - set(received))[:5]
    twice = sorted({revision for revision in received if received.count(revision) > 1})[:5]
    text = f"watcher {view.watcher} after {view.base}: missing {missing}, twice {twice}"
    yield Violation(8, "a gap, a repetition or a change out of order", 0.0, text)


def sets_are_whole(view: View, truth: Truth) -> Iterator[Violation]:
    """Promise 15: changes that were made together are received together."""
    for each in view.received:
        ends = {row.change_set_end or row.revision for revision, _ in each.changes if (row := truth.at(revision))}
        if ends != {each.as_of}:
            yield Violation(15, "a change set is torn", each.at, f"watcher {view.watcher}: {each}, of {sorted(ends)}")


def is_at_the_end(views: Sequence[View], last: Era) -> Iterator[Violation]:
    """Promise 8: once all is well again, a watcher has everything."""
    end = last.rows[-1].revision if last.rows else 0
    if not views or views[-1].epoch != last.epoch or views[-1].revision < end:
        has = f"{views[-1].revision} of {views[-1].epoch}" if views else "nothing"
        yield Violation(8, "a watcher is behind at the end", 0.0, f"has {has}, not {end} of {last.epoch}")
