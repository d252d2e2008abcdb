"""Imports rows in chunks, several at once; a refused row does not stop the others."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from pointsman import chunks
from pointsman.aio import AsyncClient
from pointsman.chunks import Chunk
from pointsman.cli.bulk.retry import Patience, at_once, key_of
from pointsman.cli.files.entries import Entry
from pointsman.cli.files.problems import InvalidFile, Problem
from pointsman.errors import InvalidArgument, PermissionDenied, PointsmanError, RouteExists
from pointsman.results import Existing, ImportResult
from pointsman.v1 import route_service_pb2

_Message = route_service_pb2.ImportedRoute


@dataclass(frozen=True, slots=True)
class Plan:
    """How to import: under which id, what to do with existing routes, why, and how many calls at once."""

    run: str
    existing: Existing = Existing.UPDATE
    reason: str = ""
    concurrency: int = chunks.CONCURRENCY


@dataclass(frozen=True, slots=True)
class FailedRow:
    """What was not imported: its line, its key if it had a good one, and why. ``rows``: it and those after it."""

    line: int
    key: str
    reason: str
    message: str
    rows: int = 1


@dataclass(slots=True)
class Report:
    """What an import did, in all."""

    result: ImportResult = field(default_factory=ImportResult)
    failed: list[FailedRow] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """How many rows were not imported."""
        return sum(row.rows for row in self.failed)


async def import_rows(
    client: AsyncClient, rows: Iterable[Entry | Problem], plan: Plan, advance: Callable[[int], None]
) -> Report:
    """Create or change the route of each row; ``advance`` is called with a number of rows when they are done.

    Raises PointsmanError before the first row when the server cannot be used at all, and InvalidFile when the file
    cannot be.
    """
    await _check(client)
    work = _Work(client, plan, advance)
    made = chunks.made(work.good(rows), plan.existing, plan.run, plan.reason)
    await at_once(map(work.do, made), plan.concurrency)
    work.report.failed.sort(key=lambda row: row.line)
    return work.report


async def _check(client: AsyncClient) -> None:
    """Fail now rather than once per row. A caller without permission to list may still be allowed to write."""
    try:
        async for _ in client.list(page_size=1):
            return
    except PermissionDenied:
        return


class _Work:
    """One import in progress: the line of each route, and its result."""

    def __init__(self, client: AsyncClient, plan: Plan, advance: Callable[[int], None]) -> None:
        self._client = client
        self._plan = plan
        self._advance = advance
        self._patience = Patience()
        self._lines = array("L")
        self.report = Report()

    def good(self, rows: Iterable[Entry | Problem]) -> Iterator[Entry]:
        """Yield the valid rows. A file that cannot be read further ends here; before anything was sent it raises."""
        try:
            for row in rows:
                if isinstance(row, Problem):
                    self._fail(FailedRow(row.line, "", "INVALID_ROW", row.message))
                else:
                    self._lines.append(row.line)
                    yield row
        except InvalidFile as error:
            if not self._lines:
                raise
            problem = error.problems[0]
            self._fail(
                FailedRow(problem.line, "", "INVALID_FILE", f"{problem.message}; the rows after it are not read")
            )

    async def do(self, chunk: Chunk) -> None:
        """Import a chunk; where rows of it are refused, the others."""
        lines = self._lines[chunk.start : chunk.start + len(chunk)]
        messages: Sequence[_Message] = list(chunk.request.routes)
        request = chunk.request
        while messages:
            try:
                done = await self._patience.of(partial(self._client.import_chunk, Chunk(0, request)))
            except PointsmanError as error:
                refused = _refused(error, messages)
                if not refused:
                    self._fail_all(lines, messages, error)
                    return
                for number, why in refused.items():
                    self._fail(FailedRow(lines[number], key_of(messages[number]), error.reason or error.code.name, why))
                kept = [number for number in range(len(messages)) if number not in refused]
                messages, lines = [messages[number] for number in kept], array("L", (lines[number] for number in kept))
                request = chunks.chunk_of(request, messages, 0, self._plan.run).request
            else:
                self.report.result += done
                self._advance(len(messages))
                return

    def _fail_all(self, lines: Sequence[int], messages: Sequence[_Message], error: PointsmanError) -> None:
        reason = error.reason or error.code.name
        self.report.failed.append(FailedRow(lines[0], key_of(messages[0]), reason, error.message, len(messages)))
        self._advance(len(messages))

    def _fail(self, row: FailedRow) -> None:
        self.report.failed.append(row)
        self._advance(1)


def _refused(error: PointsmanError, messages: Sequence[_Message]) -> dict[int, str]:
    """Return which routes of a call caused its error, and why; empty if the error names none."""
    if isinstance(error, InvalidArgument | RouteExists):
        named = ((chunks.place(violation.field), violation) for violation in error.violations)
        return {
            number: f"{rest}: {violation.description}"
            for (number, rest), violation in named
            if 0 <= number < len(messages)
        }
    if isinstance(error, PermissionDenied) and {"tenant", "env"} <= error.metadata.keys():
        scope = (error.metadata["tenant"], error.metadata["env"])
        return {
            number: error.message
            for number, message in enumerate(messages)
            if (message.key.tenant, message.key.env) == scope
        }
    return {}
