"""Converts requests to commands, and results to responses. Those of List and ListChanges are in ``pages``."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import traffic_methods_pb2
from pointsman_server.domain.codec import key_from_message, key_to_message, route_to_message
from pointsman_server.domain.errors import PointsmanError, ResponseTooLarge
from pointsman_server.domain.routes import RouteKey, Wanted
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.ports.bulk_store import Existing, Imported
from pointsman_server.ports.store import Intent
from pointsman_server.reads.answer import Answer
from pointsman_server.rpc.call import Call
from pointsman_server.rpc.statuses import status_of
from pointsman_server.writes.bulk_import import Import
from pointsman_server.writes.mutations import Activate, Create, Deactivate, Delete, DeleteTraffic, SetTraffic, Update

# The most bytes of the entries of a response. By default gRPC clients reject messages of more than 4 MiB; the
# difference is for the other fields.
RESPONSE_BYTES = 4_000_000
# Bytes of tag and length of an entry of a repeated field, with a field number below 16 and a size below 2 MiB.
ENTRY_FRAMING = 4


class MutationRequest(Protocol):
    """The fields that the requests of all mutations have."""

    request_id: str
    reason: str

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...  # noqa: N802 - protobuf's name


def intent(request: MutationRequest, call: Call) -> Intent:
    """Return the caller, reason and request id of a mutation, with a digest of its method and every field."""
    name = type(request).__name__.encode()
    digest = hashlib.sha256(name + b"\0" + request.SerializeToString(deterministic=True)).digest()
    return Intent(call.actor, request.reason, request.request_id, digest, *call.trace, call.request_id)


def create(request: pb.CreateRequest) -> Create:
    """Decode a Create; ``active`` defaults to true."""
    active = request.active if request.HasField("active") else True
    return Create(key_from_message(request.key), request.url, dict(request.labels), active)


def update(request: pb.UpdateRequest) -> Update:
    """Decode an Update; unset fields are None."""
    return Update(
        key_from_message(request.key),
        request.url if request.HasField("url") else None,
        dict(request.labels.labels) if request.HasField("labels") else None,
        request.expected_revision,
        request.allow_missing,
    )


def activate(request: pb.ActivateRequest) -> Activate:
    return Activate(key_from_message(request.key), request.expected_revision, request.exclusive)


def deactivate(request: pb.DeactivateRequest, refusal: PointsmanError | None = None) -> Deactivate:
    return Deactivate(key_from_message(request.key), request.expected_revision, refusal)


def delete(request: pb.DeleteRequest, refusal: PointsmanError | None = None) -> Delete:
    return Delete(key_from_message(request.key), request.expected_revision, refusal)


def set_traffic(request: traffic_methods_pb2.SetTrafficRequest) -> SetTraffic:
    division = Division(tuple(Target(each.version, each.weight) for each in request.targets), tuple(request.fallbacks))
    return SetTraffic(family_from_message(request), division, request.expected_revision)


def delete_traffic(request: traffic_methods_pb2.DeleteTrafficRequest) -> DeleteTraffic:
    return DeleteTraffic(family_from_message(request), request.expected_revision)


class OfFamily(Protocol):
    """The fields that the requests about a family have."""

    tenant: str
    service: str
    env: str


def family_from_message(message: OfFamily) -> RouteKey:
    """Return the key of the family that a request is about."""
    return RouteKey(message.tenant, message.service, message.env, "")


_EXISTING = {
    pb.EXISTING_ROUTES_UNSPECIFIED: Existing.UPDATE,
    pb.EXISTING_ROUTES_UPDATE: Existing.UPDATE,
    pb.EXISTING_ROUTES_SKIP: Existing.SKIP,
    pb.EXISTING_ROUTES_REFUSE: Existing.REFUSE,
}


def import_(request: pb.ImportRequest) -> Import:
    """Decode an Import; unset fields are None. Equal labels become one object, to save memory."""
    known: dict[bytes, Mapping[str, str]] = {}

    def labels(message: pb.Labels) -> Mapping[str, str]:
        # Protobuf does not define the order of a map's entries: at worst, equal labels become two objects.
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
    """Return the response, with results that fit."""
    return within_limit(lambda some: pb.BatchResolveResponse(results=some), results, _too_large)


def _too_large(result: pb.BatchResolveResponse.Result) -> pb.BatchResolveResponse.Result:
    return pb.BatchResolveResponse.Result(key=result.key, status=status_of(ResponseTooLarge()))


R = TypeVar("R", bound=Message)
B = TypeVar("B", bound=Message)


def within_limit(respond: Callable[[Sequence[R]], B], results: Sequence[R], too_large: Callable[[R], R]) -> B:
    """Return the response that ``respond`` makes of the results or, if that is too large, of those that fit."""
    response = respond(results)
    return response if response.ByteSize() <= RESPONSE_BYTES else respond(_fitting(results, too_large))


def _fitting(results: Sequence[R], too_large: Callable[[R], R]) -> Sequence[R]:
    """Replace results by what ``too_large`` returns for them, a status, until all fit into RESPONSE_BYTES together."""
    refused = [too_large(result) for result in results]
    total = sum(map(entry_bytes, refused))
    for place, result in enumerate(results):
        more = entry_bytes(result) - entry_bytes(refused[place])
        if total + more <= RESPONSE_BYTES:
            refused[place] = result
            total += more
    return refused


def entry_bytes(message: Message) -> int:
    """Return the most bytes that a message takes as an entry of a repeated field."""
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
