"""The domain as rows and JSON, and back."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pointsman_server.domain.routes import Change, ChangeKind, Route, RouteKey, Traffic
from pointsman_server.domain.traffic import Division, Slice, Target
from pointsman_server.ports.store import Outcome, Step

ROUTE_COLUMNS = "tenant, service, env, version, url, active, labels, revision, create_time, update_time"
CHANGE_COLUMNS = (
    # As text: the driver takes five times as long to make a UUID of it, and text again.
    "revision, event_id::text, kind, tenant, service, env, version, before, after, "
    "actor, reason, request_id, occurred_at, epoch::text, traceparent, change_set_end, tracestate, "
    "change_set_id, change_set_size"
)
TRAFFIC_COLUMNS = "tenant, service, env, targets, fallbacks, slices, revision, create_time, update_time"


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
    actor, reason, request_id, occurred_at, epoch, traceparent, change_set_end, tracestate, set_id, set_size = rest
    key = RouteKey(tenant, service, env, version)
    return Change(
        revision=revision,
        event_id=event_id,
        kind=ChangeKind(kind),
        key=key,
        before=route_from_json(key, before) if version else None,
        after=route_from_json(key, after) if version else None,
        actor=actor,
        reason=reason,
        request_id=request_id,
        occur_time=_utc(occurred_at),
        epoch=epoch,
        traceparent=traceparent,
        change_set_end=change_set_end,
        tracestate=tracestate,
        change_set_id=set_id,
        change_set_size=set_size,
        traffic_before=None if version else traffic_from_json(key, before),
        traffic_after=None if version else traffic_from_json(key, after),
    )


def traffic_from_row(row: Sequence[Any]) -> Traffic:
    """Read the columns of ``TRAFFIC_COLUMNS``."""
    tenant, service, env, *rest = row
    return traffic_of(RouteKey(tenant, service, env, ""), *rest)


def traffic_of(
    key: RouteKey,
    targets: Sequence[Mapping[str, Any]],
    fallbacks: Sequence[str],
    slices: Sequence[Sequence[Any]],
    revision: int,
    create_time: datetime,
    update_time: datetime,
) -> Traffic:
    """Read the columns of ``TRAFFIC_COLUMNS`` behind the key, that of a family."""
    return Traffic(
        key=key,
        division=Division(tuple(Target(each["version"], each["weight"]) for each in targets), tuple(fallbacks)),
        slices=tuple(Slice(version, size) for version, size in slices),
        revision=revision,
        create_time=_utc(create_time),
        update_time=_utc(update_time),
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


def traffic_to_json(traffic: Traffic | None) -> dict[str, Any] | None:
    """Write traffic without its key, in the form that ``route_changes`` keeps; its parts are those of ``traffic``."""
    if traffic is None:
        return None
    return {
        "targets": [target._asdict() for target in traffic.division.targets],
        "fallbacks": list(traffic.division.fallbacks),
        "slices": [list(piece) for piece in traffic.slices],
        "revision": traffic.revision,
        "create_time": traffic.create_time.isoformat(),
        "update_time": traffic.update_time.isoformat(),
    }


def traffic_from_json(key: RouteKey, value: Mapping[str, Any] | None) -> Traffic | None:
    """Read what ``traffic_to_json`` wrote; ``key`` is that of the family."""
    if value is None:
        return None
    born, changed = (datetime.fromisoformat(value[name]) for name in ("create_time", "update_time"))
    return traffic_of(key, value["targets"], value["fallbacks"], value["slices"], value["revision"], born, changed)


def outcome_to_json(outcome: Outcome) -> dict[str, Any] | None:
    """Write an outcome without its revision, in the form that ``requests`` keeps: of a route, of traffic, of a commit.

    A commit without mutations is none, so that of a commit has steps.
    """
    if outcome.steps:
        return {"steps": outcome.steps, "change_set_id": outcome.change_set_id, "change_count": outcome.change_count}
    return traffic_to_json(outcome.traffic) or route_to_json(outcome.route)


def outcome_from_json(key: RouteKey, revision: int, value: Mapping[str, Any] | None) -> Outcome:
    """Read what ``outcome_to_json`` wrote for a mutation of ``key``."""
    if value is None:
        return Outcome(None, revision)
    if "steps" in value:
        steps = tuple(Step(*step) for step in value["steps"])
        set_id, count = value["change_set_id"], value["change_count"]
        return Outcome(None, revision, steps=steps, change_set_id=set_id, change_count=count)
    if "targets" in value:
        return Outcome(None, revision, traffic=traffic_from_json(key.family_key, value))
    return Outcome(route_from_json(key, value), revision)


def _utc(moment: datetime) -> datetime:
    # What the driver and ``fromisoformat`` read is in UTC already, unless the session has another time zone.
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
