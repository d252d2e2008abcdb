"""What the fake server knows of traffic: how it is set, what it selects, and what was at a moment."""

# ruff: noqa: N802 - the methods are named as in the API.

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.rpc import error_details_pb2

from pointsman.selection import POINTS, Choice, Rule, Split, only_active
from pointsman.v1 import route_pb2, selection_pb2, traffic_pb2, usage_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import traffic_methods_pb2 as methods_pb
from pointsman_server.domain.traffic import Slice, Target, allot
from tests.support.fake_failures import Failure, abort, family_of, parts_of, text_of
from tests.support.fake_watch import matches

RULES = {
    Rule.SPLIT: selection_pb2.Choice.RULE_SPLIT,
    Rule.FALLBACK: selection_pb2.Choice.RULE_FALLBACK,
    Rule.ONLY_ACTIVE: selection_pb2.Choice.RULE_ONLY_ACTIVE,
}


@dataclass(frozen=True)
class View:
    """The routes and the traffic as of a revision of an epoch."""

    routes: dict[tuple[str, ...], route_pb2.Route]
    revision: int
    epoch: str
    traffic: dict[tuple[str, ...], traffic_pb2.Traffic] = field(default_factory=dict)

    def active(self, family: tuple[str, ...]) -> dict[str, route_pb2.Route]:
        found = (route for parts, route in sorted(self.routes.items()) if parts[:3] == family and route.active)
        return {route.key.version: route for route in found}


