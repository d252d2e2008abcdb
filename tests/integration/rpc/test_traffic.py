"""SetTraffic, GetTraffic, ListTraffic and DeleteTraffic, on both transports."""

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import CHANGE_KIND_TRAFFIC_DELETED, CHANGE_KIND_TRAFFIC_SET, AsOf, RouteKey
from pointsman.v1.traffic_methods_pb2 import (
    DeleteTrafficRequest,
    GetTrafficRequest,
    ListTrafficRequest,
    SetTrafficRequest,
    SetTrafficResponse,
)
from pointsman.v1.traffic_pb2 import Traffic, TrafficTarget
from tests.support.refusals import refused

URL = "https://payments.internal:8443"


class Family:
    """A tenant, service and env with versions, and the calls for its traffic."""

    def __init__(self, stub, key: RouteKey) -> None:
        self.stub = stub
        self.names = {"tenant": key.tenant, "service": key.service, "env": key.env}
        for version in ("v1", "v2"):
            stub.Create(pb.CreateRequest(key=self.key(version), url=URL))

    def key(self, version: str) -> RouteKey:
        return RouteKey(version=version, **self.names)

    def wanted(self, *targets: tuple[str, int], **more) -> SetTrafficRequest:
        parts = [TrafficTarget(version=version, weight=weight) for version, weight in targets]
        return SetTrafficRequest(targets=parts, **self.names, **more)

    def set(self, *targets: tuple[str, int], **more) -> SetTrafficResponse:
        return self.stub.SetTraffic(self.wanted(*targets, **more))

    def get(self, **more) -> Traffic:
        return self.stub.GetTraffic(GetTrafficRequest(**self.names, **more)).traffic


@pytest.fixture
def family(grpc_stub, key: RouteKey) -> Family:
    return Family(grpc_stub, key)


def slices(traffic: Traffic) -> list[tuple[str, int]]:
    return [(each.version, each.size) for each in traffic.slices]


def test_what_was_set_is_read_and_each_step_moves_only_its_points(family):
    first = family.set(("v1", 10_000))
    second = family.set(("v1", 9_000), ("v2", 1_000), fallbacks=["v1"], reason="canary")
    third = family.set(("v1", 9_500), ("v2", 500), fallbacks=["v1"])
    assert first.revision == first.traffic.revision == second.revision - 1
    assert slices(first.traffic) == [("v1", 10_000)]
    assert slices(second.traffic) == [("v1", 9_000), ("v2", 1_000)]
    assert slices(third.traffic) == [("v1", 9_000), ("v2", 500), ("v1", 500)]
    assert third.traffic.create_time == first.traffic.create_time
    assert (list(third.traffic.fallbacks), family.get()) == (["v1"], third.traffic)
    changes = family.stub.ListChanges(pb.ListChangesRequest(tenant=family.names["tenant"])).changes
    assert [(change.kind, change.key.version) for change in changes[2:]] == [(CHANGE_KIND_TRAFFIC_SET, "")] * 3
    assert changes[3].reason == "canary"
    assert (changes[4].traffic_before, changes[4].traffic_after) == (second.traffic, third.traffic)


def test_setting_what_is_set_changes_nothing(family):
    first = family.set(("v1", 9_000), ("v2", 1_000))
    again = family.set(("v1", 9_000), ("v2", 1_000))
    assert again.traffic == first.traffic
    assert again.revision >= first.revision


