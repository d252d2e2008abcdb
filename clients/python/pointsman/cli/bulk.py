"""Many routes at once: each row on its own, some at a time, none stopped by the failure of another."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from pointsman.aio import AsyncClient
from pointsman.cli.entries import Entry
from pointsman.cli.plan import Progress, difference, steps
from pointsman.cli.problems import Problem
from pointsman.errors import (
    DeadlineExceeded,
    PermissionDenied,
    PointsmanError,
    ResourceExhausted,
    RouteExists,
    Unavailable,
)

_MOST_UNREACHABLE = 50
_MOST_WAITS = 20
_LONGEST_WAIT = 30.0
"""Seconds."""


class Outcome(StrEnum):
    """What an import did with one row."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A row that was not imported: its line, its key if it had a good one, and why."""

    line: int
    key: str
    reason: str
    message: str


@dataclass(slots=True)
class ImportResult:
    """What an import did, in all."""

    counts: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    failed: list[FailedRow] = field(default_factory=list)
    unreachable_in_a_row: int = 0

    @property
    def given_up(self) -> bool:
        """Whether the server has gone away for good, as far as one can tell: more tries would only take time."""
        return self.unreachable_in_a_row >= _MOST_UNREACHABLE

    def imported(self, outcome: Outcome) -> None:
        """Count a row that was imported."""
        self.counts[outcome] += 1
        self.unreachable_in_a_row = 0

    def refused(self, row: Entry, error: PointsmanError) -> None:
        """Keep a row that was not imported."""
        unreachable = isinstance(error, Unavailable | DeadlineExceeded)
        self.unreachable_in_a_row = self.unreachable_in_a_row + 1 if unreachable else 0
        self.failed.append(FailedRow(row.line, str(row.key), error.reason or error.code.name, error.message))


async def import_rows(
    client: AsyncClient,
    rows: Iterable[Entry | Problem],
    *,
    concurrency: int,
    reason: str,
    advance: Callable[[], None],
) -> ImportResult:
    """Create or change the route of each row; ``advance`` is called after each.

    Raises PointsmanError before the first row when the server cannot be used at all.
    """
    await _check(client)
    result = ImportResult()
    queue = iter(rows)
    workers = [_work(client, queue, result, reason, advance) for _ in range(concurrency)]
    await asyncio.gather(*workers)
    result.failed.sort(key=lambda row: row.line)
    return result


async def _check(client: AsyncClient) -> None:
    """Fail now rather than once per row; who may not list may still be allowed to write."""
    try:
        async for _ in client.list(page_size=1):
            return
    except PermissionDenied:
        return


async def _work(
    client: AsyncClient,
    queue: Iterator[Entry | Problem],
    result: ImportResult,
    reason: str,
    advance: Callable[[], None],
) -> None:
    for row in queue:  # shared by all workers: each row is taken once
        if isinstance(row, Problem):
            result.failed.append(FailedRow(row.line, "", "INVALID_ROW", row.message))
        elif result.given_up:
            result.failed.append(FailedRow(row.line, str(row.key), "NOT_TRIED", "the server went away: run it again"))
        else:
            try:
                result.imported(await _patiently(client, row, reason))
            except PointsmanError as error:
                result.refused(row, error)
        advance()


async def _patiently(client: AsyncClient, row: Entry, reason: str) -> Outcome:
    """Import one row; where the server asks to wait, wait: a large import is meant to use up its quota."""
    for _ in range(_MOST_WAITS):
        try:
            return await _import(client, row, reason)
        except ResourceExhausted as error:
            if error.retry_delay is None:
                raise
            await asyncio.sleep(min(error.retry_delay.total_seconds(), _LONGEST_WAIT))
    return await _import(client, row, reason)


async def _import(client: AsyncClient, row: Entry, reason: str) -> Outcome:
    """Create first: so an inactive new route is never live, not even for a moment."""
    try:
        await client.create(row.key, row.url, labels=row.labels, active=row.active is not False, reason=reason)
    except RouteExists:
        return await _bring_up_to_date(client, row, reason)
    return Outcome.CREATED


async def _bring_up_to_date(client: AsyncClient, row: Entry, reason: str) -> Outcome:
    change = difference(row, await client.get(row.key))
    if change is None:
        return Outcome.UNCHANGED
    progress = Progress(reason)
    for step in steps([change]):
        progress.done(step, await getattr(client, step.method)(step.key, **progress.arguments(step)))
    return Outcome.UPDATED