class FakeTraffic:
    """A part of ``FakeServer``, which has the routes, their changes and their readers."""

    routes: dict[tuple[str, ...], route_pb2.Route]
    traffic: dict[tuple[str, ...], traffic_pb2.Traffic]
    changes: list[route_pb2.RouteChange]
    compacted: int
    usage: usage_pb2.GetUsageResponse
    epoch: str
    largest_batch: int
    _changed: threading.Condition
    _entered: Callable[[str, Any, Any], AbstractContextManager[None]]
    _seen_by: Callable[[Any, Any], View]
    _provenance: Callable[[View], pb.Provenance]
    _page: Callable[[list[Any], Any], tuple[list[Any], str]]
    _record: Callable[[Any, Any, Any, Any, Any], None]

    # For the tests

    @property
    def view(self) -> View:
        return View(dict(self.routes), len(self.changes), self.epoch, dict(self.traffic))

    def divide(self, family: str, weights: dict[str, int], fallbacks: tuple[str, ...] = ()) -> traffic_pb2.Traffic:
        tenant, service, env = family.split("/")
        targets = [traffic_pb2.TrafficTarget(version=version, weight=weight) for version, weight in weights.items()]
        request = methods_pb.SetTrafficRequest(
            tenant=tenant, service=service, env=env, targets=targets, fallbacks=fallbacks
        )
        with self._changed:
            return self._set_traffic(request)

    # The service

    def Select(self, request: Any, context: Any) -> pb.SelectResponse:
        with self._entered("Select", request, context):
            has_moment = request.HasField("as_of")
            view = self._view_at(request.as_of, context) if has_moment else self._seen_by(request, context)
            answer = self._select(request, view)
            if isinstance(answer, Failure):
                abort(context, answer)
            route, choice = answer
            return pb.SelectResponse(route=route, choice=choice, provenance=self._provenance(view))

    def BatchSelect(self, request: Any, context: Any) -> pb.BatchSelectResponse:
        with self._entered("BatchSelect", request, context):
            assert 1 <= len(request.selections) <= 1000
            view = self._seen_by(request, context)
            response = pb.BatchSelectResponse()
            for number, each in enumerate(request.selections):
                answer = self._select(each, view)
                if number >= self.largest_batch:
                    answer = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large", "RESPONSE_TOO_LARGE")
                result = response.results.add(provenance=self._provenance(view))
                if isinstance(answer, Failure):
                    result.status.CopyFrom(answer.status())
                else:
                    result.route.CopyFrom(answer[0])
                    result.choice.CopyFrom(answer[1])
            return response

    def Explain(self, request: Any, context: Any) -> pb.ExplainResponse:
        with self._entered("Explain", request, context):
            family = family_of(request)
            response = pb.ExplainResponse(as_of_revision=len(self.changes), epoch=self.epoch)
            answer = self._resolve(request) if request.version else self._select(request, self.view)
            if isinstance(answer, Failure):
                response.status.CopyFrom(answer.status())
            elif isinstance(answer, route_pb2.Route):
                response.route.CopyFrom(answer)
            else:
                response.route.CopyFrom(answer[0])
                response.choice.CopyFrom(answer[1])
            if family in self.traffic:
                response.traffic.CopyFrom(self.traffic[family])
            layer = response.layers.add(source=pb.Provenance.SOURCE_LOCAL, held=True, as_of_revision=len(self.changes))
            layer.revision = response.route.revision
            layer.age.FromMilliseconds(250)
            response.layers.add(source=pb.Provenance.SOURCE_REDIS, problem="it cannot be reached")
            response.layers.add(
                source=pb.Provenance.SOURCE_POSTGRES,
                held=True,
                revision=layer.revision,
                as_of_revision=len(self.changes),
            )
            for change in self.changes:
                if parts_of(change.key)[:3] == family and request.version in {"", change.key.version}:
                    response.last_change.CopyFrom(change)
            permission = response.permission
            permission.subject, permission.permission, permission.allowed = (
                request.subject or "ada",
                "routes.read",
                True,
            )
            permission.rules.add(source="developers", allows=True, why="it permits routes.read in every tenant")
            return response

    def SetTraffic(self, request: Any, context: Any) -> methods_pb.SetTrafficResponse:
        with self._entered("SetTraffic", request, context):
            family = family_of(request)
            if sum(target.weight for target in request.targets) != POINTS:
                self._invalid("targets", "must have weights that add up to 10,000 basis points", context)
            names = [*(target.version for target in request.targets), *request.fallbacks]
            absent = [version for version in names if (*family, version) not in self.routes]
            if absent:
                details = {"key": "/".join(family), "versions": ",".join(absent)}
                message = f"{'/'.join(family)} has no version {','.join(absent)}: create it first"
                abort(context, Failure(grpc.StatusCode.FAILED_PRECONDITION, message, "TARGET_NOT_FOUND", details))
            if request.expected_revision:
                self._existing_traffic(request, context)
            return methods_pb.SetTrafficResponse(traffic=self._set_traffic(request), revision=len(self.changes))

    def GetTraffic(self, request: Any, context: Any) -> methods_pb.GetTrafficResponse:
        with self._entered("GetTraffic", request, context):
            if request.HasField("as_of"):
                view = self._view_at(request.as_of, context)
                found = view.traffic.get(family_of(request)) or self._no_traffic(request, context)
                return methods_pb.GetTrafficResponse(traffic=found, as_of_revision=view.revision)
            found = self._existing_traffic(request, context)
            return methods_pb.GetTrafficResponse(traffic=found, as_of_revision=len(self.changes))

    def ListTraffic(self, request: Any, context: Any) -> methods_pb.ListTrafficResponse:
        with self._entered("ListTraffic", request, context):
            found = [traffic for _, traffic in sorted(self.traffic.items()) if matches(request, traffic)]
            page, token = self._page(found, request)
            return methods_pb.ListTrafficResponse(traffic=page, next_page_token=token)

    def DeleteTraffic(self, request: Any, context: Any) -> methods_pb.DeleteTrafficResponse:
        with self._entered("DeleteTraffic", request, context):
            before = self._existing_traffic(request, context)
            self._put_traffic(family_of(request), before, None, request)
            return methods_pb.DeleteTrafficResponse(revision=len(self.changes))

    # How it works

    def _select(self, request: Any, view: View) -> tuple[route_pb2.Route, selection_pb2.Choice] | Failure:
        family = family_of(request)
        traffic, active = view.traffic.get(family), view.active(family)
        choice = _choose(traffic, active, request) if traffic else only_active(list(active))
        names = [*(target.version for target in traffic.targets), *traffic.fallbacks] if traffic else []
        versions = ",".join(names or active)
        details = {"key": "/".join(family), "versions": versions, "revision": str(view.revision), "epoch": view.epoch}
        if choice is None and active and not traffic:
            message = f"several versions of {'/'.join(family)} are active: {versions}; set traffic"
            return Failure(grpc.StatusCode.FAILED_PRECONDITION, message, "AMBIGUOUS_VERSION", details)
        if choice is None:
            message = f"no version of {'/'.join(family)} is active"
            return Failure(grpc.StatusCode.NOT_FOUND, message, "NO_ACTIVE_VERSION", details)
        chosen = selection_pb2.Choice(
            rule=RULES[choice.rule],
            version=choice.version,
            inactive_versions=choice.inactive_versions,
            traffic_revision=traffic.revision if traffic else 0,
        )
        return active[choice.version], chosen

    def _resolve(self, request: Any) -> route_pb2.Route | Failure:
        key = (*family_of(request), request.version)
        details = {"key": "/".join(key), "revision": str(len(self.changes))}
        if key not in self.routes:
            return Failure(grpc.StatusCode.NOT_FOUND, f"no route {'/'.join(key)}", "ROUTE_NOT_FOUND", details)
        if not self.routes[key].active:
            return Failure(grpc.StatusCode.NOT_FOUND, f"{'/'.join(key)} is not active", "ROUTE_INACTIVE", details)
        return self.routes[key]

    def _set_traffic(self, request: Any) -> traffic_pb2.Traffic:
        family = family_of(request)
        before = self.traffic.get(family)
        if before and (before.targets, before.fallbacks) == (request.targets, request.fallbacks):
            return before
        targets = [Target(target.version, target.weight) for target in request.targets]
        slices = allot(targets, [Slice(each.version, each.size) for each in before.slices] if before else ())
        traffic = traffic_pb2.Traffic(
            tenant=family[0],
            service=family[1],
            env=family[2],
            targets=request.targets,
            fallbacks=request.fallbacks,
            slices=[traffic_pb2.TrafficSlice(version=each.version, size=each.size) for each in slices],
        )
        self._put_traffic(family, before, traffic, request)
        return traffic

    def _put_traffic(
        self,
        family: tuple[str, ...],
        before: traffic_pb2.Traffic | None,
        after: traffic_pb2.Traffic | None,
        request: Any,
    ) -> None:
        key = route_pb2.RouteKey(tenant=family[0], service=family[1], env=family[2])
        if after is None:
            del self.traffic[family]
            self._record(route_pb2.CHANGE_KIND_TRAFFIC_DELETED, key, before, None, request)
            return
        after.revision = len(self.changes) + 1
        self._record(route_pb2.CHANGE_KIND_TRAFFIC_SET, key, before, after, request)
        after.update_time.CopyFrom(self.changes[-1].occur_time)
        after.create_time.CopyFrom(before.create_time if before else after.update_time)
        self.changes[-1].traffic_after.CopyFrom(after)
        self.traffic[family] = after

    def _existing_traffic(self, request: Any, context: Any) -> traffic_pb2.Traffic:
        found = self.traffic.get(family_of(request))
        if found is None:
            self._no_traffic(request, context)
        expected = getattr(request, "expected_revision", 0)
        if expected and expected != found.revision:
            details = {"expected_revision": str(expected), "revision": str(found.revision)}
            abort(context, Failure(grpc.StatusCode.ABORTED, "another revision", "REVISION_MISMATCH", details))
        return found

    def _no_traffic(self, request: Any, context: Any) -> NoReturn:
        family = "/".join(family_of(request))
        details = {"key": family, "revision": str(len(self.changes))}
        failure = Failure(grpc.StatusCode.NOT_FOUND, f"no traffic is set for {family}", "TRAFFIC_NOT_FOUND", details)
        abort(context, failure)

    def _check_not_named(self, key: Any, context: Any) -> None:
        traffic = self.traffic.get(parts_of(key)[:3])
        if traffic and key.version in {*(target.version for target in traffic.targets), *traffic.fallbacks}:
            details = {"key": text_of(key), "traffic_revision": str(traffic.revision)}
            message = f"the traffic names route {text_of(key)}: take it out of the traffic first"
            abort(context, Failure(grpc.StatusCode.FAILED_PRECONDITION, message, "ROUTE_IN_TRAFFIC", details))

    def _check_unused(self, request: Any, context: Any) -> None:
        """Refuse while ``usage`` has readers, however long ago they read."""
        if request.HasField("if_unused_for") and self.usage.readers:
            readers = ", ".join(f"{each.subject} {each.last_read_time.ToJsonString()}" for each in self.usage.readers)
            details = {"key": text_of(request.key), "readers": readers}
            message = f"route {text_of(request.key)} is in use: last read by {readers}"
            abort(context, Failure(grpc.StatusCode.FAILED_PRECONDITION, message, "ROUTE_IN_USE", details))

    def _invalid(self, name: str, description: str, context: Any) -> None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=name, description=description)
        details = (error_details_pb2.BadRequest(field_violations=[violation]),)
        code = grpc.StatusCode.INVALID_ARGUMENT
        abort(context, Failure(code, f"{name}: {description}", "INVALID_FIELD", details=details))

    def _view_at(self, as_of: Any, context: Any) -> View:
        last = len(self.changes)
        if as_of.HasField("revision"):
            revision = as_of.revision
        else:
            nanos = as_of.time.ToNanoseconds()
            revision = sum(change.occur_time.ToNanoseconds() <= nanos for change in self.changes)
        details = {"revision": str(revision), "last_revision": str(last), "oldest_revision": str(self.compacted)}
        if revision > last:
            message = f"there is no revision {revision} yet: the last one is {last}"
            abort(context, Failure(grpc.StatusCode.OUT_OF_RANGE, message, "REVISION_IN_FUTURE", details))
        if revision < self.compacted:
            message = f"the history is kept from revision {self.compacted} on"
            abort(context, Failure(grpc.StatusCode.OUT_OF_RANGE, message, "REVISION_COMPACTED", details))
        view = View({}, revision, self.epoch)
        for change in self.changes[:revision]:
            _replay(view, change)
        return view


def _replay(view: View, change: route_pb2.RouteChange) -> None:
    parts = parts_of(change.key)
    if change.key.version:
        view.routes.pop(parts, None)
        if change.HasField("after"):
            view.routes[parts] = change.after
    else:
        view.traffic.pop(parts[:3], None)
        if change.HasField("traffic_after"):
            view.traffic[parts[:3]] = change.traffic_after


def _choose(traffic: traffic_pb2.Traffic, active: dict[str, route_pb2.Route], request: Any) -> Choice | None:
    split = Split(
        "/".join(family_of(request)),
        [(each.version, each.size) for each in traffic.slices],
        [target.version for target in traffic.targets],
        list(traffic.fallbacks),
        active,
    )
    return split.choose(request.sticky_key)
