"""Select and BatchSelect, by a client, on real engines; and what was, as of a moment."""

import json
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pointsman.selection import Split
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import traffic_methods_pb2 as traffic_pb
from pointsman.v1 import usage_pb2
from pointsman.v1.route_pb2 import AsOf, RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.selection_pb2 import Choice
from pointsman.v1.traffic_pb2 import TrafficTarget
from pointsman_server.adapters.postgres.history.compaction import HistoryCompaction, HistoryPlan
from tests.support import selection_vectors
from tests.support.engines import fresh_database, fresh_redis
from tests.support.refusals import read, read_status, refused
from tests.support.servers import serving, settings
from tests.support.waiting import eventually

SOURCE = pb.Provenance
EXACT = pb.CONSISTENCY_FULLY_CONSISTENT
Code = grpc.StatusCode


class Family:
    """A tenant, service and env of its own."""

    def __init__(self, stub, key: RouteKey) -> None:
        self.stub = stub
        self.where = {"tenant": key.tenant, "service": key.service, "env": key.env}
        self.name = "/".join(self.where.values())

    def key(self, version: str) -> RouteKey:
        return RouteKey(**self.where, version=version)

    def create(self, *versions: str, active: bool = True) -> int:
        for version in versions:
            request = pb.CreateRequest(key=self.key(version), url=f"https://{version}.internal", active=active)
            revision = self.stub.Create(request).route.revision
        return revision

    def divide(self, *weights: tuple[str, int], fallbacks: tuple[str, ...] = ()) -> traffic_pb.SetTrafficResponse:
        targets = [TrafficTarget(version=version, weight=weight) for version, weight in weights]
        return self.stub.SetTraffic(traffic_pb.SetTrafficRequest(**self.where, targets=targets, fallbacks=fallbacks))

    def deactivate(self, version: str) -> int:
        return self.stub.Deactivate(pb.DeactivateRequest(key=self.key(version))).route.revision

    def select(self, sticky_key: str = "user-1", **more) -> pb.SelectResponse:
        return self.stub.Select(pb.SelectRequest(**self.where, sticky_key=sticky_key, **more))

    def refused(self, sticky_key: str = "user-1", **more):
        return refused(self.stub.Select, pb.SelectRequest(**self.where, sticky_key=sticky_key, **more))


@pytest.fixture
def family(grpc_stub, key) -> Family:
    return Family(grpc_stub, key)


def test_the_only_active_version_is_selected(family):
    revision = family.create("v1")
    response = family.select()
    assert response.route.url == "https://v1.internal"
    assert response.choice == Choice(rule=Choice.RULE_ONLY_ACTIVE, version="v1")
    assert response.provenance.as_of_revision >= revision
    assert response.provenance.epoch
    assert family.select().provenance.source == SOURCE.SOURCE_LOCAL
    assert family.select(consistency=EXACT).provenance.source == SOURCE.SOURCE_POSTGRES


def test_a_write_is_seen_by_the_select_that_follows_it(family):
    """By the process that made it at once, of routes and of traffic."""
    family.create("v1")
    assert family.select().choice.version == "v1"
    family.create("v2")
    assert family.refused().reason == "AMBIGUOUS_VERSION"
    revision = family.divide(("v2", 10_000)).revision
    assert family.select().choice == Choice(rule=Choice.RULE_SPLIT, version="v2", traffic_revision=revision)
    update = pb.UpdateRequest(key=family.key("v2"), url="https://new.internal")
    family.stub.Update(update)
    assert family.select().route.url == "https://new.internal"
    family.deactivate("v2")
    assert family.refused().reason == "NO_ACTIVE_VERSION"
    family.divide(("v2", 10_000), fallbacks=("v1",))
    assert family.select().choice.rule == Choice.RULE_FALLBACK
    family.stub.DeleteTraffic(traffic_pb.DeleteTrafficRequest(**family.where))
    assert family.select().choice == Choice(rule=Choice.RULE_ONLY_ACTIVE, version="v1")


def test_callers_are_divided_by_the_published_rule_and_only_the_share_moves(family):
    family.create("v1", "v2")
    family.divide(("v1", 9000), ("v2", 1000))
    before = {f"user-{number}": family.select(f"user-{number}").choice.version for number in range(300)}
    rule = Split(family.name, [("v1", 9000), ("v2", 1000)], ["v1", "v2"], [], ["v1", "v2"])
    assert before == {key: rule.choose(key).version for key in before}
    family.divide(("v1", 8000), ("v2", 2000))
    after = {key: family.select(key).choice.version for key in before}
    assert {(before[key], after[key]) for key in before if before[key] != after[key]} == {("v1", "v2")}


