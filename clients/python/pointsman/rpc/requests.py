"""From arguments to the messages of the API: the one place that builds requests, for both clients.

Every mutation gets a ``request_id``, a fresh one unless the caller gave one: that is what makes its retry safe.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pointsman.errors import FieldViolation, InvalidArgument
from pointsman.keys import RouteKey, as_key
from pointsman.memory import Floor
from pointsman.results import Consistency
from pointsman.v1 import propagation_pb2, route_pb2, route_service_pb2, usage_pb2

BATCH_LIMIT = 1000
"""The most keys that one BatchResolve takes."""

_CONSISTENCIES = {
    Consistency.MINIMIZE_LATENCY: route_service_pb2.CONSISTENCY_MINIMIZE_LATENCY,
    Consistency.FULLY_CONSISTENT: route_service_pb2.CONSISTENCY_FULLY_CONSISTENT,
}

M = TypeVar("M", bound=Message)
Moment = int | datetime
"""A moment of the history: a revision, or an aware time."""


def build(kind: Callable[..., M], **fields: object) -> M:
    """Build a message. Raises InvalidArgument naming the field that protobuf cannot hold, without its value."""
    try:
        return kind(**fields)
    except ValueError:
        raise unsendable(kind, fields) from None


def unsendable(kind: Callable[..., Message], fields: Mapping[str, object]) -> InvalidArgument:
    """Return the error of fields that ``kind`` does not take: a text that is no Unicode, or a number out of range."""
    for name, value in fields.items():
        try:
            kind(**{name: value})
        except ValueError:
            number = isinstance(value, int)
            return invalid(name, "is out of range" if number else "must be valid Unicode, without surrogates")
    raise AssertionError("every field can be sent")


def invalid(field: str, description: str) -> InvalidArgument:
    """Return the error of one field, named without its value."""
    violation = FieldViolation(field, description)
    return InvalidArgument(f"{field} {description}", reason="INVALID_FIELD", violations=[violation])


def resolve(key: RouteKey | str, floor: Floor, consistency: Consistency) -> route_service_pb2.ResolveRequest:
    """Build a Resolve."""
    return build(
        route_service_pb2.ResolveRequest,
        key=key_message(key),
        min_revision=floor.revision,
        epoch=epoch_of(floor),
        consistency=consistency_of(consistency),
    )


def batch_resolve(
    keys: Iterable[RouteKey | str], floor: Floor, consistency: Consistency
) -> Iterator[route_service_pb2.BatchResolveRequest]:
    """Build as many BatchResolve as the keys need, in their order."""
    every_key = [key_message(key) for key in keys]
    for start in range(0, len(every_key), BATCH_LIMIT):
        yield build(
            route_service_pb2.BatchResolveRequest,
            keys=every_key[start : start + BATCH_LIMIT],
            min_revision=floor.revision,
            epoch=epoch_of(floor),
            consistency=consistency_of(consistency),
        )


def create(
    key: RouteKey | str, url: str, labels: Mapping[str, str] | None, active: bool, request_id: str, reason: str
) -> route_service_pb2.CreateRequest:
    """Build a Create."""
    return build(
        route_service_pb2.CreateRequest,
        key=key_message(key),
        url=url,
        labels=labels,
        active=active,
        request_id=id_of(request_id),
        reason=reason,
    )


def update(
    key: RouteKey | str,
    url: str | None,
    labels: Mapping[str, str] | None,
    expected_revision: int,
    allow_missing: bool,
    request_id: str,
    reason: str,
) -> route_service_pb2.UpdateRequest:
    """Build an Update; None leaves the URL or the labels as they are, no labels removes them all."""
    return build(
        route_service_pb2.UpdateRequest,
        key=key_message(key),
        url=url,
        labels=None if labels is None else {"labels": labels},
        expected_revision=expected_revision,
        allow_missing=allow_missing,
        request_id=id_of(request_id),
        reason=reason,
    )


def activate(
    key: RouteKey | str, expected_revision: int, exclusive: bool, request_id: str, reason: str
) -> route_service_pb2.ActivateRequest:
    """Build an Activate."""
    return build(
        route_service_pb2.ActivateRequest,
        key=key_message(key),
        expected_revision=expected_revision,
        exclusive=exclusive,
        request_id=id_of(request_id),
        reason=reason,
    )


def deactivate(
    key: RouteKey | str, expected_revision: int, request_id: str, reason: str, if_unused_for: timedelta | None = None
) -> route_service_pb2.DeactivateRequest:
    """Build a Deactivate."""
    return build(
        route_service_pb2.DeactivateRequest,
        key=key_message(key),
        expected_revision=expected_revision,
        request_id=id_of(request_id),
        reason=reason,
        if_unused_for=duration("if_unused_for", if_unused_for),
    )


def delete(
    key: RouteKey | str, expected_revision: int, request_id: str, reason: str, if_unused_for: timedelta | None = None
) -> route_service_pb2.DeleteRequest:
    """Build a Delete."""
    return build(
        route_service_pb2.DeleteRequest,
        key=key_message(key),
        expected_revision=expected_revision,
        request_id=id_of(request_id),
        reason=reason,
        if_unused_for=duration("if_unused_for", if_unused_for),
    )


def get(key: RouteKey | str, as_of: Moment | None = None) -> route_service_pb2.GetRequest:
    """Build a Get."""
    return build(route_service_pb2.GetRequest, key=key_message(key), as_of=as_of_message(as_of))


def list_routes(
    tenant: str, service: str, env: str, active: bool | None, page_size: int, as_of: Moment | None = None
) -> route_service_pb2.ListRequest:
    """Build a List for the first page; empty and None mean any."""
    return build(
        route_service_pb2.ListRequest,
        tenant=tenant,
        service=service,
        env=env,
        active=active,
        page_size=page_size,
        as_of=as_of_message(as_of),
    )


def list_changes(
    tenant: str,
    service: str,
    env: str,
    version: str,
    after_revision: int,
    before_revision: int,
    actor: str,
    newest_first: bool,
    page_size: int,
    after_time: datetime | None = None,
    before_time: datetime | None = None,
) -> route_service_pb2.ListChangesRequest:
    """Build a ListChanges for the first page; empty, 0 and None mean any."""
    return build(
        route_service_pb2.ListChangesRequest,
        tenant=tenant,
        service=service,
        env=env,
        version=version,
        after_revision=after_revision,
        before_revision=before_revision,
        actor=actor,
        newest_first=newest_first,
        page_size=page_size,
        after_time=timestamp("after_time", after_time),
        before_time=timestamp("before_time", before_time),
    )


def get_propagation(revision: int, tenant: str, service: str, env: str) -> propagation_pb2.GetPropagationRequest:
    """Build a GetPropagation; empty means any."""
    return build(propagation_pb2.GetPropagationRequest, revision=revision, tenant=tenant, service=service, env=env)


def get_usage(key: RouteKey | str) -> usage_pb2.GetUsageRequest:
    """Build a GetUsage."""
    return build(usage_pb2.GetUsageRequest, key=key_message(key))


def key_message(key: RouteKey | str) -> route_pb2.RouteKey:
    """Build a key. Raises InvalidArgument."""
    name = as_key(key)
    return build(route_pb2.RouteKey, tenant=name.tenant, service=name.service, env=name.env, version=name.version)


def as_of_message(moment: Moment | None) -> route_pb2.AsOf | None:
    """Build a moment; None is now. Raises InvalidArgument for a time without a zone."""
    if moment is None:
        return None
    if isinstance(moment, datetime):
        return route_pb2.AsOf(time=timestamp("as_of", moment))
    try:
        return route_pb2.AsOf(revision=moment)
    except ValueError:
        raise invalid("as_of", "is out of range") from None


def timestamp(field: str, time: datetime | None) -> Timestamp | None:
    """Build a time. Raises InvalidArgument for one without a zone."""
    if time is None:
        return None
    if time.utcoffset() is None:
        raise invalid(field, "must have a time zone: datetime.now(UTC), for example")
    message = Timestamp()
    try:
        message.FromDatetime(time)
    except ValueError:
        raise invalid(field, "is out of range") from None
    return message


def duration(field: str, length: timedelta | None) -> Duration | None:
    """Build a length of time. Raises InvalidArgument unless it is positive."""
    if length is None:
        return None
    if length <= timedelta():
        raise invalid(field, "must be longer than 0")
    message = Duration()
    try:
        message.FromTimedelta(length)
    except ValueError:
        raise invalid(field, "is out of range") from None
    return message


def consistency_of(consistency: Consistency) -> route_service_pb2.Consistency.ValueType:
    """Return the consistency as the API names it. Raises InvalidArgument."""
    try:
        return _CONSISTENCIES[Consistency(consistency)]
    except ValueError:
        raise invalid("consistency", f"must be one of {', '.join(Consistency)}") from None


def epoch_of(floor: Floor) -> str:
    """Return the epoch of a floor; empty if there is none to count."""
    return floor.epoch if floor.revision else ""


def id_of(request_id: str) -> str:
    """Return the id of a mutation: that of the caller, or a fresh one."""
    return request_id or uuid4().hex
