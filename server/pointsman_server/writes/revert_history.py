"""Reads from the history what a revert undoes, and who has changed it since."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from pointsman_server.domain.errors import (
    MOST_VIOLATIONS,
    ChangedSince,
    EpochChanged,
    FieldViolation,
    HistoryCompacted,
    InvalidField,
    RevisionInFuture,
)
from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.ports.store import ChangeQuery, RouteStore
from pointsman_server.writes.revert import FIND_AGAIN, Touched, Undoing, Undone

MOST_REVISIONS = 10_000
PAGE = 500
# The most characters of a reason, and about so many of all that is named: clients reject statuses of
# more than 8 KiB, and a status has each text twice.
REASON = 100
TEXT = 1800
# Of a family whose traffic was deleted, so many pages of changes at most are read to find who did it.
MOST_PAGES = 20


@dataclass(frozen=True, slots=True)
class Found:
    """What is to be undone, each key once, in the history ``epoch``, which was at ``revision`` or later."""

    undone: Sequence[Undone]
    epoch: str
    revision: int


class RevertHistory:
    """The history as a revert needs it.

    All methods raise what RouteStore raises. Those that read what is to be undone raise EpochChanged if ``epoch`` is
    given and is not that of the store, RevisionInFuture, HistoryCompacted if a change of it may be gone, and
    InvalidField.
    """

    def __init__(self, store: RouteStore) -> None:
        self._store = store

    async def of_set(self, change_set_id: int, epoch: str = "") -> Found:
        """Read a change set. Raises InvalidField also if its first change has another revision than this."""
        found = await self._begin(change_set_id, epoch)
        first = await self._change_at(change_set_id)
        last = _last_of_set(first) if first else change_set_id
        return await self._read(found, change_set_id, last)

    async def of_range(self, first: int, last: int, epoch: str = "") -> Found:
        """Read the changes from one revision to another, both included: at most ``MOST_REVISIONS``."""
        return await self._read(await self._begin(last, epoch), first, last)

    async def who_changed(self, error: Touched) -> ChangedSince:
        """Return the error that says by whom, when and at which revision each key was changed since."""
        violations: list[FieldViolation] = []
        size = 0
        for undone, revision in error.touched[:MOST_VIOLATIONS]:
            violations.append(await self._violation(undone, revision))
            size += len(violations[-1].field) + len(violations[-1].description)
            if size > TEXT:
                break
        (first, revision), count = error.touched[0], len(error.touched)
        return ChangedSince(violations, str(first.key), revision, count)

    async def _begin(self, last: int, epoch: str) -> Found:
        clock = await self._store.clock()
        if epoch and epoch != clock.epoch:
            raise EpochChanged(epoch, clock.epoch, FIND_AGAIN)
        if last > clock.revision:
            raise RevisionInFuture(last, clock.revision)
        return Found((), clock.epoch, clock.revision)

    async def _check_kept(self, first: int) -> None:
        compacted = await self._store.compacted()
        if first <= compacted:
            raise HistoryCompacted(first, compacted + 1)

    async def _read(self, found: Found, first: int, last: int) -> Found:
        undoing, read = Undoing(), 0
        async for page in self._pages(first, last):
            undoing.add(page)
            read += len(page)
        await self._check_kept(first)
        if read != last - first + 1:
            # They were there: the database was restored since.
            raise RevisionInFuture(last, first + read - 1)
        return replace(found, undone=list(undoing.undone.values()))

    async def _pages(self, first: int, last: int) -> AsyncIterator[Sequence[Change]]:
        after = first - 1
        while after < last:
            page = await self._store.list_changes(
                ChangeQuery(after_revision=after, before_revision=last + 1, limit=min(PAGE, last - after))
            )
            if not page:
                return
            yield page
            after = page[-1].revision

    async def _violation(self, undone: Undone, revision: int) -> FieldViolation:
        change = await self._change_at(revision) if revision else await self._deletion_of(undone)
        what = "the route" if undone.key.version else "the traffic"
        done = f"{what} was {'changed' if revision else 'deleted'}"
        if change is None:
            text = f"{done} since, at revision {revision}" if revision else f"{done} since"
        else:
            when, reason = f"{change.occur_time:%Y-%m-%dT%H:%M:%SZ}", f": {change.reason}" if change.reason else ""
            text = f"{done} by {change.actor} at {when}, revision {change.revision}{reason[:REASON]}"
        return FieldViolation(str(undone.key), text)

    async def _change_at(self, revision: int) -> Change | None:
        found = await self._store.list_changes(
            ChangeQuery(after_revision=revision - 1, before_revision=revision + 1, limit=1)
        )
        return found[0] if found else None

    async def _deletion_of(self, undone: Undone) -> Change | None:
        """Find the last change of a key that is gone, after the one that is to be undone."""
        query = _changes_of(undone.key, undone.revision)
        for _ in range(MOST_PAGES):
            page = await self._store.list_changes(query)
            found = next((change for change in page if change.key == undone.key), None)
            if found or len(page) < query.limit:
                return found
            query = replace(query, before_revision=page[-1].revision)
        return None


def _changes_of(key: RouteKey, after: int) -> ChangeQuery:
    limit = 1 if key.version else PAGE
    return ChangeQuery(*key, after_revision=after, newest_first=True, limit=limit)


def _last_of_set(first: Change) -> int:
    """Return the last revision of the set that begins with a change. Raises InvalidField."""
    revision, known, size = first.revision, first.change_set_id, first.change_set_size
    instead = "by first_revision and last_revision"
    if not known:
        problem = f"revision {revision} is of a server that did not record change sets: name what to undo {instead}"
    elif known != revision:
        problem = f"revision {revision} belongs to the change set {known}, of the revisions to {first.change_set_end}"
    elif size > MOST_REVISIONS:
        problem = f"has {size:,} changes, more than {MOST_REVISIONS:,}: undo parts, the last ones first, {instead}"
    else:
        return first.change_set_end
    raise InvalidField([FieldViolation("change_set_id", problem)])