def test_the_vectors_hold_from_end_to_end(grpc_stub):
    """Those of one family, whose slices are made by two changes of its traffic."""
    vectors = {case["name"]: case for case in json.loads(selection_vectors.FILE.read_text("utf-8"))["cases"]}
    family = Family(grpc_stub, RouteKey(tenant="team-b", service="payments", env="prod"))
    family.create("v1", "v2")
    case = vectors["another family"]
    assert case["family"] == family.name
    family.divide(("v1", 5000), ("v2", 5000))
    for each in case["selections"]:
        assert family.select(each["sticky_key"]).choice.version == each["version"]


def test_an_empty_sticky_key_is_divided_at_random(family):
    family.create("v1", "v2")
    family.divide(("v1", 5000), ("v2", 5000))
    assert set(Counter(family.select("").choice.version for _ in range(60))) == {"v1", "v2"}


def test_a_batch_answers_each_as_select_does(family, grpc_stub):
    family.create("v1", "v2", "v3")
    family.divide(("v1", 3000), ("v2", 3000), ("v3", 4000))
    family.deactivate("v3")
    keys = [f"user-{number}" for number in range(200)]
    selections = [pb.Selection(**family.where, sticky_key=key) for key in keys]
    absent = pb.Selection(**{**family.where, "service": "mail"}, sticky_key="x")
    response = grpc_stub.BatchSelect(pb.BatchSelectRequest(selections=[*selections, absent]))
    single = [family.select(key) for key in keys]
    assert [result.route for result in response.results[:-1]] == [each.route for each in single]
    assert [result.choice for result in response.results[:-1]] == [each.choice for each in single]
    assert {tuple(result.choice.inactive_versions) for result in response.results} == {(), ("v3",)}
    assert read_status(response.results[-1].status, None, "", {}).reason == "NO_ACTIVE_VERSION"
    again = grpc_stub.BatchSelect(pb.BatchSelectRequest(selections=selections))
    assert {result.provenance.source for result in again.results} == {SOURCE.SOURCE_LOCAL}
    assert [result.choice for result in again.results] == [each.choice for each in single]


def test_min_revision_is_reached_or_refused(family):
    revision = family.create("v1")
    assert family.select(min_revision=revision).provenance.as_of_revision >= revision
    refusal = family.refused(min_revision=revision + 1_000_000)
    assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "REVISION_NOT_REACHED")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"sticky_key": "k" * 257}, "sticky_key"),
        ({"env": ""}, "env"),
        ({"tenant": "a b"}, "tenant"),
        ({"min_revision": -1}, "min_revision"),
        ({"as_of": AsOf()}, "as_of"),
        ({"as_of": AsOf(revision=1), "min_revision": 1}, "min_revision"),
        ({"as_of": AsOf(time=Timestamp(seconds=-(10**15)))}, "as_of.time"),
    ],
)
def test_what_is_invalid_is_refused_by_its_field(grpc_stub, more, field):
    request = pb.SelectRequest(**{"tenant": "a", "service": "b", "env": "c", **more})
    refusal = refused(grpc_stub.Select, request)
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "INVALID_FIELD")
    assert list(refusal.fields) == [field]


def test_a_resolve_of_a_key_without_a_version_is_refused_although_its_family_is_held(family, grpc_stub):
    family.create("v1")
    family.select()
    for call, request in (
        (grpc_stub.Resolve, pb.ResolveRequest(key=family.key(""))),
        (grpc_stub.BatchResolve, pb.BatchResolveRequest(keys=[family.key("")])),
    ):
        assert refused(call, request).code == Code.INVALID_ARGUMENT


# As of a moment


