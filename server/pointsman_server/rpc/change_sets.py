"""Converts requests for change sets to commands, and the changes of their outcomes to messages."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import fill_change
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


async def add_fitting(
    response: pb.CommitResponse | pb.RevertResponse, changes: Sequence[Change], change_count: int, fair_share: FairShare
) -> None:
    """Add the first ``changes`` to a response that is complete but for them, as many as fit, and count the others.

    ``changes`` are the first of ``change_count``.
    """
    added, free = response.changes, RESPONSE_BYTES - response.ByteSize()
    for start in range(0, min(len(changes), MOST_CHANGES), SLICE):
        await fair_share.take()
        for change in changes[start : start + SLICE]:
            message = added.add()
            fill_change(message, change)
            free -= entry_bytes(message)
            if free < 0:
                del added[-1]
                break
        if free < 0:
            break
    response.omitted_change_count = change_count - len(added)


async def commit_response(outcome: Outcome, changes: Sequence[Change], fair_share: FairShare) -> pb.CommitResponse:
    """Encode an outcome; ``changes`` are the first of its changes."""
    response = pb.CommitResponse(change_set_id=outcome.change_set_id, revision=outcome.revision)
    for step in outcome.steps:
        response.mutations.add(first_revision=step.first_revision, change_count=step.change_count)
    await add_fitting(response, changes, outcome.change_count, fair_share)
    return response


async def revert_response(outcome: Outcome, changes: Sequence[Change], fair_share: FairShare) -> pb.RevertResponse:
    """Encode an outcome; ``changes`` are the first of its changes."""
    response = pb.RevertResponse(change_set_id=outcome.change_set_id, revision=outcome.revision)
    await add_fitting(response, changes, outcome.change_count, fair_share)
    return response
