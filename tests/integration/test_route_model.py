"""Mutations, change sets, reverts, imports, traffic and compactions in random order, against a plain model.

After each step the server is held to the model: its state, the history, what was at earlier revisions and times, and
what Select chooses, now and then.
"""

import itertools
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pointsman.v1 import route_pb2, traffic_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.selection_pb2 import Choice
from pointsman.v1.traffic_methods_pb2 import (
    DeleteTrafficRequest,
    GetTrafficRequest,
    ListTrafficRequest,
    SetTrafficRequest,
)
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.history.compaction import HistoryCompaction, HistoryPlan
from tests.support.refusals import Refusal, read, refused
from tests.support.route_model import POINTS, Change, Refused, Route, RouteModel, Traffic, select, text
from tests.support.servers import RunningServer, serving
from tests.support.servers import settings as server_settings

SERVICES, VERSIONS = ("payments", "users"), ("v0", "v1", "v2")
URLS = tuple(f"https://{name}.internal" for name in ("one", "two", "three"))
LABELS: Sequence[dict[str, str]] = ({}, {"team": "a"})
KINDS = ("set", "update", "set", "activate", "set", "deactivate", "update", "delete", "create", "unset")
SECONDS = 10.0
_numbers = itertools.count(1)

labels = st.sampled_from(LABELS).map(lambda chosen: pb.Labels(labels=chosen))
urls = st.sampled_from(URLS)
weights = st.tuples(*[st.sampled_from((0, 500, 2000, 3333, 4000))] * 2).map(lambda two: (*two, POINTS - sum(two)))


