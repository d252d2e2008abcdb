"""What ``--json`` writes: plain data, the same names as in the API."""

from typing import TYPE_CHECKING, Any

from pointsman.errors import PointsmanError
from pointsman.results import Change, Resolution, Route, Traffic

if TYPE_CHECKING:
    from pointsman.change_sets import ChangeSetResult, Difference
    from pointsman.selection import Choice
    from pointsman.traffic import Explanation, PermissionVerdict, Selection
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
        "provenance": _provenance(resolution),
    }


def _provenance(answer: Resolution) -> dict[str, Any]:
    return {
        "source": answer.source.value,
        "age_seconds": answer.age.total_seconds(),
        "as_of_revision": answer.as_of_revision,
        "epoch": answer.epoch,
    }


def traffic_document(traffic: Traffic) -> dict[str, Any]:
    """Return the traffic of a tenant, service and env; weights and sizes are in basis points."""
    return {
        "key": str(traffic.key),
        "targets": [{"version": target.version, "weight": target.weight} for target in traffic.targets],
        "fallbacks": list(traffic.fallbacks),
        "slices": [{"version": version, "size": size} for version, size in traffic.slices],
        "revision": traffic.revision,
        "create_time": traffic.create_time.isoformat(),
        "update_time": traffic.update_time.isoformat(),
    }


def state_document(state: Route | Traffic | None) -> dict[str, Any] | None:
    """Return a route, or traffic, or nothing."""
    if state is None:
        return None
    return route_document(state) if isinstance(state, Route) else traffic_document(state)


def choice_document(choice: "Choice") -> dict[str, Any]:
    """Return which version was chosen, and why."""
    return {
        "version": choice.version,
        "rule": choice.rule.name,
        "inactive_versions": list(choice.inactive_versions),
    }


def selection_document(selection: "Selection") -> dict[str, Any]:
    """Return the route that was selected, why, and its provenance."""
    return {
        "route": route_document(selection.route),
        "choice": choice_document(selection.choice) | {"traffic_revision": selection.traffic_revision},
        "provenance": _provenance(selection),
    }


def explanation_document(explanation: "Explanation") -> dict[str, Any]:
    """Return what would be answered, and why; ages are in seconds."""
    return {
        "route": state_document(explanation.route),
        "error": error_document(explanation.error) if explanation.error else None,
        "choice": choice_document(explanation.choice) if explanation.choice else None,
        "traffic": state_document(explanation.traffic),
        "as_of_revision": explanation.as_of_revision,
        "epoch": explanation.epoch,
        "layers": [
            {
                "source": layer.source.value,
                "held": layer.held,
                "revision": layer.revision,
                "as_of_revision": layer.as_of_revision,
                "age_seconds": None if layer.age is None else layer.age.total_seconds(),
                "problem": layer.problem,
            }
            for layer in explanation.layers
        ],
        "last_change": change_document(explanation.last_change) if explanation.last_change else None,
        "permission": _permission(explanation.permission),
    }


def _permission(verdict: "PermissionVerdict") -> dict[str, Any]:
    return {
        "subject": verdict.subject,
        "permission": verdict.permission,
        "allowed": verdict.allowed,
        "rules": [{"source": rule.source, "allows": rule.allows, "why": rule.why} for rule in verdict.rules],
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
        "change_set_id": change.change_set_id,
        "change_set_size": change.change_set_size,
        "traffic_before": state_document(change.traffic_before),
        "traffic_after": state_document(change.traffic_after),
    }


def change_set_document(result: "ChangeSetResult") -> dict[str, Any]:
    """Return what a commit or a revert did, or would do."""
    return {
        "change_set_id": result.change_set_id,
        "change_set_size": result.size,
        "revision": result.revision,
        "changes": [change_document(change) for change in result.changes],
        "omitted_change_count": result.omitted_change_count,
        "mutations": [
            {"first_revision": each.first_revision, "change_count": each.change_count} for each in result.mutations
        ],
    }


def difference_document(difference: "Difference") -> dict[str, Any]:
    """Return what differs of one key between two moments."""
    return {
        "key": str(difference.key),
        "before": state_document(difference.before),
        "after": state_document(difference.after),
        "change_count": difference.change_count,
        "last_change": change_document(difference.last_change),
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
