"""What comes in from the topic: a change, or not."""

from google.protobuf.message import DecodeError

from pointsman.v1 import route_pb2
from pointsman_server.domain.codec import change_from_message
from pointsman_server.domain.errors import InvalidField
from pointsman_server.domain.routes import Change, ChangeKind, RouteKey


class NotAChange(ValueError):
    """The message is no RouteChange that we could have published. The text says why, and quotes nothing of it."""


def change_from_bytes(payload: bytes) -> Change:
    """Decode the value of a message. Raises NotAChange, and nothing else, whatever the bytes are."""
    try:
        change = change_from_message(route_pb2.RouteChange.FromString(payload))
        RouteKey.parse(str(change.key))
        _check_epoch(change.epoch)
        _check_routes(change)
    except DecodeError as error:
        raise NotAChange("no protobuf RouteChange") from error
    except InvalidField as error:
        raise NotAChange("a RouteChange with a malformed key") from error
    except (ValueError, OverflowError) as error:
        raise NotAChange("a RouteChange without a valid revision, kind, time, epoch or route") from error
    return change


def _check_routes(change: Change) -> None:
    # What is cached of it would be answered under its key: the route of another one, or none where there is one.
    if (change.after is None) != (change.kind is ChangeKind.DELETED):
        raise ValueError("only what is deleted leaves no route")
    if change.after and change.after.revision != change.revision:
        raise ValueError("a route of another revision")
    if any(route and route.key != change.key for route in (change.before, change.after)):
        raise ValueError("a route of another key")


def _check_epoch(epoch: str) -> None:
    # No database takes it, so whoever keeps changes by their epoch would try for ever.
    if "\0" in epoch:
        raise ValueError("an epoch with a NUL")