def test_a_version_that_traffic_names_cannot_be_deleted_and_an_absent_one_cannot_be_named(family):
    refusal = refused(family.set, ("v1", 5_000), ("v8", 5_000), fallbacks=["v9"])
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TARGET_NOT_FOUND")
    assert refusal.metadata["versions"] == "v8,v9"
    set_ = family.set(("v1", 10_000), fallbacks=["v2"])
    for version in ("v1", "v2"):
        refusal = refused(family.stub.Delete, pb.DeleteRequest(key=family.key(version)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROUTE_IN_TRAFFIC")
        assert refusal.metadata["traffic_revision"] == str(set_.revision)
    family.set(("v1", 10_000))
    family.stub.Delete(pb.DeleteRequest(key=family.key("v2")))


def test_expected_revisions_guard_traffic(family):
    absent = refused(family.set, ("v1", 10_000), expected_revision=1)
    assert (absent.code, absent.reason) == (grpc.StatusCode.NOT_FOUND, "TRAFFIC_NOT_FOUND")
    first = family.set(("v1", 10_000))
    family.set(("v2", 10_000), expected_revision=first.revision)
    late = refused(family.set, ("v1", 10_000), expected_revision=first.revision)
    assert (late.code, late.reason) == (grpc.StatusCode.ABORTED, "REVISION_MISMATCH")
    late = refused(family.stub.DeleteTraffic, DeleteTrafficRequest(**family.names, expected_revision=first.revision))
    assert late.reason == "REVISION_MISMATCH"


def test_deleted_traffic_is_gone_and_stays_in_the_history(family):
    set_ = family.set(("v1", 10_000))
    deleted = family.stub.DeleteTraffic(DeleteTrafficRequest(**family.names, request_id="once", reason="done"))
    assert deleted.revision == set_.revision + 1
    gone = refused(family.get)
    assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "TRAFFIC_NOT_FOUND")
    assert int(gone.metadata["revision"]) >= deleted.revision
    again = family.stub.DeleteTraffic(DeleteTrafficRequest(**family.names, request_id="once", reason="done"))
    assert again == deleted
    assert refused(family.stub.DeleteTraffic, DeleteTrafficRequest(**family.names)).reason == "TRAFFIC_NOT_FOUND"
    changes = family.stub.ListChanges(pb.ListChangesRequest(tenant=family.names["tenant"])).changes
    assert [change.kind for change in changes[2:]] == [CHANGE_KIND_TRAFFIC_SET, CHANGE_KIND_TRAFFIC_DELETED]


def test_traffic_is_read_as_it_was(family):
    first = family.set(("v1", 10_000))
    second = family.set(("v2", 10_000))
    family.stub.DeleteTraffic(DeleteTrafficRequest(**family.names))
    assert family.get(as_of=AsOf(revision=first.revision)) == first.traffic
    assert family.get(as_of=AsOf(time=second.traffic.update_time)) == second.traffic
    absent = refused(family.get, as_of=AsOf(revision=first.revision - 1))
    assert (absent.reason, absent.metadata["revision"]) == ("TRAFFIC_NOT_FOUND", str(first.revision - 1))
    future = refused(family.get, as_of=AsOf(revision=second.revision + 1_000))
    assert (future.code, future.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_IN_FUTURE")


def test_a_retry_of_a_set_answers_the_same(family):
    first = family.set(("v1", 10_000), request_id="once")
    family.set(("v2", 10_000))
    assert family.set(("v1", 10_000), request_id="once") == first


@pytest.mark.parametrize(
    ("targets", "more", "field"),
    [
        ((("v1", 9_999),), {}, "targets"),
        ((("v1", 5_000), ("v1", 5_000)), {}, "targets[1].version"),
        ((("v1", 10_000),), {"fallbacks": ["v2", "v2"]}, "fallbacks[1]"),
        ((("v1", 10_001),), {}, "targets[0].weight"),
        ((), {}, "targets"),
    ],
)
def test_malformed_traffic_is_named(family, targets, more, field):
    refusal = refused(family.set, *targets, **more)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert field in refusal.fields


def test_traffic_is_listed_page_by_page(grpc_stub, key):
    services = [f"s{number}" for number in range(5)]
    for service in services:
        one = RouteKey(tenant=key.tenant, service=service, env="prod", version="v1")
        grpc_stub.Create(pb.CreateRequest(key=one, url=URL))
        grpc_stub.SetTraffic(
            SetTrafficRequest(
                tenant=key.tenant, service=service, env="prod", targets=[TrafficTarget(version="v1", weight=10_000)]
            )
        )
    request, pages = ListTrafficRequest(tenant=key.tenant, page_size=2), []
    while True:
        response = grpc_stub.ListTraffic(request)
        pages.append([traffic.service for traffic in response.traffic])
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
    assert pages == [["s0", "s1"], ["s2", "s3"], ["s4"]]
    request.service = "s1"
    assert refused(grpc_stub.ListTraffic, request).fields.keys() == {"page_token"}
