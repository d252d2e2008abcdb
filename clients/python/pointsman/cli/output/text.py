"""How routes and their differences read to people."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from pointsman.cli.output.documents import route_document, traffic_document
from pointsman.cli.output.terminal import Terminal
from pointsman.results import Change, Route, Traffic


class Content(Protocol):
    """What can differ between two states of one route."""

    @property
    def url(self) -> str: ...

    @property
    def active(self) -> bool: ...

    @property
    def labels(self) -> Mapping[str, str]: ...


class Division(Protocol):
    """How calls are divided: weights in basis points, by version."""

    @property
    def weights(self) -> Mapping[str, int]: ...

    @property
    def fallbacks(self) -> Sequence[str]: ...


def show_route(terminal: Terminal, route: Route) -> None:
    """Write one route, all of it."""
    if terminal.as_json:
        terminal.document(route_document(route))
        return
    fields = {
        "key": str(route.key),
        "url": route.url,
        "state": state_text(route.active),
        "labels": labels_text(route.labels),
        "revision": str(route.revision),
        "created": time_text(route.create_time),
        "updated": time_text(route.update_time),
    }
    show_fields(terminal, fields)


def show_traffic(terminal: Terminal, traffic: Traffic) -> None:
    """Write the traffic of one tenant, service and env."""
    if terminal.as_json:
        terminal.document(traffic_document(traffic))
        return
    fields = {
        "key": str(traffic.key),
        "traffic": traffic_text(traffic),
        "revision": str(traffic.revision),
        "created": time_text(traffic.create_time),
        "updated": time_text(traffic.update_time),
    }
    show_fields(terminal, fields)


def show_fields(terminal: Terminal, fields: Mapping[str, str]) -> None:
    """Write names and values, one pair a line."""
    for name, text in fields.items():
        terminal.line(f"{name:<10}{text}".rstrip())


def traffic_text(traffic: Division | None) -> str:
    """Return the traffic in one line: ``v1=90% v2=10%; fallback v0``, or ``(not set)``."""
    from pointsman.cli.traffic.weights import division_text

    return division_text(traffic.weights, traffic.fallbacks) if traffic else division_text({}, ())


def state_text(active: bool) -> str:
    """Return ``active`` or ``inactive``."""
    return "active" if active else "inactive"


def labels_text(labels: Mapping[str, str]) -> str:
    """Return the labels as ``a=1 b=2``, in the order of their names."""
    return " ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def time_text(time: datetime) -> str:
    """Return the time in UTC to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ")


def content_text(content: Content) -> str:
    """Return all of one state in one line."""
    return " ".join(filter(None, (content.url, state_text(content.active), labels_text(content.labels))))


def difference_text(before: Content | None, after: Content | None) -> str:
    """Return what differs between two states of one route; None is its absence."""
    if before is None or after is None:
        present = after or before
        return content_text(present) if present else ""
    parts = []
    if before.url != after.url:
        parts.append(f"url: {before.url} → {after.url}")
    if before.active != after.active:
        parts.append(f"{state_text(before.active)} → {state_text(after.active)}")
    if before.labels != after.labels:
        parts.append(f"labels: {labels_text(before.labels) or '(none)'} → {labels_text(after.labels) or '(none)'}")
    return "; ".join(parts)


def traffic_difference_text(before: Division | None, after: Division | None) -> str:
    """Return what differs between two states of the traffic; None is its absence."""
    if before is None:
        return f"traffic: {traffic_text(after)}"
    moved = " (other callers)" if after and traffic_text(before) == traffic_text(after) else ""
    return f"traffic: {traffic_text(before)} → {traffic_text(after)}{moved}"


def what_text(change: Change) -> str:
    """Return what a change did to its route, or to its traffic."""
    if change.traffic_before or change.traffic_after:
        return traffic_difference_text(change.traffic_before, change.traffic_after)
    return difference_text(change.before, change.after)
