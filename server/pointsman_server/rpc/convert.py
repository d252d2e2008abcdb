"""Requests to what the core understands, and its answers to responses."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import change_to_message, key_from_message, key_to_message, route_to_message
from pointsman_server.domain.errors import FieldViolation, InvalidField, PointsmanError
from pointsman_server.domain.routes import Change, Route, RouteKey, Wanted
from pointsman_server.ports.bulk_store import Existing, Imported
from pointsman_server.ports.store import ChangeQuery, Intent, RouteQuery
from pointsman_server.reads.answer import Answer
from pointsman_server.rpc.call import Call
from pointsman_server.rpc.statuses import status_of
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.writes.bulk_import import Import
from pointsman_server.writes.mutations import Activate, Create, Deactivate, Delete, Update

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000
LARGEST_REVISION = 2**63 - 1

T = TypeVar("T")


class Mutation(Protocol):
    """What every mutating request has."""

    request_id: str
    reason: str

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802 - protobuf's name
        """Encode."""


def intent(request: Mutation, call: Call) -> Intent:
    """Say who mutates and why. The fingerprint covers the method and the whole request."""
    name = type(request).__name__.encode()
    digest = hashlib.sha256(name + b"\0" + request.SerializeToString(deterministic=True)).digest()
    return Intent(call.actor, request.reason, request.request_id, digest, call.traceparent)


def create(request: pb.CreateRequest) -> Create:
    """Decode a Create; ``active`` defaults to true."""
    active = request.active if request.HasField("active") else True
    return Create(key_from_message(request.key), request.url, dict(request.labels), active)


def update(request: pb.UpdateRequest) -> Update:
    """Decode an Update; what is unset stays None."""
    return Update(
        key_from_message(request.key),
        request.url if request.HasField("url") else None,
        dict(request.labels.labels) if request.HasField("labels") else None,
        request.expected_revision,
        request.allow_missing,
    )


def activate(request: pb.ActivateRequest) -> Activate:
    """Decode an Activate."""
    return Activate(key_from_message(request.key), request.expected_revision, request.exclusive)


def deactivate(request: pb.DeactivateRequest) -> Deactivate:
    """Decode a Deactivate."""
    return Deactivate(key_from_message(request.key), request.expected_revision)


def delete(request: pb.DeleteRequest) -> Delete:
    """Decode a Delete."""
    return Delete(key_from_message(request.key), request.expected_revision)


_EXISTING = {
    pb.EXISTING_ROUTES_UNSPECIFIED: Existing.UPDATE,
    pb.EXISTING_ROUTES_UPDATE: Existing.UPDATE,
    pb.EXISTING_ROUTES_SKIP: Existing.SKIP,
    pb.EXISTING_ROUTES_REFUSE: Existing.REFUSE,
}


def import_(request: pb.ImportRequest) -> Import:
    """Decode an Import; what is unset stays None. Labels that are alike are one object: they mostly are."""
    known: dict[bytes, Mapping[str, str]] = {}

    def labels(message: pb.Labels) -> Mapping[str, str]:
        # The order of a map is any, which costs no more than another object.
        encoded = message.SerializeToString()
        found = known.get(encoded)
        if found is None:
            found = known[encoded] = dict(message.labels)
        return found

    wanted = [
        Wanted(
            key_from_message(route.key),
            route.url,
            labels(route.labels) if route.HasField("labels") else None,
            route.active if route.HasField("active") else None,
            route.expected_revision,
        )
        for route in request.routes
    ]
    return Import(wanted, _EXISTING[request.existing])


def import_response(imported: Imported) -> pb.ImportResponse:
    """Encode what an import did."""
    return pb.ImportResponse(
        created=imported.created,
        updated=imported.updated,
        unchanged=imported.unchanged,
        first_revision=imported.first,
        last_revision=imported.last,
        revision=imported.revision,
    )


def resolve_response(answer: Answer) -> pb.ResolveResponse:
    """Encode an answer. Raises RouteNotFound or RouteInactive."""
    return pb.ResolveResponse(route=route_to_message(answer.route()), provenance=provenance(answer))


def batch_result(key: RouteKey, answer: Answer | PointsmanError) -> pb.BatchResolveResponse.Result:
    """Encode the answer of one key, or the status in its place."""
    result = pb.BatchResolveResponse.Result(key=key_to_message(key))
    try:
        if isinstance(answer, PointsmanError):
            raise answer
        result.provenance.CopyFrom(provenance(answer))
        result.route.CopyFrom(route_to_message(answer.route()))
    except PointsmanError as error:
        result.status.CopyFrom(status_of(error))
    return result


def provenance(answer: Answer) -> pb.Provenance:
    """Encode where an answer came from."""
    return pb.Provenance(
        source=pb.Provenance.Source.Value(f"SOURCE_{answer.source}"),
        age=_duration(answer.age),
        as_of_revision=answer.snapshot.as_of,
        epoch=answer.snapshot.epoch,
    )


def route_query(request: pb.ListRequest) -> RouteQuery:
    """Decode a List. Raises InvalidField for a page token that is not ours or of another query."""
    after = _read_token(request.page_token, _route_scope(request), RouteKey.parse)
    return RouteQuery(
        tenant=request.tenant,
        service=request.service,
        env=request.env,
        active=request.active if request.HasField("active") else None,
        after=after,
        limit=_page_size(request.page_size) + 1,
    )


async def list_response(request: pb.ListRequest, routes: Sequence[Route], fair_share: FairShare) -> pb.ListResponse:
    """Encode a page; one route more than fits says that there is another page."""
    size = _page_size(request.page_size)
    token = _token(str(routes[size - 1].key), _route_scope(request)) if len(routes) > size else ""
    return pb.ListResponse(routes=await fair_share.map(route_to_message, routes[:size]), next_page_token=token)


def change_query(request: pb.ListChangesRequest) -> ChangeQuery:
    """Decode a ListChanges. Raises InvalidField for a page token that is not ours or of another query."""
    last = _read_token(request.page_token, _change_scope(request), _read_revision)
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
        limit=_page_size(request.page_size) + 1,
    )


async def list_changes_response(
    request: pb.ListChangesRequest, changes: Sequence[Change], fair_share: FairShare
) -> pb.ListChangesResponse:
    """Encode a page; one change more than fits says that there is another page."""
    size = _page_size(request.page_size)
    token = _token(str(changes[size - 1].revision), _change_scope(request)) if len(changes) > size else ""
    return pb.ListChangesResponse(
        changes=await fair_share.map(change_to_message, changes[:size]), next_page_token=token
    )


def _route_scope(request: pb.ListRequest) -> tuple[object, ...]:
    active = request.active if request.HasField("active") else None
    return ("routes", request.tenant, request.service, request.env, active)


def _change_scope(request: pb.ListChangesRequest) -> tuple[object, ...]:
    parts = ("changes", request.tenant, request.service, request.env, request.version, request.actor)
    return (*parts, request.after_revision, request.before_revision, request.newest_first)


def _page_size(asked: int) -> int:
    return min(asked or DEFAULT_PAGE, LARGEST_PAGE)


def _token(position: str, scope: tuple[object, ...]) -> str:
    """Make an opaque page token: where the page ended, and a digest of the query that it belongs to (AIP-158)."""
    return base64.urlsafe_b64encode(_scope_digest(scope) + position.encode()).decode().rstrip("=")


def _read_token(token: str, scope: tuple[object, ...], read: Callable[[str], T]) -> T | None:
    """Read the position of a token, if there is one. Its digest is no secret, so the position may be anything."""
    if not token:
        return None
    with suppress(ValueError, InvalidField):
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        if raw[:8] == _scope_digest(scope):
            return read(raw[8:].decode("ascii"))
    rule = "must be the next_page_token of a response, with every other field but page_size unchanged"
    raise InvalidField([FieldViolation("page_token", rule)])


def _read_revision(text: str) -> int:
    revision = int(text) if text.isdecimal() else 0
    if not 0 < revision <= LARGEST_REVISION:
        raise ValueError("not a revision")
    return revision


def _scope_digest(scope: tuple[object, ...]) -> bytes:
    return hashlib.sha256(repr(scope).encode()).digest()[:8]


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
