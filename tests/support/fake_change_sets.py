"""What the fake server knows of change sets: making one, and undoing one."""

# ruff: noqa: N802 - the methods are named as in the API.

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
from google.rpc import error_details_pb2

from pointsman.v1 import route_pb2, traffic_pb2
from pointsman.v1 import route_service_pb2 as pb
from tests.support.fake_failures import Failure, Refused, Trial, abort, parts_of, text_of

MOST_NAMED = 16
METHODS = {
    "create": "Create",
    "update": "Update",
    "activate": "Activate",
    "deactivate": "Deactivate",
    "delete": "Delete",
    "set_traffic": "SetTraffic",
    "delete_traffic": "DeleteTraffic",
}


class FakeChangeSets:
    """A part of ``FakeServer``, which has the routes, the traffic and their changes."""

    routes: dict[tuple[str, ...], route_pb2.Route]
    traffic: dict[tuple[str, ...], traffic_pb2.Traffic]
    changes: list[route_pb2.RouteChange]
    _entered: Callable[[str, Any, Any], AbstractContextManager[None]]
    _join: Callable[[int], None]
    _write: Callable[..., route_pb2.Route]
    _record: Callable[[Any, Any, Any, Any, Any], None]
    _put_traffic: Callable[..., None]
    _invalid: Callable[[str, str, Any], None]

    def __init__(self) -> None:
        super().__init__()
        self.committed: dict[str, pb.CommitResponse] = {}
        self.reverted: dict[str, pb.RevertResponse] = {}
        self.largest_answer = 1_000_000

    # The service

    def Commit(self, request: Any, context: Any) -> pb.CommitResponse:
        with self._entered("Commit", request, context):
            if request.request_id in self.committed:
                return self.committed[request.request_id]
            assert 1 <= len(request.mutations) <= 1000
            undo, begins = self._remembered(), len(self.changes)
            response, refusals = pb.CommitResponse(), []
            for number, mutation in enumerate(request.mutations):
                first = len(self.changes)
                try:
                    self._step(mutation, request)
                except Refused as refused:
                    refusals.append((number, refused.failure))
                count = len(self.changes) - first
                response.mutations.add(first_revision=first + 1 if count else 0, change_count=count)
            if refusals:
                undo()
                abort(context, _refused(refusals))
            self._answer_changes(begins, response)
            if self._done(request, response, undo):
                self.committed[request.request_id] = response
            return response

    def Revert(self, request: Any, context: Any) -> pb.RevertResponse:
        with self._entered("Revert", request, context):
            if request.request_id in self.reverted:
                return self.reverted[request.request_id]
            undone = self._undone(request, context)
            undo, begins = self._remembered(), len(self.changes)
            for parts, (before, last) in sorted(undone.items(), key=self._turn_of):
                self._put_back(parts, before, last, request)
            response = pb.RevertResponse()
            self._answer_changes(begins, response)
            if self._done(request, response, undo):
                self.reverted[request.request_id] = response
            return response

    # How it works

    def _remembered(self) -> Callable[[], None]:
        routes, traffic, count = dict(self.routes), dict(self.traffic), len(self.changes)

        def undo() -> None:
            self.routes, self.traffic = routes, traffic
            del self.changes[count:]

        return undo

    def _step(self, mutation: Any, request: Any) -> None:
        name = mutation.WhichOneof("mutation")
        step = type(getattr(mutation, name))()
        step.CopyFrom(getattr(mutation, name))
        step.reason, step.request_id = request.reason, request.request_id
        getattr(self, METHODS[name])(step, Trial())

    def _answer_changes(self, begins: int, response: Any) -> None:
        self._join(begins)
        made = self.changes[begins:]
        response.changes.extend(made[: self.largest_answer])
        response.omitted_change_count = len(made) - len(response.changes)
        response.change_set_id = begins + 1 if made else 0
        response.revision = len(self.changes)

    def _done(self, request: Any, response: Any, undo: Callable[[], None]) -> bool:
        """Take back a dry run, and say whether it was none."""
        if request.dry_run:
            undo()
            response.revision = len(self.changes)
        return not request.dry_run

    def _undone(self, request: Any, context: Any) -> dict[tuple[str, ...], tuple[Any, Any]]:
        """Return what each key was before, and its last change in the range."""
        begins, ends = request.first_revision, request.last_revision
        if request.change_set_id:
            begins = request.change_set_id
            found = self.changes[begins - 1] if begins <= len(self.changes) else None
            if found is None or found.change_set_id != begins:
                self._invalid("change_set_id", f"no change set begins at revision {begins}", context)
            assert found
            ends = found.change_set_end
        undone: dict[tuple[str, ...], tuple[Any, Any]] = {}
        for change in self.changes[begins - 1 : ends]:
            parts = parts_of(change.key)
            undone[parts] = (undone[parts][0] if parts in undone else _before(change), change)
        later = [change for change in self.changes[ends:] if parts_of(change.key) in undone]
        if later and not request.force:
            abort(context, _changed_since(later))
        return undone

    def _turn_of(self, item: tuple[tuple[str, ...], tuple[Any, Any]]) -> int:
        parts, (before, _) = item
        if not parts[3]:
            return 1
        if before is None:
            return 3
        return 0 if before.active else 2

    def _put_back(self, parts: tuple[str, ...], before: Any, last: Any, request: Any) -> None:
        if not parts[3]:
            now = self.traffic.get(parts[:3])
            if (before and _division(before)) != (now and _division(now)):
                after = None
                if before:
                    after = traffic_pb2.Traffic()
                    after.CopyFrom(before)
                self._put_traffic(parts[:3], now, after, request)
            return
        route = self.routes.get(parts)
        if before is None and route is not None:
            del self.routes[parts]
            self._record(route_pb2.CHANGE_KIND_DELETED, last.key, route, None, request)
        elif before is not None and _content(route) != _content(before):
            self._write(_kind(route, before), last.key, before.url, before.active, before.labels, request)


