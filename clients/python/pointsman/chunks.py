"""Many routes as few calls: chunks that a server takes, each under an id that a repetition finds again."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple, Protocol
from uuid import uuid4

from pointsman.errors import FieldViolation, PointsmanError
from pointsman.keys import RouteKey, as_key
from pointsman.results import Existing, ImportResult
from pointsman.rpc.requests import key_message, unsendable
from pointsman.v1 import route_pb2, route_service_pb2

MOST_ROUTES = 6500
"""So many that three calls at once are what a server takes of one host."""
MOST_BYTES = 900_000
"""Servers accept messages of 1 MiB by default."""
CONCURRENCY = 3
"""Enough to keep a server busy: one chunk on its way, one that is staged, one that is merged."""
TIMEOUT = 60.0
"""Seconds, for one chunk."""
_STEP = 250

_EXISTING = {
    Existing.UPDATE: route_service_pb2.EXISTING_ROUTES_UPDATE,
    Existing.SKIP: route_service_pb2.EXISTING_ROUTES_SKIP,
    Existing.REFUSE: route_service_pb2.EXISTING_ROUTES_REFUSE,
}
_PLACE = re.compile(r"routes\[(\d+)\]\.?")


class ImportedRoute(NamedTuple):
    """The desired state of one route. None for ``labels`` or ``active``: as it is; a new route has none, and is active.

    ``expected_revision`` is the one that it must be at; 0: any.
    """

    key: RouteKey | str
    url: str
    labels: Mapping[str, str] | None = None
    active: bool | None = None
    expected_revision: int = 0


class Importable(Protocol):
    """Whatever has what ``ImportedRoute`` has."""

    @property
    def key(self) -> RouteKey | str: ...

    @property
    def url(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str] | None: ...

    @property
    def active(self) -> bool | None: ...

    @property
    def expected_revision(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """One call: its request, and the number of its first route, from 0."""

    start: int
    request: route_service_pb2.ImportRequest

    def __len__(self) -> int:
        return len(self.request.routes)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Make the errors of the call name the routes of the whole import."""
        try:
            yield
        except PointsmanError as error:
            error.violations = tuple(
                FieldViolation(self._globally(violation.field), violation.description) for violation in error.violations
            )
            error.add_note(f"routes {self.start} to {self.start + len(self) - 1} were not imported by this call")
            raise

    def _globally(self, field: str) -> str:
        number, rest = place(field)
        return field if number < 0 else f"routes[{number + self.start}].{rest}".rstrip(".")


def place(field: str) -> tuple[int, str]:
    """Return the number of the route that a violation names, and the path in it; -1 when it names none."""
    found = _PLACE.match(field)
    return (int(found[1]), field[found.end() :]) if found else (-1, field)


def made(routes: Iterable[Importable], existing: Existing, import_id: str, reason: str) -> Iterator[Chunk]:
    """Cut ``routes`` into chunks, in their order. The same routes under the same id are the same chunks."""
    run = import_id or uuid4().hex
    head = route_service_pb2.ImportRequest(existing=_EXISTING[Existing(existing)], reason=reason)
    remaining = iter(routes)
    messages: list[route_service_pb2.ImportedRoute] = []
    start = 0
    size = 0
    while step := [message_of(route) for route in islice(remaining, _STEP)]:
        for message in step:
            # Two bytes or three for its tag and its length.
            bytes_of = message.ByteSize() + 4
            if messages and (size + bytes_of > MOST_BYTES or len(messages) >= MOST_ROUTES):
                yield chunk_of(head, messages, start, run)
                start, size, messages = start + len(messages), 0, []
            messages.append(message)
            size += bytes_of
    if messages:
        yield chunk_of(head, messages, start, run)


def chunk_of(
    head: route_service_pb2.ImportRequest, messages: Iterable[route_service_pb2.ImportedRoute], start: int, run: str
) -> Chunk:
    """Make a chunk, whose ``request_id`` is made of the run and of everything in the request."""
    request = route_service_pb2.ImportRequest(existing=head.existing, reason=head.reason, routes=messages)
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()[:24]
    request.request_id = f"{run}:{digest}"
    return Chunk(start, request)


def message_of(route: Importable) -> route_service_pb2.ImportedRoute:
    """Build one route. Raises InvalidArgument for what protobuf cannot hold, without quoting it."""
    key = as_key(route.key)
    try:
        return route_service_pb2.ImportedRoute(
            key=route_pb2.RouteKey(tenant=key.tenant, service=key.service, env=key.env, version=key.version),
            url=route.url,
            labels=None if route.labels is None else _labels(tuple(route.labels.items())),
            active=route.active,
            expected_revision=route.expected_revision,
        )
    except ValueError:
        labels = None if route.labels is None else {"labels": route.labels}
        fields = {
            "key": key_message(key),
            "url": route.url,
            "labels": labels,
            "expected_revision": route.expected_revision,
        }
        raise unsendable(route_service_pb2.ImportedRoute, fields) from None


@lru_cache(1024)
def _labels(pairs: tuple[tuple[str, str], ...]) -> route_service_pb2.Labels:
    # Cached, because most routes share their labels with many others. Callers copy the result.
    return route_service_pb2.Labels(labels=dict(pairs))


def added(total: ImportResult, result: ImportResult, done: Callable[[ImportResult], object] | None) -> ImportResult:
    """Add the result of one call to what was done before it, and call ``done`` with it."""
    if done is not None:
        done(result)
    return total + result
