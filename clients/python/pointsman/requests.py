"""From arguments to the messages of the API: the one place that builds requests, for both clients.

Every mutation gets a ``request_id``, a fresh one unless the caller gave one: that is what makes its retry safe.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar
from uuid import uuid4

from pointsman.errors import InvalidArgument
from pointsman.keys import RouteKey, as_key
from pointsman.memory import Floor
from pointsman.results import Consistency
from pointsman.v1 import route_pb2, route_service_pb2

BATCH_LIMIT = 1000
"""The most keys that one BatchResolve takes."""

_CONSISTENCIES = {
    Consistency.MINIMIZE_LATENCY: route_service_pb2.CONSISTENCY_MINIMIZE_LATENCY,
    Consistency.FULLY_CONSISTENT: route_service_pb2.CONSISTENCY_FULLY_CONSISTENT,
}

P = ParamSpec("P")
R = TypeVar("R")


def _representable(build: Callable[P, R]) -> Callable[P, R]:
    """Make ``build`` raise InvalidArgument for what protobuf cannot hold, whose own errors quote it."""

    @wraps(build)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return build(*args, **kwargs)
        except InvalidArgument:
            raise
        except ValueError as error:
            message = "a text is no valid Unicode, or a number is too large"
            raise InvalidArgument(message, reason="INVALID_FIELD") from error

    return checked


@_representable
def resolve(key: RouteKey | str, floor: Floor, consistency: Consistency) -> route_service_pb2.ResolveRequest:
    """Build a Resolve."""
    return route_service_pb2.ResolveRequest(
        key=_key(key),
        min_revision=floor.revision,
        epoch=_epoch(floor),
        consistency=_CONSISTENCIES[Consistency(consistency)],
    )


def batch_resolve(
    keys: Iterable[RouteKey | str], floor: Floor, consistency: Consistency
) -> Iterator[route_service_pb2.BatchResolveRequest]:
    """Build as many BatchResolve as the keys need, in their order."""
    every_key = [_key(key) for key in keys]
    for start in range(0, len(every_key), BATCH_LIMIT):
        yield route_service_pb2.BatchResolveRequest(
            keys=every_key[start : start + BATCH_LIMIT],
            min_revision=floor.revision,
            epoch=_epoch(floor),
            consistency=_CONSISTENCIES[Consistency(consistency)],
        )


@_representable
def create(
    key: RouteKey | str, url: str, labels: Mapping[str, str] | None, active: bool, request_id: str, reason: str
) -> route_service_pb2.CreateRequest:
    """Build a Create."""
    return route_service_pb2.CreateRequest(
        key=_key(key), url=url, labels=labels, active=active, request_id=_id(request_id), reason=reason
    )


@_representable
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
    return route_service_pb2.UpdateRequest(
        key=_key(key),
        url=url,
        labels=None if labels is None else route_service_pb2.Labels(labels=labels),
        expected_revision=expected_revision,
        allow_missing=allow_missing,
        request_id=_id(request_id),
        reason=reason,
    )


@_representable
def activate(
    key: RouteKey | str, expected_revision: int, exclusive: bool, request_id: str, reason: str
) -> route_service_pb2.ActivateRequest:
    """Build an Activate."""
    return route_service_pb2.ActivateRequest(
        key=_key(key),
        expected_revision=expected_revision,
        exclusive=exclusive,
        request_id=_id(request_id),
        reason=reason,
    )


@_representable
def deactivate(
    key: RouteKey | str, expected_revision: int, request_id: str, reason: str
) -> route_service_pb2.DeactivateRequest:
    """Build a Deactivate."""
    return route_service_pb2.DeactivateRequest(
        key=_key(key), expected_revision=expected_revision, request_id=_id(request_id), reason=reason
    )


@_representable
def delete(
    key: RouteKey | str, expected_revision: int, request_id: str, reason: str
) -> route_service_pb2.DeleteRequest:
    """Build a Delete."""
    return route_service_pb2.DeleteRequest(
        key=_key(key), expected_revision=expected_revision, request_id=_id(request_id), reason=reason
    )


@_representable
def get(key: RouteKey | str) -> route_service_pb2.GetRequest:
    """Build a Get."""
    return route_service_pb2.GetRequest(key=_key(key))


@_representable
def list_routes(
    tenant: str, service: str, env: str, active: bool | None, page_size: int
) -> route_service_pb2.ListRequest:
    """Build a List for the first page; empty and None mean any."""
    return route_service_pb2.ListRequest(tenant=tenant, service=service, env=env, active=active, page_size=page_size)


@_representable
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
) -> route_service_pb2.ListChangesRequest:
    """Build a ListChanges for the first page; empty and 0 mean any."""
    return route_service_pb2.ListChangesRequest(
        tenant=tenant,
        service=service,
        env=env,
        version=version,
        after_revision=after_revision,
        before_revision=before_revision,
        actor=actor,
        newest_first=newest_first,
        page_size=page_size,
    )


def _key(key: RouteKey | str) -> route_pb2.RouteKey:
    name = as_key(key)
    return route_pb2.RouteKey(tenant=name.tenant, service=name.service, env=name.env, version=name.version)


def _epoch(floor: Floor) -> str:
    return floor.epoch if floor.revision else ""


def _id(request_id: str) -> str:
    return request_id or uuid4().hex
