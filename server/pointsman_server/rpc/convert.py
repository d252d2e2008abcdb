"""Converts requests to commands of the core, and its results to responses; pages are in ``pages``."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_from_message, key_to_message, route_to_message
from pointsman_server.domain.errors import PointsmanError, ResponseTooLarge
from pointsman_server.domain.routes import RouteKey, Wanted
from pointsman_server.ports.bulk_store import Existing, Imported
from pointsman_server.ports.store import Intent
from pointsman_server.reads.answer import Answer
from pointsman_server.rpc.call import Call
from pointsman_server.rpc.statuses import status_of
from pointsman_server.writes.bulk_import import Import
from pointsman_server.writes.mutations import Activate, Create, Deactivate, Delete, Update

# gRPC clients refuse messages of more than 4 MiB by default. The rest is for what a response has besides its entries.
RESPONSE_BYTES = 4_000_000
# Tag and length of an entry of a repeated field, whose number is below 16 and whose size below 2 MiB.
ENTRY_FRAMING = 4


class MutationRequest(Protocol):
    """A request that mutates."""

    request_id: str
    reason: str

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802 - protobuf's name
        """Return the message as bytes."""


def intent(request: MutationRequest, call: Call) -> Intent:
    """Return who mutates and why. The fingerprint of the request covers its method and every field."""
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
    return Activate(key_from_message(request.key), request.expected_revision, request.exclusive)


def deactivate(request: pb.DeactivateRequest) -> Deactivate:
    return Deactivate(key_from_message(request.key), request.expected_revision)


def delete(request: pb.DeleteRequest) -> Delete:
    return Delete(key_from_message(request.key), request.expected_revision)


_EXISTING = {
    pb.EXISTING_ROUTES_UNSPECIFIED: Existing.UPDATE,
    pb.EXISTING_ROUTES_UPDATE: Existing.UPDATE,
    pb.EXISTING_ROUTES_SKIP: Existing.SKIP,
    pb.EXISTING_ROUTES_REFUSE: Existing.REFUSE,
}


def import_(request: pb.ImportRequest) -> Import:
    """Decode an Import; what is unset stays None. Equal labels become one object, to save memory."""
    known: dict[bytes, Mapping[str, str]] = {}

    def labels(message: pb.Labels) -> Mapping[str, str]:
        # A map is encoded in any order: at worst, equal labels become two objects.
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
    """Encode the answer for one key, or the status that Resolve would have ended with."""
    result = pb.BatchResolveResponse.Result(key=key_to_message(key))
    try:
        if isinstance(answer, PointsmanError):
            raise answer
        result.provenance.CopyFrom(provenance(answer))
        result.route.CopyFrom(route_to_message(answer.route()))
    except PointsmanError as error:
        result.status.CopyFrom(status_of(error))
    return result


def batch_response(results: Sequence[pb.BatchResolveResponse.Result]) -> pb.BatchResolveResponse:
    """Return the response with ``results``; those that would exceed RESPONSE_BYTES are replaced by a status."""
    response = pb.BatchResolveResponse(results=results)
    if response.ByteSize() <= RESPONSE_BYTES:
        return response
    refused = [_too_large(result) for result in results]
    total = sum(map(entry_bytes, refused))
    for place, result in enumerate(results):
        more = entry_bytes(result) - entry_bytes(refused[place])
        if total + more <= RESPONSE_BYTES:
            refused[place] = result
            total += more
    return pb.BatchResolveResponse(results=refused)


def _too_large(result: pb.BatchResolveResponse.Result) -> pb.BatchResolveResponse.Result:
    return pb.BatchResolveResponse.Result(key=result.key, status=status_of(ResponseTooLarge()))


def entry_bytes(message: Message) -> int:
    """Return the bytes that a message takes as an entry of a repeated field, at most."""
    return message.ByteSize() + ENTRY_FRAMING


def provenance(answer: Answer) -> pb.Provenance:
    """Encode where an answer came from."""
    return pb.Provenance(
        source=pb.Provenance.Source.Value(f"SOURCE_{answer.source}"),
        age=_duration(answer.age),
        as_of_revision=answer.snapshot.as_of,
        epoch=answer.snapshot.epoch,
    )


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