def _before(change: route_pb2.RouteChange) -> Any:
    if change.HasField("traffic_before"):
        return change.traffic_before
    return change.before if change.HasField("before") else None


def _division(traffic: Any) -> Any:
    return [(each.version, each.weight) for each in traffic.targets], list(traffic.fallbacks)


def _content(route: Any) -> Any:
    return route and (route.url, route.active, dict(route.labels))


def _kind(route: Any, wanted: Any) -> Any:
    if route is None:
        return route_pb2.CHANGE_KIND_CREATED
    if (route.url, route.labels) != (wanted.url, wanted.labels):
        return route_pb2.CHANGE_KIND_UPDATED
    return route_pb2.CHANGE_KIND_ACTIVATED if wanted.active else route_pb2.CHANGE_KIND_DEACTIVATED


def _refused(refusals: list[tuple[int, Failure]]) -> Failure:
    index, first = refusals[0]
    violations = [
        error_details_pb2.BadRequest.FieldViolation(
            field=f"mutations[{number}]", description=f"{failure.reason}: {failure.message}"
        )
        for number, failure in refusals[:MOST_NAMED]
    ]
    message = "; ".join(f"{each.field}: {each.description.partition(': ')[2]}" for each in violations)
    details = (error_details_pb2.BadRequest(field_violations=violations),)
    return Failure(first.code, message, first.reason, {**first.metadata, "index": str(index)}, details)


def _changed_since(later: list[Any]) -> Failure:
    last = {text_of(change.key): change for change in later}
    violations = [
        error_details_pb2.BadRequest.FieldViolation(
            field=key,
            description=f"{'the route' if each.key.version else 'the traffic'} was changed by {each.actor} at"
            f" {each.occur_time.ToDatetime():%Y-%m-%dT%H:%M:%SZ}, revision {each.revision}",
        )
        for key, each in list(last.items())[:MOST_NAMED]
    ]
    key, first = next(iter(last.items()))
    metadata = {"key": key, "revision": str(first.revision), "count": str(len(last))}
    message = "; ".join(f"{each.field}: {each.description}" for each in violations)
    details = (error_details_pb2.BadRequest(field_violations=violations),)
    return Failure(grpc.StatusCode.ABORTED, f"changed since: {message}", "CHANGED_SINCE", metadata, details)