class RouteMachine(RuleBasedStateMachine):
    """The server, and what it ought to be. Each run has a tenant of its own."""

    server: RunningServer
    stub: Any
    database_url: str

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.tenant, self.dice = f"model-{next(_numbers)}", random.Random(seed)
        with psycopg.connect(self.database_url) as connection:
            query = "SELECT revision, (SELECT coalesce(max(revision), 0) FROM history_compactions) FROM clock"
            ((revision, compacted),) = connection.execute(query).fetchall()
        self.model = RouteModel(revision)
        self.model.compacted = compacted
        self.told = self.reverted = revision
        self.moments: list[tuple[int, int]] = []  # nanoseconds and revision, of the last change at each
        self.answered: list[tuple[str, Any, Any]] = []
        created = [
            pb.Mutation(create=pb.CreateRequest(key=self.key(s, v), url=URLS[0])) for s in SERVICES for v in VERSIONS
        ]
        self.commit_these([*created, self.traffic(SERVICES[0], (3000, 3000, 4000), VERSIONS[:1])])
        self.reverted = self.model.revision

    # What may be done

    @rule(data=st.data())
    def one(self, data: st.DataObject) -> None:
        """A mutation by its own method."""
        mutation = self.draw_mutation(data)
        name = mutation.WhichOneof("mutation") or ""
        request = getattr(mutation, name)
        request.request_id = self.request_id()
        method = name.title().replace("_", "")
        reply = self.same(lambda: self.model.commit([mutation]), method, request)
        if reply is not None:
            self.answered.append((method, request, reply))

    @rule(data=st.data(), size=st.integers(1, 5), dry_run=st.booleans())
    def commit(self, data: st.DataObject, size: int, dry_run: bool) -> None:
        """Several at once."""
        self.commit_these([self.draw_mutation(data) for _ in range(size)], dry_run=dry_run)

    @precondition(lambda self: self.model.revision > self.reverted)
    @rule(data=st.data(), whole=st.booleans(), force=st.booleans(), dry_run=st.booleans())
    def revert(self, data: st.DataObject, whole: bool, force: bool, dry_run: bool) -> None:
        """Undo a change set, or a range of revisions."""
        latest = self.model.changes[-data.draw(st.sampled_from((1, 1, 5, 20))) :]
        first = data.draw(st.sampled_from(latest))
        request = pb.RevertRequest(force=force, request_id=self.request_id())
        if whole:
            bounds = first.set_id, first.set_id + first.set_size - 1
            request.change_set_id = first.set_id
        else:
            # Drawn as a length, because revisions differ from run to run.
            bounds = first.revision, min(first.revision + data.draw(st.integers(0, 9)), self.model.revision)
            request.first_revision, request.last_revision = bounds
        self.twice("Revert", request, lambda dry: self.model.revert(*bounds, force=force, dry_run=dry), dry_run=dry_run)
        # Something else comes first: undoing what was undone, over and over, leaves little to find.
        self.reverted = self.model.revision

    @rule(data=st.data(), size=st.integers(1, 4), existing=st.sampled_from((1, 1, 2, 3)))
    def import_(self, data: st.DataObject, size: int, existing: int) -> None:
        """Routes from a file."""
        keys = data.draw(st.lists(st.tuples(*map(st.sampled_from, (SERVICES, VERSIONS))), min_size=size, unique=True))
        request = pb.ImportRequest(existing=existing, request_id=self.request_id())  # type: ignore[arg-type]
        for service, version in keys:
            key = self.key(service, version)
            wanted = request.routes.add(
                key=key, url=data.draw(urls), expected_revision=self.draw_revision(data, text(key))
            )
            if data.draw(st.booleans()):
                wanted.active = data.draw(st.booleans())
            if data.draw(st.booleans()):
                wanted.labels.CopyFrom(data.draw(labels))
        reply = self.same(lambda: self.model.import_(request), "Import", request)
        if reply is not None:
            assert reply.revision == self.model.revision

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """A retry of what was answered changes nothing, and is answered the same."""
        method, request, reply = data.draw(st.sampled_from(self.answered[-5:]))
        if method == "Revert" and (request.change_set_id or request.first_revision) <= self.model.compacted:
            return  # what it undid is not in the history any more, so it is refused
        repeated = getattr(self.stub, method)(request, timeout=SECONDS)
        if hasattr(reply, "change_set_id") and reply.change_set_id <= self.model.compacted:
            return  # its own changes are not
        assert repeated == reply

    @rule(back=st.integers(0, 12))
    def compact(self, back: int) -> None:
        """Forget what is older than a change set."""
        ends = [change.set_id + change.set_size - 1 for change in self.model.changes]
        revision = ends[-1 - back] if back < len(ends) else 0
        if revision > self.model.compacted:
            self.server.run(compact(self.database_url, revision))
            self.model.compacted = revision

    # What must hold

    @invariant()
    def is_as_it_ought_to_be(self) -> None:
        assert self.listed() == routes_only(self.model.now)
        reply = self.stub.ListTraffic(ListTrafficRequest(tenant=self.tenant), timeout=SECONDS)
        assert {traffic_key(each): traffic_of(each) for each in reply.traffic} == traffic_only(self.model.now)
        for service in SERVICES:
            self.selects(service, self.model.now, self.model.revision, None)

    @invariant()
    def has_the_history(self) -> None:
        request = pb.ListChangesRequest(tenant=self.tenant, after_revision=self.told, page_size=1000)
        told = self.stub.ListChanges(request, timeout=SECONDS).changes
        assert [change_of(each) for each in told] == [each for each in self.model.changes if each.revision > self.told]
        for change in told:
            moment = change.occur_time.ToNanoseconds()
            if self.moments and self.moments[-1][0] == moment:
                self.moments.pop()
            self.moments.append((moment, change.revision))
        assert self.moments == sorted(self.moments)
        self.told = self.model.revision

    @invariant()
    def tells_what_was(self) -> None:
        revision = self.dice.randint(self.model.base, self.model.revision + (self.dice.random() < 0.1))
        self.was(revision, route_pb2.AsOf(revision=revision))

    @invariant()
    def tells_what_was_when(self) -> None:
        place = self.dice.randrange(len(self.moments))
        moment, revision = self.moments[place]
        if place and self.dice.random() < 0.5:
            # Timestamps of the database have microseconds.
            moment, revision = moment - 1000, self.moments[place - 1][1]
        if revision == self.model.compacted:
            return  # what was then is known, but not when it was made
        time = Timestamp()
        time.FromNanoseconds(moment)
        self.was(revision, route_pb2.AsOf(time=time))

    # How

    def was(self, revision: int, as_of: route_pb2.AsOf) -> None:
        service, version = self.dice.choice(SERVICES), self.dice.choice(VERSIONS)
        get = pb.GetRequest(key=self.key(service, version), as_of=as_of)
        division = GetTrafficRequest(tenant=self.tenant, service=service, env="prod", as_of=as_of)
        try:
            state = self.model.at(revision)
        except Refused as error:
            answers = [refused(self.stub.Get, get), refused(self.stub.GetTraffic, division)]
            answers.append(refused(self.stub.List, pb.ListRequest(tenant=self.tenant, as_of=as_of)))
            answers.append(refused(self.stub.Select, self.selection(service, "me", as_of)))
            assert {each.reason for each in answers} == set(error.reasons)
            return
        assert self.listed(as_of, revision) == routes_only(state)
        found = self.got("Get", get, revision, "ROUTE_NOT_FOUND")
        assert (found and route_of(found.route)) == state.get(f"{self.tenant}/{service}/prod/{version}")
        found = self.got("GetTraffic", division, revision, "TRAFFIC_NOT_FOUND")
        assert (found and traffic_of(found.traffic)) == state.get(f"{self.tenant}/{service}/prod/")
        self.selects(service, state, revision, as_of)

    def got(self, method: str, request: Any, revision: int, absent: str) -> Any:
        try:
            reply = getattr(self.stub, method)(request, timeout=SECONDS)
        except grpc.RpcError as error:
            refusal = read(error)
            assert (refusal.reason, refusal.metadata["revision"]) == (absent, str(revision))
            return None
        assert reply.as_of_revision == revision
        return reply

    def listed(self, as_of: route_pb2.AsOf | None = None, revision: int = 0) -> dict[str, Route]:
        found: dict[str, Route] = {}
        request = pb.ListRequest(tenant=self.tenant, page_size=self.dice.choice((2, 4, 100)), as_of=as_of)
        while True:
            reply = self.stub.List(request, timeout=SECONDS)
            assert reply.as_of_revision == revision
            found |= {text(each.key): route_of(each) for each in reply.routes}
            request.page_token = reply.next_page_token
            if not reply.next_page_token:
                return found

    def selection(self, service: str, sticky_key: str, as_of: route_pb2.AsOf | None) -> pb.SelectRequest:
        return pb.SelectRequest(tenant=self.tenant, service=service, env="prod", sticky_key=sticky_key, as_of=as_of)

    def selects(self, service: str, state: Any, revision: int, as_of: route_pb2.AsOf | None) -> None:
        family, sticky_key = f"{self.tenant}/{service}/prod", f"caller-{self.dice.randrange(1000)}"
        request = self.selection(service, sticky_key, as_of)
        try:
            expected = select(state, family, sticky_key)
        except Refused as error:
            assert refused(self.stub.Select, request).reason in error.reasons
            return
        if expected is None:
            refusal = refused(self.stub.Select, request)
            assert refusal.reason == "NO_ACTIVE_VERSION"
            assert as_of is None or refusal.metadata["revision"] == str(revision)
            return
        reply = self.stub.Select(request, timeout=SECONDS)
        version, rule_name, passed = expected
        traffic = state.get(f"{family}/")
        assert reply.choice == Choice(
            rule=Choice.Rule.Value(f"RULE_{rule_name}"),
            version=version,
            inactive_versions=passed,
            traffic_revision=traffic.revision if traffic else 0,
        )
        assert (text(reply.route.key), route_of(reply.route)) == (f"{family}/{version}", state[f"{family}/{version}"])
        if as_of is not None:
            assert reply.provenance.as_of_revision == revision

    def commit_these(self, mutations: Sequence[pb.Mutation], *, dry_run: bool = False) -> None:
        request = pb.CommitRequest(mutations=mutations, request_id=self.request_id())

        def expect(dry: bool) -> list[Change]:
            steps = self.model.commit(mutations, dry_run=dry)
            self.steps = [(step[0].revision if step else 0, len(step)) for step in steps]
            return [change for step in steps for change in step]

        reply = self.twice("Commit", request, expect, dry_run=dry_run)
        if reply is not None:
            assert [(each.first_revision, each.change_count) for each in reply.mutations] == self.steps

    def twice(self, method: str, request: Any, expect: Callable[[bool], list[Change]], *, dry_run: bool) -> Any:
        """Make a change set, with ``dry_run`` after a dry run, which must answer the same and change nothing."""
        foretold = None
        if dry_run:
            request.dry_run = True
            foretold = self.same(lambda: expect(True), method, request)
            self.is_as_it_ought_to_be()
            request.dry_run = False
        revision = self.model.revision
        reply = self.same(lambda: expect(False), method, request)
        if reply is None:
            assert foretold is None
            return None
        made = [each for each in self.model.changes if each.revision > revision]
        assert [change_of(each) for each in reply.changes] == made
        assert (reply.change_set_id, reply.revision) == (made[0].set_id if made else 0, self.model.revision)
        if foretold is not None:
            assert foretold.revision == revision
            foretold.revision = reply.revision
            assert without_moments(foretold) == without_moments(reply)
        self.answered.append((method, request, reply))
        return reply

    def same(self, expect: Callable[[], object], method: str, request: Any) -> Any:
        """Call, and return the reply, or None where it is refused, as it is expected to be."""
        try:
            expect()
        except Refused as error:
            refusal = refused(getattr(self.stub, method), request, timeout=SECONDS)
            assert refusal.reason in error.reasons, (request, refusal)
            if method == "Commit":
                assert named(refusal) == [f"mutations[{index}]" for index in error.indexes]
            return None
        return getattr(self.stub, method)(request, timeout=SECONDS)

    def request_id(self) -> str:
        return f"r{next(_numbers)}"

    def key(self, service: str, version: str) -> route_pb2.RouteKey:
        return route_pb2.RouteKey(tenant=self.tenant, service=service, env="prod", version=version)

    def traffic(self, service: str, shares: Sequence[int], fallbacks: Sequence[str], expected: int = 0) -> pb.Mutation:
        targets = [traffic_pb2.TrafficTarget(version=v, weight=w) for v, w in zip(VERSIONS, shares, strict=True)]
        # A target without weight may be left out, too; so a version can be deleted.
        targets = [each for each in targets if each.weight or each.version in fallbacks]
        names: Any = {"tenant": self.tenant, "service": service, "env": "prod", "expected_revision": expected}
        return pb.Mutation(set_traffic=SetTrafficRequest(targets=targets, fallbacks=fallbacks, **names))

    def draw_revision(self, data: st.DataObject, key: str) -> int:
        """Return mostly 0, the revision of the key, or another one."""
        known = self.model.now.get(key)
        return data.draw(
            st.sampled_from((*[0] * 12, known.revision if known else 0, known.revision if known else 0, 1))
        )

    def draw_kind(self, data: st.DataObject, key: str) -> str:
        kind = data.draw(st.sampled_from(KINDS))
        # Most of what is drawn is to be accepted.
        exists = kind == "create" and key in self.model.now
        return "update" if exists and data.draw(st.integers(0, 3)) else kind

    def draw_mutation(self, data: st.DataObject) -> pb.Mutation:
        service, version = data.draw(st.sampled_from(SERVICES)), data.draw(st.sampled_from(VERSIONS))
        key = self.key(service, version)
        kind = self.draw_kind(data, text(key))
        if kind in ("set", "unset"):
            expected = self.draw_revision(data, f"{self.tenant}/{service}/prod/")
            if kind == "unset":
                names: Any = {"tenant": self.tenant, "service": service, "env": "prod", "expected_revision": expected}
                return pb.Mutation(delete_traffic=DeleteTrafficRequest(**names))
            return self.traffic(
                service, data.draw(weights), data.draw(st.sampled_from(((), ("v0",), ("v2", "v1")))), expected
            )
        if kind == "create":
            return pb.Mutation(create=pb.CreateRequest(key=key, url=data.draw(urls), active=data.draw(st.booleans())))
        expected = self.draw_revision(data, text(key))
        if kind == "update":
            allow_missing = not expected and data.draw(st.booleans())
            request = pb.UpdateRequest(
                key=key, url=data.draw(urls), expected_revision=expected, allow_missing=allow_missing
            )
            if data.draw(st.booleans()):
                request.labels.CopyFrom(data.draw(labels))
            return pb.Mutation(update=request)
        if kind == "activate":
            exclusive = data.draw(st.booleans())
            return pb.Mutation(activate=pb.ActivateRequest(key=key, expected_revision=expected, exclusive=exclusive))
        if kind == "deactivate":
            return pb.Mutation(deactivate=pb.DeactivateRequest(key=key, expected_revision=expected))
        return pb.Mutation(delete=pb.DeleteRequest(key=key, expected_revision=expected))


