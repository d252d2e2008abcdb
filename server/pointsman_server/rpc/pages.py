"""The pages of the methods that list: their size in entries and bytes, and the page tokens that lead to the next."""

import base64
import hashlib
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, TypeVar

from google.protobuf.message import Message

from pointsman.v1 import route_pb2, traffic_methods_pb2, traffic_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import change_to_message, route_to_message, traffic_to_message
from pointsman_server.domain.errors import FieldViolation, InvalidField
from pointsman_server.domain.routes import Change, Route, RouteKey, Traffic
from pointsman_server.ports.history import RouteHistory
from pointsman_server.ports.store import ChangeQuery, RouteQuery, TrafficQuery
from pointsman_server.rpc.convert import RESPONSE_BYTES, entry_bytes
from pointsman_server.rpc.methods import as_of
from pointsman_server.runtime.fair_share import FairShare

DEFAULT_SIZE = 100
MAX_SIZE = 1000
MAX_REVISION = 2**63 - 1
TIMES: tuple[Literal["after_time"], Literal["before_time"]] = ("after_time", "before_time")

T = TypeVar("T")


def size_of(request: pb.ListRequest | pb.ListChangesRequest | traffic_methods_pb2.ListTrafficRequest) -> int:
    """Return the most entries that the page asked for may have."""
    return min(request.page_size or DEFAULT_SIZE, MAX_SIZE)


def route_query(request: pb.ListRequest) -> RouteQuery:
    """Decode a List. Raises InvalidField for a page token that is malformed or of another query."""
    _, after = _route_position(request)
    return RouteQuery(
        tenant=request.tenant,
        service=request.service,
        env=request.env,
        active=request.active if request.HasField("active") else None,
        after=after,
        # One more shows whether there is another page. The rows are loaded before the byte limit cuts the page, so
        # MAX_SIZE of the largest routes take some 25 MB, and as many changes twice that. ``interceptors.bulk_limit``
        # bounds how many such pages are made at once.
        limit=size_of(request) + 1,
    )


async def revision_of(request: pb.ListRequest, history: RouteHistory) -> int | None:
    """Return the revision as of which to list; None for now. All pages have that of the first.

    Raises what ``route_query`` and ``as_of.revision_of`` raise.
    """
    if not request.HasField("as_of"):
        return None
    revision, _ = _route_position(request)
    return await as_of.revision_of(request.as_of, history) if revision is None else revision


async def list_response(
    request: pb.ListRequest, routes: Sequence[Route], fair_share: FairShare, revision: int | None = None
) -> pb.ListResponse:
    """Encode the page of ``routes``, which are those that ``route_query`` asks for, as of ``revision`` if given."""
    messages: list[route_pb2.Route] = await fair_share.map(route_to_message, routes[: size_of(request)])
    response = pb.ListResponse(routes=messages, as_of_revision=revision or 0)
    count = _cut(response, response.routes)
    if len(routes) > count:
        position = str(routes[count - 1].key)
        if revision is not None:
            position = f"{revision}@{position}"
        response.next_page_token = _page_token(position, _route_scope(request))
    return response


def _route_position(request: pb.ListRequest) -> tuple[int | None, RouteKey | None]:
    """Read the page token of a List: the revision of its pages, if it has a moment, and the key that ended a page."""
    position = _read_page_token(request.page_token, _route_scope(request), _read_route_position)
    return position or (None, None)


def _read_route_position(text: str) -> tuple[int | None, RouteKey]:
    revision, _, key = text.rpartition("@")
    return _read_revision(revision) if revision else None, RouteKey.parse(key)


def traffic_query(request: traffic_methods_pb2.ListTrafficRequest) -> TrafficQuery:
    """Decode a ListTraffic. Raises InvalidField for a page token that is malformed or of another query."""
    after = _read_page_token(request.page_token, _traffic_scope(request), _read_family)
    return TrafficQuery(request.tenant, request.service, request.env, after, size_of(request) + 1)


async def list_traffic_response(
    request: traffic_methods_pb2.ListTrafficRequest, traffic: Sequence[Traffic], fair_share: FairShare
) -> traffic_methods_pb2.ListTrafficResponse:
    """Encode the page of ``traffic``, which is what ``traffic_query`` asks for."""
    messages: list[traffic_pb2.Traffic] = await fair_share.map(traffic_to_message, traffic[: size_of(request)])
    response = traffic_methods_pb2.ListTrafficResponse(traffic=messages)
    count = _cut(response, response.traffic)
    if len(traffic) > count:
        response.next_page_token = _page_token(str(traffic[count - 1].key), _traffic_scope(request))
    return response