def test_reads_as_of_a_revision_see_what_was_then(family, grpc_stub):
    first = family.create("v1")
    family.create("v2")
    divided = family.divide(("v1", 10_000)).revision
    moved = family.divide(("v2", 10_000)).revision
    gone = family.deactivate("v1")

    def at(revision: int) -> dict[str, AsOf]:
        return {"as_of": AsOf(revision=revision)}

    assert family.select(**at(first)).choice == Choice(rule=Choice.RULE_ONLY_ACTIVE, version="v1")
    assert family.select(**at(divided)).choice == Choice(rule=Choice.RULE_SPLIT, version="v1", traffic_revision=divided)
    assert family.select(**at(moved)).choice.version == "v2"
    assert family.select(**at(divided)).provenance.as_of_revision == divided
    assert family.refused(**at(first - 1)).reason == "NO_ACTIVE_VERSION"

    get = grpc_stub.Get(pb.GetRequest(key=family.key("v1"), **at(moved)))
    assert (get.route.active, get.as_of_revision) == (True, moved)
    assert not grpc_stub.Get(pb.GetRequest(key=family.key("v1"), **at(gone))).route.active
    refusal = refused(grpc_stub.Get, pb.GetRequest(key=family.key("v1"), **at(first - 1)))
    assert (refusal.reason, refusal.metadata["revision"]) == ("ROUTE_NOT_FOUND", str(first - 1))
    traffic = grpc_stub.GetTraffic(traffic_pb.GetTrafficRequest(**family.where, **at(divided)))
    assert [target.version for target in traffic.traffic.targets] == ["v1"]
    listed = grpc_stub.List(pb.ListRequest(**family.where, **at(first)))
    assert ([route.key.version for route in listed.routes], listed.as_of_revision) == (["v1"], first)


def test_pages_of_a_list_stay_at_the_moment_of_the_first(family, grpc_stub):
    family.create("v1", "v2", "v3")
    now = Timestamp()
    now.GetCurrentTime()
    request = pb.ListRequest(**family.where, page_size=1, as_of=AsOf(time=now))
    page = grpc_stub.List(request)
    family.deactivate("v3")
    revision, found = page.as_of_revision, list(page.routes)
    while page.next_page_token:
        request.page_token = page.next_page_token
        page = grpc_stub.List(request)
        assert page.as_of_revision == revision
        found += page.routes
    assert [(route.key.version, route.active) for route in found] == [("v1", True), ("v2", True), ("v3", True)]


def test_a_time_is_that_of_the_change(family, grpc_stub):
    family.create("v1")
    change = list(grpc_stub.ListChanges(pb.ListChangesRequest(**family.where)).changes)[-1]
    family.deactivate("v1")
    get = grpc_stub.Get(pb.GetRequest(key=family.key("v1"), as_of=AsOf(time=change.occur_time)))
    assert get.route.active
    assert get.as_of_revision >= change.revision


def test_what_is_ahead_is_refused(family, grpc_stub):
    revision = family.create("v1")
    refusal = family.refused(as_of=AsOf(revision=revision + 1_000_000))
    assert (refusal.code, refusal.reason) == (Code.OUT_OF_RANGE, "REVISION_IN_FUTURE")
    tomorrow = Timestamp()
    tomorrow.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    refusal = refused(grpc_stub.List, pb.ListRequest(as_of=AsOf(time=tomorrow)))
    assert (refusal.code, refusal.reason) == (Code.OUT_OF_RANGE, "REVISION_IN_FUTURE")


def test_changes_are_listed_between_times(family, grpc_stub):
    family.create("v1", "v2", "v3")
    changes = list(grpc_stub.ListChanges(pb.ListChangesRequest(**family.where)).changes)
    later = pb.ListChangesRequest(**family.where, after_time=changes[0].occur_time)
    assert list(grpc_stub.ListChanges(later).changes) == changes[1:]
    until = pb.ListChangesRequest(**family.where, before_time=changes[1].occur_time, newest_first=True)
    assert list(grpc_stub.ListChanges(until).changes) == changes[1::-1]


def test_hits_are_answered_by_the_fast_path(family, grpc_server, monkeypatch):
    family.create("v1", "v2")
    family.divide(("v1", 5000), ("v2", 5000))
    family.select()
    counters = grpc_server.app.grpc_server.counters.selects
    hits: list[str] = []
    one, many = counters.selected_locally, counters.batch_selected
    monkeypatch.setattr(counters, "selected_locally", lambda *call: (hits.append("Select"), one(*call)))
    monkeypatch.setattr(counters, "batch_selected", lambda *call: (hits.append("BatchSelect"), many(*call)))
    family.select()
    selections = [pb.Selection(**family.where, sticky_key=key) for key in ("a", "b")]
    family.stub.BatchSelect(pb.BatchSelectRequest(selections=selections))
    assert hits == ["Select", "BatchSelect"]


