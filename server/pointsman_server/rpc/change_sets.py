"""Converts requests for change sets to commands, and the changes of their outcomes to messages."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import change_to_message
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.routes import Change
from pointsman_server.ports.store import ChangeQuery, Outcome
from pointsman_server.rpc import convert
from pointsman_server.rpc.convert import RESPONSE_BYTES, entry_bytes
from pointsman_server.runtime.fair_share import SLICE, FairShare
from pointsman_server.writes.commit import Commit
from pointsman_server.writes.mutations import Command

# The most changes of a response. More do not fit: each has a route, and is larger than 400 bytes.
MOST_CHANGES = 10_000


def commit(request: pb.CommitRequest, refusals: Mapping[int, PointsmanError | None]) -> Commit:
    """Decode a Commit; ``refusals`` are those of its deactivations and deletions, by index."""
    commands: list[Command] = []
    for number, mutation in enumerate(request.mutations):
        field = mutation.WhichOneof("mutation") or ""
        message = getattr(mutation, field)
        decode = _DECODERS.get(field)
        if decode is None:
            decode = partial(_CONDITIONAL[field], refusal=refusals.get(number))
        commands.append(decode(message))
    return Commit(commands, request.dry_run)


_DECODERS: Mapping[str, Callable[..., Command]] = {
    "create": convert.create,
    "update": convert.update,
    "activate": convert.activate,
    "set_traffic": convert.set_traffic,
    "delete_traffic": convert.delete_traffic,
}
_CONDITIONAL: Mapping[str, Callable[..., Command]] = {
    "deactivate": convert.deactivate,
    "delete": convert.delete,
}


def conditional(request: pb.CommitRequest) -> dict[int, pb.DeactivateRequest | pb.DeleteRequest]:
    """Return the mutations with ``if_unused_for``, by index."""
    found: dict[int, pb.DeactivateRequest | pb.DeleteRequest] = {}
    for number, mutation in enumerate(request.mutations):
        field = mutation.WhichOneof("mutation") or ""
        if field in _CONDITIONAL:
            message = getattr(mutation, field)
            if message.HasField("if_unused_for"):
                found[number] = message
    return found


def query_of(outcome: Outcome) -> ChangeQuery:
    """Return the query for the changes of an outcome: for a replay, which has none of them."""
    first = outcome.change_set_id
    return ChangeQuery(
        after_revision=first - 1,
        before_revision=first + outcome.change_count,
        limit=min(outcome.change_count, MOST_CHANGES),
    )


async def fitting(
    changes: Sequence[Change], fair_share: FairShare, most_bytes: int = RESPONSE_BYTES
) -> list[route_pb2.RouteChange]:
    """Encode as many of the first ``changes`` as fit into ``most_bytes`` of a response."""
    messages: list[route_pb2.RouteChange] = []
    for start in range(0, min(len(changes), MOST_CHANGES), SLICE):
        await fair_share.take()
        for change in changes[start : start + SLICE]:
            message = change_to_message(change)
            most_bytes -= entry_bytes(message)
            if most_bytes < 0:
                return messages
            messages.append(message)
    return messages


async def commit_response(outcome: Outcome, changes: Sequence[Change], fair_share: FairShare) -> pb.CommitResponse:
    """Encode an outcome; ``changes`` are the first of its changes."""
    response = pb.CommitResponse(
        mutations=[
            pb.CommittedMutation(first_revision=step.first_revision, change_count=step.change_count)
            for step in outcome.steps
        ],
        change_set_id=outcome.change_set_id,
        revision=outcome.revision,
    )
    messages = await fitting(changes, fair_share, RESPONSE_BYTES - response.ByteSize())
    response.changes.extend(messages)
    response.omitted_change_count = outcome.change_count - len(messages)
    return response


async def revert_response(outcome: Outcome, changes: Sequence[Change], fair_share: FairShare) -> pb.RevertResponse:
    """Encode an outcome; ``changes`` are the first of its changes."""
    response = pb.RevertResponse(change_set_id=outcome.change_set_id, revision=outcome.revision)
    messages = await fitting(changes, fair_share, RESPONSE_BYTES - response.ByteSize())
    response.changes.extend(messages)
    response.omitted_change_count = outcome.change_count - len(messages)
    return response
