"""What ``--json`` writes: plain data, the same names as in the API."""

from typing import TYPE_CHECKING, Any

from pointsman.errors import PointsmanError
from pointsman.results import Change, Resolution, Route

if TYPE_CHECKING:
    from pointsman.watchers import Propagation, Usage


def route_document(route: Route) -> dict[str, Any]:
    """Return a route."""
    return {
        "key": str(route.key),
        "url": route.url,
        "active": route.active,
        "labels": dict(route.labels),
        "revision": route.revision,
        "create_time": route.create_time.isoformat(),
        "update_time": route.update_time.isoformat(),
    }


def resolution_document(resolution: Resolution) -> dict[str, Any]:
    """Return a live route with its provenance; the age is in seconds."""
    return {
        "route": route_document(resolution.route),
        "provenance": {
            "source": resolution.source.value,
            "age_seconds": resolution.age.total_seconds(),
            "as_of_revision": resolution.as_of_revision,
            "epoch": resolution.epoch,
        },
    }


def change_document(change: Change) -> dict[str, Any]:
    """Return one entry of history."""
    return {
        "revision": change.revision,
        "event_id": change.event_id,
        "kind": change.kind.value,
        "key": str(change.key),
        "before": route_document(change.before) if change.before else None,
        "after": route_document(change.after) if change.after else None,
        "actor": change.actor,
        "reason": change.reason,
        "request_id": change.request_id,
        "occur_time": change.occur_time.isoformat(),
        "epoch": change.epoch,
        "traceparent": change.traceparent,
    }


def propagation_document(propagation: "Propagation") -> dict[str, Any]:
    """Return who has a revision."""
    return {
        "complete": propagation.complete,
        "watcher_count": propagation.watcher_count,
        "applied_count": propagation.applied_count,
        "behind": [
            {
                "watcher_id": watcher.watcher_id,
                "name": watcher.name,
                "address": watcher.address,
                "subject": watcher.subject,
                "applied_revision": watcher.applied_revision,
                "watch_time": watcher.watch_time.isoformat(),
            }
            for watcher in propagation.behind
        ],
        "all_servers": propagation.all_servers,
    }


def usage_document(usage: "Usage") -> dict[str, Any]:
    """Return who reads a route; the window is in seconds."""
    return {
        "readers": [
            {
                "subject": reader.subject,
                "read_count": reader.read_count,
                "last_read_time": reader.last_read_time.isoformat(),
            }
            for reader in usage.readers
        ],
        "window_seconds": usage.window.total_seconds(),
        "all_servers": usage.all_servers,
    }


def error_document(error: PointsmanError) -> dict[str, Any]:
    """Return an error of the API."""
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "metadata": error.metadata,
        "violations": [{"field": each.field, "description": each.description} for each in error.violations],
        "request_id": error.request_id,
        "retry_delay_seconds": error.retry_delay.total_seconds() if error.retry_delay else None,
    }