async def _compact(app, revision: int) -> None:
    async for _ in HistoryCompaction(app.database).run(HistoryPlan(revision, 0)):
        pass


def test_what_is_compacted_is_said_where_it_was_asked_for(family, grpc_server, grpc_stub):
    first = family.create("v1", "v2", "v3")
    oldest = grpc_stub.ListChanges(pb.ListChangesRequest(**family.where)).changes[0]
    grpc_server.run(_compact(grpc_server.app, first))
    family.deactivate("v3")

    def compacted(call, request) -> str:
        refusal = refused(call, request)
        assert (refusal.code, refusal.reason) == (Code.OUT_OF_RANGE, "REVISION_COMPACTED")
        return refusal.metadata["oldest_revision"]

    before = AsOf(revision=first - 1)
    assert compacted(grpc_stub.Select, pb.SelectRequest(**family.where, as_of=before)) == str(first)
    assert compacted(grpc_stub.Get, pb.GetRequest(key=family.key("v1"), as_of=before)) == str(first)
    assert compacted(grpc_stub.List, pb.ListRequest(**family.where, as_of=before)) == str(first)
    then = AsOf(time=oldest.occur_time)
    assert compacted(grpc_stub.GetTraffic, traffic_pb.GetTrafficRequest(**family.where, as_of=then)) == str(first)
    for bound in ({"after_revision": first - 1}, {"after_time": oldest.occur_time}):
        assert compacted(grpc_stub.ListChanges, pb.ListChangesRequest(**family.where, **bound)) == str(first)

    # The state of the compacted revision itself is known, and what is kept is listed without a bound, or from there on.
    assert len(grpc_stub.List(pb.ListRequest(**family.where, as_of=AsOf(revision=first))).routes) == 3
    for bound in ({}, {"after_revision": first}, {"before_revision": first}, {"newest_first": True}):
        changes = grpc_stub.ListChanges(pb.ListChangesRequest(**family.where, **bound)).changes
        assert len(changes) == (0 if "before_revision" in bound else 1)


# Two servers


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def pair(request, engines, template_database):
    """Two servers on one database and one Redis, whose local caches are held for as long as the feed runs."""
    redis_url = fresh_redis(engines.urls["REDIS_URL"])
    with fresh_database(template_database) as database_url, ExitStack() as stack:
        chosen = settings(
            transport=request.param, database_url=database_url, redis_url=redis_url, cache_local_ttl_seconds=60
        )
        servers = [stack.enter_context(serving(chosen)) for _ in range(2)]
        channels = [stack.enter_context(grpc.insecure_channel(server.address)) for server in servers]
        yield [RouteServiceStub(channel) for channel in channels]


def test_another_server_hears_of_each_change_of_a_family(pair, key):
    one, other = (Family(stub, key) for stub in pair)
    one.create("v1", "v2")
    one.divide(("v1", 10_000))
    assert other.select(min_revision=one.divide(("v2", 10_000)).revision).choice.version == "v2"

    assert other.select().provenance.source == SOURCE.SOURCE_LOCAL
    one.deactivate("v2")
    assert eventually(lambda: _refusal(other) == "NO_ACTIVE_VERSION")
    one.divide(("v2", 10_000), fallbacks=("v1",))
    assert eventually(lambda: _refusal(other) == "")
    assert other.select().choice.rule == Choice.RULE_FALLBACK
    for _ in range(5):
        revision = one.divide(("v1", 10_000)).revision
        assert other.select(min_revision=revision).choice.traffic_revision == revision
        revision = one.divide(("v2", 10_000), fallbacks=("v1",)).revision
        assert eventually(lambda: other.select().choice.traffic_revision == revision)  # noqa: B023


def _refusal(family: Family) -> str:
    try:
        family.select()
    except grpc.RpcError as error:
        return read(error).reason
    return ""


# What is counted


def test_reads_are_counted_for_the_version_that_was_selected(family, grpc_server, grpc_stub):
    family.create("v1", "v2")
    family.divide(("v1", 10_000))
    # After many reads, only some are counted.
    grpc_server.run(grpc_server.app.usage.recorder.flush())
    for _ in range(3):
        family.select()
    used = {
        version: grpc_stub.GetUsage(usage_pb2.GetUsageRequest(key=family.key(version))).readers
        for version in ("v1", "v2")
    }
    assert [reader.subject for reader in used["v1"]] == ["anonymous"]
    assert not used["v2"]
