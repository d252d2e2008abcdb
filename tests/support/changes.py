"""Changes for tests."""

from datetime import UTC, datetime, timedelta

from pointsman_server.routes import Change, ChangeKind, Route, RouteKey

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def make_change(
    revision: int, service: str = "pay", kind: ChangeKind = ChangeKind.UPDATED, *, epoch: str = "e1", trace: str = ""
) -> Change:
    """Make the change of a revision; the same arguments give an equal one."""
    key = RouteKey("acme", service, "prod", "v1")
    when = BEGINNING + timedelta(seconds=revision)
    route = Route(key, f"https://{service}.internal/{revision}", True, {"n": str(revision)}, revision, BEGINNING, when)
    after = None if kind is ChangeKind.DELETED else route
    return Change(
        revision, f"event-{revision}", kind, key, None, after, "ann", "why", f"r{revision}", when, epoch, trace
    )
