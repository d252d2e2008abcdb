"""Decodes and validates the messages of the topic."""

from google.protobuf.message import DecodeError

from pointsman.rules import KEY_PART
from pointsman.v1 import route_pb2
from pointsman_server.domain.codec import change_from_message
from pointsman_server.domain.routes import Change, ChangeKind

_DELETIONS = frozenset({ChangeKind.DELETED, ChangeKind.TRAFFIC_DELETED})


class NotAChange(ValueError):
    """The message is not a valid RouteChange. The text says why, and never quotes the message."""


def change_from_bytes(payload: bytes) -> Change:
    """Decode the value of a message. Raises NotAChange and no other error."""
    try:
        change = change_from_message(route_pb2.RouteChange.FromString(payload))
        _check_epoch(change.epoch)
        _check_values(change)
    except DecodeError as error:
        raise NotAChange("no protobuf RouteChange") from error
    except (ValueError, OverflowError) as error:
        raise NotAChange("a RouteChange without a valid revision, kind, time, epoch, route or traffic") from error
    if not all(map(KEY_PART.fullmatch, change.key[:3] if change.kind.of_traffic else change.key)):
        raise NotAChange("a RouteChange with a malformed key")
    return change


def _check_values(change: Change) -> None:
    # They are cached under the key of the change, so they must be the route, or the traffic, of that key.
    routes, traffic = (change.before, change.after), (change.traffic_before, change.traffic_after)
    before, after = traffic if change.kind.of_traffic else routes
    if any(routes if change.kind.of_traffic else traffic):
        raise ValueError("traffic in the change of a route, or a route in that of traffic")
    if (after is None) != (change.kind in _DELETIONS):
        raise ValueError("a deletion that leaves something, or another change that leaves nothing")
    if after and after.revision != change.revision:
        raise ValueError("a value of another revision")
    if change.kind.of_traffic and change.key.version:
        raise ValueError("traffic of one version")
    if any(value and value.key != change.key for value in (before, after)):
        raise ValueError("a value of another key")


def _check_epoch(epoch: str) -> None:
    # PostgreSQL rejects it, and the audit consumer would retry without end.
    if "\0" in epoch:
        raise ValueError("an epoch with a NUL")
