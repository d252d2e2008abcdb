"""The domain as rows and JSON, and back."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pointsman_server.domain.routes import Change, ChangeKind, Route, RouteKey

ROUTE_COLUMNS = "tenant, service, env, version, url, active, labels, revision, create_time, update_time"
CHANGE_COLUMNS = (
    # As text: the driver takes five times as long to make a UUID of it, and text again.
    "revision, event_id::text, kind, tenant, service, env, version, before, after, "
    "actor, reason, request_id, occurred_at, epoch::text, traceparent, change_set_end, tracestate"
)


def route_from_row(row: Sequence[Any]) -> Route:
    """Read the columns of ``ROUTE_COLUMNS``."""
    tenant, service, env, version, *rest = row
    return route_of(RouteKey(tenant, service, env, version), *rest)


def route_of(
    key: RouteKey,
    url: str,
    active: bool,
    labels: Mapping[str, str],
    revision: int,
    create_time: datetime,
    update_time: datetime,
) -> Route:
    """Read the columns of ``ROUTE_COLUMNS`` behind the key."""
    return Route(key, url, active, labels, revision, _utc(create_time), _utc(update_time))


def change_from_row(row: Sequence[Any]) -> Change:
    """Read the columns of ``CHANGE_COLUMNS``."""
    revision, event_id, kind, tenant, service, env, version, before, after, *rest = row
    actor, reason, request_id, occurred_at, epoch, traceparent, change_set_end, tracestate = rest
    key = RouteKey(tenant, service, env, version)
    return Change(
        revision=revision,
        event_id=event_id,
        kind=ChangeKind(kind),
        key=key,
        before=route_from_json(key, before),
        after=route_from_json(key, after),
        actor=actor,
        reason=reason,
        request_id=request_id,
        occur_time=_utc(occurred_at),
        epoch=epoch,
        traceparent=traceparent,
        change_set_end=change_set_end,
        tracestate=tracestate,
    )


def route_to_json(route: Route | None) -> dict[str, Any] | None:
    """Write a route without its key, in the form that ``route_changes`` keeps."""
    if route is None:
        return None
    return {
        "url": route.url,
        "active": route.active,
        "labels": dict(route.labels),
        "revision": route.revision,
        "create_time": route.create_time.isoformat(),
        "update_time": route.update_time.isoformat(),
    }


def route_from_json(key: RouteKey, value: Mapping[str, Any] | None) -> Route | None:
    """Read what ``route_to_json`` or the SQL of ``record`` wrote."""
    if value is None:
        return None
    return Route(
        key=key,
        url=value["url"],
        active=value["active"],
        labels=value["labels"],
        revision=value["revision"],
        create_time=_utc(datetime.fromisoformat(value["create_time"])),
        update_time=_utc(datetime.fromisoformat(value["update_time"])),
    )


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
