"""A small Pointsman in memory: the semantics of the API that a client can see, and failures on demand."""

# ruff: noqa: N802 - the methods are named as in the API.

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2

from pointsman.v1 import route_pb2, traffic_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceServicer, add_RouteServiceServicer_to_server
from tests.support.fake_change_sets import FakeChangeSets
from tests.support.fake_failures import REQUEST_ID, Failure, Trial, abort, parts_of, text_of
from tests.support.fake_traffic import FakeTraffic, View
from tests.support.fake_watch import FakeWatchers, matches

__all__ = ["REQUEST_ID", "T0", "Call", "Failure", "FakeServer", "View", "serving"]

T0 = 1_700_000_000
IMPORT_REFUSALS = {
    "url": (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    "key": (grpc.StatusCode.ALREADY_EXISTS, "ROUTE_EXISTS"),
    "expected_revision": (grpc.StatusCode.ABORTED, "REVISION_MISMATCH"),
}


@dataclass(frozen=True)
class Call:
    """What the server saw of one attempt of a call."""

    method: str
    request: Any
    metadata: dict[str, str | bytes]
    seconds_left: float
    auth: dict[str, list[str]] = field(default_factory=dict)


class FakeServer(FakeTraffic, FakeChangeSets, FakeWatchers, RouteServiceServicer):
    """The servicer; ``calls`` has every attempt, ``fail`` makes the next ones of a method fail in turn.

    ``stale`` is what its caches hold: it is answered where a call does not ask for more. ``earlier`` is a server of a
    release that knows no moments.
    """

    def __init__(self) -> None:
        super().__init__()
        self.target = ""
        self.calls: list[Call] = []
        self.routes: dict[tuple[str, ...], route_pb2.Route] = {}
        self.traffic: dict[tuple[str, ...], traffic_pb2.Traffic] = {}
        self.changes: list[route_pb2.RouteChange] = []
        self.epoch = "epoch-1"
        self.stale: View | None = None
        self.earlier = False
        self.largest_page = 1000
        self.largest_batch = 1000
        self.imports: dict[str, pb.ImportResponse] = {}
        self.refused_urls: set[str] = set()
        self._failures: dict[str, deque[Failure]] = {}
        self._lock = self._changed

    # For the tests

    def fail(self, method: str, *failures: Failure) -> None:
        self._failures.setdefault(method, deque()).extend(failures)

    def called(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    def methods(self) -> list[str]:
        return [call.method for call in self.calls]

    def add(self, key: str, url: str, *, active: bool = True, labels: dict[str, str] | None = None) -> route_pb2.Route:
        parts = key.split("/")
        name = route_pb2.RouteKey(tenant=parts[0], service=parts[1], env=parts[2], version=parts[3])
        return self._write(route_pb2.CHANGE_KIND_CREATED, name, url, active, labels or {})

    def restore(self, view: View, epoch: str) -> None:
        """Go back to an older state, under a new epoch."""
        self.routes, self.traffic, self.epoch = dict(view.routes), dict(view.traffic), epoch
        del self.changes[view.revision :]

    def state(self) -> dict[str, tuple[str, bool, dict[str, str]]]:
        return {"/".join(key): (route.url, route.active, dict(route.labels)) for key, route in self.routes.items()}

    # The service

    def Resolve(self, request: Any, context: Any) -> pb.ResolveResponse:
        with self._entered("Resolve", request, context):
            view = self._seen_by(request, context)
            answer = self._answer(request.key, view)
            if isinstance(answer, Failure):
                abort(context, answer)
            return pb.ResolveResponse(route=answer, provenance=self._provenance(view))

    def BatchResolve(self, request: Any, context: Any) -> pb.BatchResolveResponse:
        with self._entered("BatchResolve", request, context):
            assert 1 <= len(request.keys) <= 1000
            view = self._seen_by(request, context)
            results = [self._result(key, view) for key in request.keys[: self.largest_batch]]
            too_large = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large", "RESPONSE_TOO_LARGE").status()
            rest = request.keys[self.largest_batch :]
            results += [pb.BatchResolveResponse.Result(key=key, status=too_large) for key in rest]
            return pb.BatchResolveResponse(results=results)

    def Create(self, request: Any, context: Any) -> pb.CreateResponse:
        with self._entered("Create", request, context):
            route = self.routes.get(parts_of(request.key))
            if route:
                details = {"key": text_of(request.key), "revision": str(route.revision)}
                abort(context, Failure(grpc.StatusCode.ALREADY_EXISTS, "route exists", "ROUTE_EXISTS", details))
            self._check_url(request.url, context)
            active = request.active if request.HasField("active") else True
            kind = route_pb2.CHANGE_KIND_CREATED
            return pb.CreateResponse(route=self._write(kind, request.key, request.url, active, request.labels, request))

    def Update(self, request: Any, context: Any) -> pb.UpdateResponse:
        with self._entered("Update", request, context):
            if request.allow_missing and parts_of(request.key) not in self.routes:
                kind = route_pb2.CHANGE_KIND_CREATED
                labels = request.labels.labels
                return pb.UpdateResponse(route=self._write(kind, request.key, request.url, True, labels, request))
            route = self._existing(request, context)
            url = request.url if request.HasField("url") else route.url
            labels = request.labels.labels if request.HasField("labels") else route.labels
            self._check_url(url, context)
            kind = route_pb2.CHANGE_KIND_UPDATED
            return pb.UpdateResponse(route=self._write(kind, request.key, url, route.active, labels, request))

    def Activate(self, request: Any, context: Any) -> pb.ActivateResponse:
        with self._entered("Activate", request, context):
            route = self._turn(self._existing(request, context), True, request)
            if request.exclusive:
                for sibling in list(self.routes.values()):
                    same = parts_of(sibling.key)[:3] == parts_of(request.key)[:3]
                    if same and sibling.active and sibling.key != request.key:
                        self._turn(sibling, False, request)
            return pb.ActivateResponse(route=route, revision=max(route.revision, len(self.changes)))

    def Deactivate(self, request: Any, context: Any) -> pb.DeactivateResponse:
        with self._entered("Deactivate", request, context):
            route = self._existing(request, context)
            self._check_unused(request, context)
            return pb.DeactivateResponse(route=self._turn(route, False, request))

    def Delete(self, request: Any, context: Any) -> pb.DeleteResponse:
        with self._entered("Delete", request, context):
            before = self._existing(request, context)
            self._check_unused(request, context)
            self._check_not_named(request.key, context)
            del self.routes[parts_of(request.key)]
            self._record(route_pb2.CHANGE_KIND_DELETED, request.key, before, None, request)
            return pb.DeleteResponse(revision=len(self.changes))

    def Import(self, request: Any, context: Any) -> pb.ImportResponse:
        with self._entered("Import", request, context):
            if request.request_id in self.imports:
                return self.imports[request.request_id]
            violations = list(self._import_violations(request))
            if violations:
                details = (error_details_pb2.BadRequest(field_violations=violations[:16]),)
                code, reason = IMPORT_REFUSALS[violations[0].field.rpartition(".")[2]]
                abort(context, Failure(code, "refused", reason, details=details))
            response = pb.ImportResponse()
            for wanted in request.routes:
                self._import(wanted, request, response)
            response.revision = len(self.changes)
            self.imports[request.request_id] = response
            return response

    def Get(self, request: Any, context: Any) -> pb.GetResponse:
        with self._entered("Get", request, context):
            if request.HasField("as_of"):
                view = self._view_at(request.as_of, context)
                if parts_of(request.key) not in view.routes:
                    self._refuse(context, self._answer(request.key, view))
                return pb.GetResponse(route=view.routes[parts_of(request.key)], as_of_revision=view.revision)
            as_of = 0 if self.earlier else len(self.changes)
            return pb.GetResponse(route=self._existing(request, context), as_of_revision=as_of)

    def List(self, request: Any, context: Any) -> pb.ListResponse:
        with self._entered("List", request, context):
            view = self._view_at(request.as_of, context) if request.HasField("as_of") else self.view
            found = [route for _, route in sorted(view.routes.items()) if matches(request, route.key)]
            if request.HasField("active"):
                found = [route for route in found if route.active == request.active]
            page, token = self._page(found, request)
            as_of = view.revision if request.HasField("as_of") else 0
            return pb.ListResponse(routes=page, next_page_token=token, as_of_revision=as_of)

    def ListChanges(self, request: Any, context: Any) -> pb.ListChangesResponse:
        with self._entered("ListChanges", request, context):
            before = request.before_revision or len(self.changes) + 1
            found = [
                change
                for change in self.changes
                if matches(request, change.key)
                and request.version in {"", change.key.version}
                and request.actor in {"", change.actor}
                and request.after_revision < change.revision < before
                and not (request.HasField("after_time") and nanos(change.occur_time) <= nanos(request.after_time))
                and not (request.HasField("before_time") and nanos(change.occur_time) > nanos(request.before_time))
            ]
            page, token = self._page(found[::-1] if request.newest_first else found, request)
            return pb.ListChangesResponse(changes=page, next_page_token=token)

    # How it works

    @contextmanager
    def _entered(self, method: str, request: Any, context: Any) -> Iterator[None]:
        if isinstance(context, Trial):  # a step of a Commit
            yield
            return
        with self._lock:
            metadata = dict(context.invocation_metadata())
            auth = {
                name: [bytes(value).decode() for value in values] for name, values in context.auth_context().items()
            }
            self.calls.append(Call(method, request, metadata, context.time_remaining() or 0.0, auth))
            if self.earlier:
                for name in {"as_of", "after_time", "before_time"}.intersection(request.DESCRIPTOR.fields_by_name):
                    request.ClearField(name)
            failures = self._failures.get(method)
            if failures:
                abort(context, failures.popleft())
            begins = len(self.changes)
            yield
            self._join(begins)

    def _refuse(self, context: Any, failure: Any) -> None:
        """End a call with a ``Failure``, or one that has this code, message and reason."""
        abort(context, failure if isinstance(failure, Failure) else Failure(*failure))

    def _seen_by(self, request: Any, context: Any) -> View:
        """What a resolve is answered from: see ``RevisionTokens`` and ``Resolver`` of the real server."""
        view = self.stale or self.view
        if request.min_revision and request.epoch not in {"", view.epoch}:
            view = self.view
        floor = request.min_revision if request.epoch in {"", view.epoch} else 0
        view = view if view.revision >= floor else self.view
        if view.revision < floor:
            details = {"min_revision": str(floor), "revision": str(view.revision)}
            abort(context, Failure(grpc.StatusCode.UNAVAILABLE, "not reached", "REVISION_NOT_REACHED", details))
        return view

    def _answer(self, key: Any, view: View) -> route_pb2.Route | Failure:
        route = view.routes.get(parts_of(key))
        details = {"key": text_of(key), "revision": str(view.revision)} | ({"epoch": view.epoch} if view.epoch else {})
        if route is None:
            return Failure(grpc.StatusCode.NOT_FOUND, f"no route {text_of(key)}", "ROUTE_NOT_FOUND", details)
        if not route.active:
            return Failure(grpc.StatusCode.NOT_FOUND, f"{text_of(key)} is not active", "ROUTE_INACTIVE", details)
        return route

    def _result(self, key: Any, view: View) -> pb.BatchResolveResponse.Result:
        answer = self._answer(key, view)
        if isinstance(answer, Failure):
            return pb.BatchResolveResponse.Result(key=key, status=answer.status(), provenance=self._provenance(view))
        return pb.BatchResolveResponse.Result(key=key, route=answer, provenance=self._provenance(view))

    def _provenance(self, view: View) -> pb.Provenance:
        provenance = pb.Provenance(source=pb.Provenance.SOURCE_LOCAL, as_of_revision=view.revision, epoch=view.epoch)
        provenance.age.FromMilliseconds(250)
        return provenance

    def _import_violations(self, request: Any) -> Iterator[error_details_pb2.BadRequest.FieldViolation]:
        for number, wanted in enumerate(request.routes):
            make = error_details_pb2.BadRequest.FieldViolation
            if wanted.url in self.refused_urls:
                yield make(field=f"routes[{number}].url", description="is refused")
            if request.existing == pb.EXISTING_ROUTES_REFUSE and parts_of(wanted.key) in self.routes:
                yield make(field=f"routes[{number}].key", description="exists")
            route = self.routes.get(parts_of(wanted.key))
            if wanted.expected_revision and (route is None or route.revision != wanted.expected_revision):
                yield make(field=f"routes[{number}].expected_revision", description="is another one")

    def _import(self, wanted: Any, request: Any, response: pb.ImportResponse) -> None:
        before = self.routes.get(parts_of(wanted.key))
        active = wanted.active if wanted.HasField("active") else before is None or before.active
        labels = wanted.labels.labels if wanted.HasField("labels") else before.labels if before else {}
        same = before and (before.url, before.active, before.labels) == (wanted.url, active, labels)
        if same or (before and request.existing == pb.EXISTING_ROUTES_SKIP):
            response.unchanged += 1
        else:
            kind = route_pb2.CHANGE_KIND_UPDATED if before else route_pb2.CHANGE_KIND_CREATED
            self._write(kind, wanted.key, wanted.url, active, labels, request)
            response.updated += bool(before)
            response.created += not before

    def _existing(self, request: Any, context: Any) -> route_pb2.Route:
        route = self.routes.get(parts_of(request.key))
        if route is None:
            details = {"key": text_of(request.key), "revision": str(len(self.changes))}
            message = f"no route {text_of(request.key)}"
            abort(context, Failure(grpc.StatusCode.NOT_FOUND, message, "ROUTE_NOT_FOUND", details))
        expected = getattr(request, "expected_revision", 0)
        if expected and expected != route.revision:
            details = {"expected_revision": str(expected), "revision": str(route.revision)}
            abort(context, Failure(grpc.StatusCode.ABORTED, "another revision", "REVISION_MISMATCH", details))
        return route

    def _check_url(self, url: str, context: Any) -> None:
        if url in self.refused_urls:
            violation = error_details_pb2.BadRequest.FieldViolation(field="url", description="is refused")
            details = (error_details_pb2.BadRequest(field_violations=[violation]),)
            code = grpc.StatusCode.INVALID_ARGUMENT
            abort(context, Failure(code, "url: is refused", "INVALID_FIELD", details=details))

    def _turn(self, route: route_pb2.Route, active: bool, request: Any) -> route_pb2.Route:
        if route.active == active:
            return route
        kind = route_pb2.CHANGE_KIND_ACTIVATED if active else route_pb2.CHANGE_KIND_DEACTIVATED
        return self._write(kind, route.key, route.url, active, route.labels, request)

    def _write(self, kind: Any, key: Any, url: str, active: bool, labels: Any, request: Any = None) -> route_pb2.Route:
        with self._lock:
            before = self.routes.get(parts_of(key))
            revision = len(self.changes) + 1
            route = route_pb2.Route(key=key, url=url, active=active, labels=labels, revision=revision)
            route.create_time.seconds = before.create_time.seconds if before else T0 + revision
            route.update_time.seconds = T0 + revision
            self.routes[parts_of(key)] = route
            self._record(kind, key, before, route, request)
            return route

    def _record(self, kind: Any, key: Any, before: Any, after: Any, request: Any) -> None:
        revision = len(self.changes) + 1
        change = route_pb2.RouteChange(revision=revision, event_id=f"event-{revision}", kind=kind, key=key)
        if key.version:
            change.MergeFrom(route_pb2.RouteChange(before=before, after=after))
        else:
            change.MergeFrom(route_pb2.RouteChange(traffic_before=before, traffic_after=after))
        change.change_set_id = change.change_set_end = revision
        change.change_set_size = 1
        change.actor = "ada"
        change.reason = getattr(request, "reason", "")
        change.request_id = getattr(request, "request_id", "")
        change.occur_time.seconds = T0 + revision
        change.epoch = self.epoch
        with self._changed:
            self.changes.append(change)
            self._changed.notify_all()

    def _join(self, begins: int) -> None:
        """Make one change set of the changes after revision ``begins``."""
        made = self.changes[begins:]
        for change in made:
            change.change_set_id, change.change_set_end = begins + 1, begins + len(made)
            change.change_set_size = len(made)

    def _page(self, found: list[Any], request: Any) -> tuple[list[Any], str]:
        start = int(request.page_token or 0)
        end = start + min(request.page_size or 100, self.largest_page)
        return found[start:end], str(end) if end < len(found) else ""


def nanos(time: Any) -> int:
    return int(time.ToNanoseconds())


@contextmanager
def serving(servicer: FakeServer, credentials: grpc.ServerCredentials | None = None) -> Iterator[FakeServer]:
    """Serve on a free port of the loopback interface until the block ends, by TLS if there are credentials."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8), options=(("grpc.so_reuseport", 0),))
    add_RouteServiceServicer_to_server(servicer, server)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    servicer.target = f"127.0.0.1:{port}"
    server.start()
    try:
        yield servicer
    finally:
        server.stop(grace=None).wait()
