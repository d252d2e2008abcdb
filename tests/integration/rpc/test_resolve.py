"""Resolve and BatchResolve, by a client."""

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from tests.support.refusals import read_status, refused

URL = "https://payments-v1.internal:8443/base?x=1"
SOURCE = pb.Provenance.Source


def version(key: RouteKey, name: str) -> RouteKey:
    return RouteKey(tenant=key.tenant, service=key.service, env=key.env, version=name)


def test_a_created_route_resolves_at_once(grpc_stub, key):
    created = grpc_stub.Create(pb.CreateRequest(key=key, url=URL, labels={"tier": "gold"})).route

    response = grpc_stub.Resolve(pb.ResolveRequest(key=key))

    assert response.route == created
    assert response.route.url == URL
    assert response.route.active
    assert response.provenance.as_of_revision >= created.revision
    assert response.provenance.epoch


def test_the_process_that_wrote_answers_from_its_own_cache(grpc_stub, key):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))

    assert grpc_stub.Resolve(pb.ResolveRequest(key=key)).provenance.source == SOURCE.SOURCE_LOCAL


def test_fully_consistent_goes_past_every_cache(grpc_stub, key):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))

    response = grpc_stub.Resolve(pb.ResolveRequest(key=key, consistency=pb.CONSISTENCY_FULLY_CONSISTENT))

    assert response.provenance.source == SOURCE.SOURCE_POSTGRES
    assert response.provenance.age.ToNanoseconds() == 0


def test_an_absent_route_is_not_found_as_of_a_revision(grpc_stub, key):
    refusal = refused(grpc_stub.Resolve, pb.ResolveRequest(key=key))

    assert (refusal.code, refusal.reason, refusal.domain) == (
        grpc.StatusCode.NOT_FOUND,
        "ROUTE_NOT_FOUND",
        "pointsman.v1",
    )
    assert refusal.metadata["key"] == f"{key.tenant}/payments/prod/v1"
    assert int(refusal.metadata["revision"]) >= 0


def test_every_layer_and_absence_too_say_the_epoch(grpc_stub, grpc_server, key):
    epoch = grpc_server.app.epochs.epoch
    absent = refused(grpc_stub.Resolve, pb.ResolveRequest(key=key)).metadata["epoch"]
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    near = grpc_stub.Resolve(pb.ResolveRequest(key=key)).provenance.epoch
    store = grpc_stub.Resolve(pb.ResolveRequest(key=key, consistency=pb.CONSISTENCY_FULLY_CONSISTENT)).provenance.epoch

    assert {absent, near, store} == {epoch}


def test_absence_ends_the_moment_a_create_is_answered(grpc_stub, key):
    refused(grpc_stub.Resolve, pb.ResolveRequest(key=key))
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))

    assert grpc_stub.Resolve(pb.ResolveRequest(key=key)).route.url == URL


def test_an_inactive_route_is_told_from_an_absent_one(grpc_stub, key):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL, active=False))

    refusal = refused(grpc_stub.Resolve, pb.ResolveRequest(key=key))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "ROUTE_INACTIVE")


def test_a_deleted_route_is_not_found(grpc_stub, key):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    deleted = grpc_stub.Delete(pb.DeleteRequest(key=key)).revision

    refusal = refused(grpc_stub.Resolve, pb.ResolveRequest(key=key))

    assert refusal.reason == "ROUTE_NOT_FOUND"
    assert int(refusal.metadata["revision"]) >= deleted


def test_a_min_revision_from_a_write_is_honoured(grpc_stub, key):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    other = grpc_stub.Create(pb.CreateRequest(key=version(key, "v2"), url=URL)).route

    response = grpc_stub.Resolve(pb.ResolveRequest(key=key, min_revision=other.revision))

    assert response.provenance.as_of_revision >= other.revision


def test_a_min_revision_that_never_comes_is_unavailable_and_may_be_retried(grpc_stub, key):
    refusal = refused(grpc_stub.Resolve, pb.ResolveRequest(key=key, min_revision=10**15))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "REVISION_NOT_REACHED")
    assert refusal.retry_seconds
    assert refusal.metadata["min_revision"] == str(10**15)


def test_a_batch_answers_every_key_in_order_with_its_own_status(grpc_stub, key):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    grpc_stub.Create(pb.CreateRequest(key=version(key, "v2"), url=URL, active=False))
    keys = [version(key, "v9"), key, version(key, "v2"), key]

    results = grpc_stub.BatchResolve(pb.BatchResolveRequest(keys=keys)).results

    assert [result.key for result in results] == keys
    assert [result.WhichOneof("answer") for result in results] == ["status", "route", "status", "route"]
    reasons = [
        read_status(result.status, grpc.StatusCode.NOT_FOUND, "", {}).reason
        for result in results
        if result.HasField("status")
    ]
    assert reasons == ["ROUTE_NOT_FOUND", "ROUTE_INACTIVE"]
    assert results[0].provenance.as_of_revision >= 0
    assert results[1].route.url == URL


def test_a_thousand_keys_go_in_one_batch(grpc_stub, key):
    keys = [version(key, f"v{number}") for number in range(1000)]

    results = grpc_stub.BatchResolve(pb.BatchResolveRequest(keys=keys)).results

    assert len(results) == 1000
    assert all(result.status.code == grpc.StatusCode.NOT_FOUND.value[0] for result in results)


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_has_one_to_a_thousand_keys(grpc_stub, key, count):
    refusal = refused(grpc_stub.BatchResolve, pb.BatchResolveRequest(keys=[key] * count))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.fields) == ["keys"]


def test_a_malformed_key_in_a_batch_is_named_by_its_place(grpc_stub, key):
    refusal = refused(grpc_stub.BatchResolve, pb.BatchResolveRequest(keys=[key, version(key, "v 2")]))

    assert list(refusal.fields) == ["keys[1].version"]
