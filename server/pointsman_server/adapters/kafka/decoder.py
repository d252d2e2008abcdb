"""Decodes and validates the messages of the topic."""

from google.protobuf.message import DecodeError

from pointsman.rules import KEY_PART
from pointsman.v1 import route_pb2
from pointsman_server.domain.codec import change_from_message
from pointsman_server.domain.routes import Change, ChangeKind


class NotAChange(ValueError):
    """The message is not a valid RouteChange. The text says why, and never quotes the message."""


def change_from_bytes(payload: bytes) -> Change:
    """Decode the value of a message. Raises NotAChange and no other error."""
    try:
        change = change_from_message(route_pb2.RouteChange.FromString(payload))
        _check_epoch(change.epoch)
        _check_routes(change)
    except DecodeError as error:
        raise NotAChange("no protobuf RouteChange") from error
    except (ValueError, OverflowError) as error:
        raise NotAChange("a RouteChange without a valid revision, kind, time, epoch or route") from error
    if not all(map(KEY_PART.fullmatch, change.key)):
        raise NotAChange("a RouteChange with a malformed key")
    return change


def _check_routes(change: Change) -> None:
    # The route is cached under the key of the change, so it must be the route of that key.
    if (change.after is None) != (change.kind is ChangeKind.DELETED):
        raise ValueError("a deletion with a route, or another change without one")
    if change.after and change.after.revision != change.revision:
        raise ValueError("a route of another revision")
    if any(route and route.key != change.key for route in (change.before, change.after)):
        raise ValueError("a route of another key")


def _check_epoch(epoch: str) -> None:
    # PostgreSQL rejects it, and the audit consumer would retry without end.
    if "\0" in epoch:
        raise ValueError("an epoch with a NUL")
