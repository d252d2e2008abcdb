"""Applies differences: many routes a call, each only if it has not changed since the difference was shown."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from uuid import uuid4

from pointsman import chunks
from pointsman.aio import AsyncClient
from pointsman.chunks import Chunk, ImportedRoute
from pointsman.cli.bulk.difference import Difference, changes, creations, deletions
from pointsman.cli.bulk.retry import Patience, at_once, key_of
from pointsman.errors import FieldViolation, PointsmanError
from pointsman.results import Existing, Route
from pointsman.v1 import route_service_pb2

_Message = route_service_pb2.ImportedRoute

DELETES = 16
"""Calls at once: a server writes those that wait together."""


async def perform(client: AsyncClient, found: Sequence[Difference], reason: str) -> None:
    """Apply the differences, in an order that keeps traffic safe: what is new, then changes, deletions last.

    A call is made as a whole or not at all. After one has failed no other begins. Raises its PointsmanError, which
    names the routes that caused it, and says in its notes how many changes are done.
    """
    work = _Work(client, reason)
    try:
        await at_once(map(work.send, work.cut(creations(found), Existing.REFUSE)), chunks.CONCURRENCY)
        for leaving, some in groupby(work.cut(changes(found), Existing.UPDATE), _has_leaving):
            # What goes out of service waits for what takes over, which may be in the call before.
            await at_once(map(work.send, some), 1 if leaving else chunks.CONCURRENCY)
        await at_once(map(work.delete, deletions(found)), DELETES)
    except PointsmanError as error:
        error.add_note(f"{work.done} of {len(found)} changes are done: run it again")
        raise


class _Work:
    """The calls, and how many changes are done."""

    def __init__(self, client: AsyncClient, reason: str) -> None:
        self._client = client
        self._reason = reason
        self._patience = Patience()
        self.done = 0

    def cut(self, routes: Iterable[ImportedRoute], existing: Existing) -> Iterator[Chunk]:
        return chunks.made(routes, existing, "", self._reason)

    async def send(self, chunk: Chunk) -> None:
        with _told(chunk.request.routes):
            await self._patience.of(partial(self._client.import_chunk, Chunk(0, chunk.request)))
        self.done += len(chunk)

    async def delete(self, route: Route) -> None:
        delete = partial(self._client.delete, request_id=uuid4().hex, reason=self._reason)
        try:
            await self._patience.of(lambda: delete(route.key, expected_revision=route.revision))
        except PointsmanError as error:
            error.add_note(f"{route.key} was to be deleted")
            raise
        self.done += 1


def _has_leaving(chunk: Chunk) -> bool:
    return any(message.HasField("active") and not message.active for message in chunk.request.routes)


@contextmanager
def _told(messages: Sequence[_Message]) -> Iterator[None]:
    """Make an error of a call name the keys of the routes that caused it, instead of their numbers."""
    try:
        yield
    except PointsmanError as error:
        error.violations = tuple(_by_key(violation, messages) for violation in error.violations)
        lines = [f"{violation.field}: {violation.description}" for violation in error.violations]
        error.message = lines[0] if lines else error.message
        scope = f"of {key_of(messages[0])}"
        if len(messages) > 1:
            scope += f" to {key_of(messages[-1])}, {len(messages)} in all"
        error.__notes__ = [*lines[1:], f"a call is made as a whole or not at all: this one was {scope}"]
        raise


def _by_key(violation: FieldViolation, messages: Sequence[_Message]) -> FieldViolation:
    number, rest = chunks.place(violation.field)
    if not 0 <= number < len(messages):
        return violation
    return FieldViolation(f"{key_of(messages[number])} {rest}".rstrip(), violation.description)