def change_query(request: pb.ListChangesRequest) -> ChangeQuery:
    """Decode a ListChanges. Raises InvalidField for a page token that is malformed or of another query."""
    last = _read_page_token(request.page_token, _change_scope(request), _read_revision)
    after, before = request.after_revision, request.before_revision
    if last and request.newest_first:
        before = last
    elif last:
        after = last
    return ChangeQuery(
        tenant=request.tenant,
        service=request.service,
        env=request.env,
        version=request.version,
        actor=request.actor,
        after_revision=after,
        before_revision=before,
        newest_first=request.newest_first,
        limit=size_of(request) + 1,
    )


async def within_times(query: ChangeQuery, request: pb.ListChangesRequest, history: RouteHistory) -> ChangeQuery:
    """Narrow a query to the times that the request names.

    Raises InvalidField for a time that is none, and what ``as_of.revision_at`` raises for one that is in the future, or
    before what is kept of the history.
    """
    after, before = query.after_revision, query.before_revision
    # Where the page before ended is within the time that it began at.
    goes_on = bool(request.page_token)
    if request.HasField("after_time") and (request.newest_first or not goes_on):
        after = max(after, await as_of.revision_at(request.after_time, "after_time", history))
    if request.HasField("before_time") and not (request.newest_first and goes_on):
        later = 1 + await as_of.revision_at(request.before_time, "before_time", history)
        before = min(before, later) if before else later
    return replace(query, after_revision=after, before_revision=before)


def begins(request: pb.ListChangesRequest) -> bool:
    """Say whether the range has a beginning; without one it begins with the oldest change that is kept."""
    return bool(request.after_revision) or request.HasField("after_time")


async def list_changes_response(
    request: pb.ListChangesRequest, changes: Sequence[Change], fair_share: FairShare
) -> pb.ListChangesResponse:
    """Encode the page of ``changes``, which are those that ``change_query`` asks for."""
    messages: list[route_pb2.RouteChange] = await fair_share.map(change_to_message, changes[: size_of(request)])
    response = pb.ListChangesResponse(changes=messages)
    count = _cut(response, response.changes)
    if len(changes) > count:
        response.next_page_token = _page_token(str(changes[count - 1].revision), _change_scope(request))
    return response


def _cut(response: Message, entries: MutableSequence[Any]) -> int:
    """Cut off the entries that would make ``response`` exceed RESPONSE_BYTES; returns how many stay, one at least."""
    if response.ByteSize() > RESPONSE_BYTES:
        total = 0
        for place, entry in enumerate(entries):
            total += entry_bytes(entry)
            if total > RESPONSE_BYTES and place:
                del entries[place:]
                break
    return len(entries)


def _route_scope(request: pb.ListRequest) -> tuple[object, ...]:
    active = request.active if request.HasField("active") else None
    scope = ("routes", request.tenant, request.service, request.env, active)
    return (*scope, request.as_of.SerializeToString()) if request.HasField("as_of") else scope


def _traffic_scope(request: traffic_methods_pb2.ListTrafficRequest) -> tuple[object, ...]:
    return ("traffic", request.tenant, request.service, request.env)


def _change_scope(request: pb.ListChangesRequest) -> tuple[object, ...]:
    parts = ("changes", request.tenant, request.service, request.env, request.version, request.actor)
    scope = (*parts, request.after_revision, request.before_revision, request.newest_first)
    # Not as one number: a time may be out of any range here.
    times = ((name, getattr(request, name)) for name in TIMES if request.HasField(name))
    return (*scope, *((name, time.seconds, time.nanos) for name, time in times))


def _page_token(position: str, scope: tuple[object, ...]) -> str:
    """Return an opaque page token: where the page ended, and a digest of the query that it belongs to (AIP-158)."""
    return base64.urlsafe_b64encode(_scope_digest(scope) + position.encode()).decode().rstrip("=")


def _read_page_token(token: str, scope: tuple[object, ...], read: Callable[[str], T]) -> T | None:
    """Return the position in a page token; None without one. Callers can forge it: the digest is no secret."""
    if not token:
        return None
    with suppress(ValueError, InvalidField):
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        if raw[:8] == _scope_digest(scope):
            return read(raw[8:].decode("ascii"))
    rule = "must be the next_page_token of a response, with every other field but page_size unchanged"
    raise InvalidField([FieldViolation("page_token", rule)])


def _read_family(text: str) -> RouteKey:
    # A version makes it a key, which is checked as one.
    return RouteKey.parse(f"{text}/v").family_key


def _read_revision(text: str) -> int:
    revision = int(text) if text.isdecimal() else 0
    if not 0 < revision <= MAX_REVISION:
        raise ValueError("not a revision")
    return revision


def _scope_digest(scope: tuple[object, ...]) -> bytes:
    return hashlib.sha256(repr(scope).encode()).digest()[:8]