async def compact(url: str, revision: int) -> None:
    """Compact the history, as the command does."""
    database = Database(url, pooled=True, pool_min=0, pool_max=1, timeout=SECONDS)
    await database.open()
    try:
        async for _ in HistoryCompaction(database).run(HistoryPlan(revision, 0)):
            pass
    finally:
        await database.close()


def routes_only(state: Any) -> dict[str, Route]:
    return {key: thing for key, thing in state.items() if isinstance(thing, Route)}


def traffic_only(state: Any) -> dict[str, Traffic]:
    return {key: thing for key, thing in state.items() if isinstance(thing, Traffic)}


def route_of(message: route_pb2.Route) -> Route:
    return Route(message.url, message.active, dict(message.labels), message.revision)


def traffic_of(message: traffic_pb2.Traffic) -> Traffic:
    points = [each.version for each in message.slices for _ in range(each.size)]
    targets = {each.version: each.weight for each in message.targets}
    return Traffic(targets, list(message.fallbacks), points, message.revision)


def traffic_key(message: traffic_pb2.Traffic) -> str:
    return f"{message.tenant}/{message.service}/{message.env}/"


def change_of(message: route_pb2.RouteChange) -> Change:
    before = route_of(message.before) if message.HasField("before") else None
    after = route_of(message.after) if message.HasField("after") else None
    return Change(
        message.revision,
        route_pb2.ChangeKind.Name(message.kind).removeprefix("CHANGE_KIND_"),
        text(message.key),
        traffic_of(message.traffic_before) if message.HasField("traffic_before") else before,
        traffic_of(message.traffic_after) if message.HasField("traffic_after") else after,
        message.change_set_id,
        message.change_set_size,
    )


def without_moments(reply: Any) -> Any:
    """Return a reply without what a dry run cannot know: times, ids of events."""
    reply = type(reply).FromString(reply.SerializeToString())
    for change in reply.changes:
        change.event_id = ""
        change.ClearField("occur_time")
        for each in (change.before, change.after, change.traffic_before, change.traffic_after):
            each.ClearField("update_time")
            each.ClearField("create_time")
    return reply


def named(refusal: Refusal) -> list[str]:
    return sorted(refusal.fields, key=lambda field: int(field[10:-1]))


@pytest.mark.engines
def test_the_server_does_what_a_plain_model_does(
    database_url: str, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    # A line for each of thousands of calls takes a fifth of the time.
    caplog.set_level(logging.WARNING, "pointsman_server")
    chosen = server_settings(database_url=database_url, redis_url=redis_url)
    with serving(chosen) as server, grpc.insecure_channel(server.address) as channel:
        RouteMachine.server, RouteMachine.database_url = server, database_url
        RouteMachine.stub = RouteServiceStub(channel)
        run_state_machine_as_test(
            RouteMachine,
            settings=settings(
                max_examples=20,
                stateful_step_count=20,
                deadline=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
