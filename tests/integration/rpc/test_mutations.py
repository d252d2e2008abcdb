"""Create, Update, Activate, Deactivate and Delete, by a client."""

import concurrent.futures
import uuid

import grpc
import pytest

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from tests.support.refusals import refused

URL = "https://payments.internal:8443"
OTHER = "https://payments.other:8443"


def version(key: RouteKey, name: str) -> RouteKey:
    return RouteKey(tenant=key.tenant, service=key.service, env=key.env, version=name)


def history(stub, key: RouteKey) -> list[route_pb2.RouteChange]:
    return list(stub.ListChanges(pb.ListChangesRequest(tenant=key.tenant)).changes)


def test_create_answers_the_whole_route(grpc_stub, key):
    route = grpc_stub.Create(pb.CreateRequest(key=key, url=URL, labels={"owner": "team ä"})).route

    assert (route.key, route.url, route.active, dict(route.labels)) == (key, URL, True, {"owner": "team ä"})
    assert route.revision > 0
    assert route.create_time == route.update_time
    assert grpc_stub.Get(pb.GetRequest(key=key)).route == route


def test_a_taken_key_is_refused(grpc_stub, key):
    first = grpc_stub.Create(pb.CreateRequest(key=key, url=URL)).route

    refusal = refused(grpc_stub.Create, pb.CreateRequest(key=key, url=OTHER))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ROUTE_EXISTS")
    assert refusal.metadata["revision"] == str(first.revision)


def test_of_many_creates_at_once_exactly_one_wins(grpc_stub, key):
    def attempt(number: int) -> bool:
        try:
            grpc_stub.Create(pb.CreateRequest(key=key, url=f"{URL}/{number}"))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.ALREADY_EXISTS
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(attempt, range(16)))

    assert sum(wins) == 1
    assert len(history(grpc_stub, key)) == 1


def test_update_changes_what_is_set_and_leaves_the_rest(grpc_stub, key):
    created = grpc_stub.Create(pb.CreateRequest(key=key, url=URL, labels={"a": "1"})).route

    moved = grpc_stub.Update(pb.UpdateRequest(key=key, url=OTHER)).route
    relabelled = grpc_stub.Update(pb.UpdateRequest(key=key, labels=pb.Labels(labels={"b": "2"}))).route

    assert (moved.url, dict(moved.labels)) == (OTHER, {"a": "1"})
    assert (relabelled.url, dict(relabelled.labels)) == (OTHER, {"b": "2"})
    assert created.revision < moved.revision < relabelled.revision
    assert relabelled.create_time == created.create_time
    assert dict(grpc_stub.Update(pb.UpdateRequest(key=key, labels=pb.Labels())).route.labels) == {}


def test_an_update_without_a_difference_makes_no_change(grpc_stub, key):
    created = grpc_stub.Create(pb.CreateRequest(key=key, url=URL)).route

    assert grpc_stub.Update(pb.UpdateRequest(key=key, url=URL)).route == created
    assert len(history(grpc_stub, key)) == 1


def test_update_of_an_absent_route_is_refused_unless_missing_is_allowed(grpc_stub, key):
    refusal = refused(grpc_stub.Update, pb.UpdateRequest(key=key, url=URL))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "ROUTE_NOT_FOUND")

    route = grpc_stub.Update(pb.UpdateRequest(key=key, url=URL, allow_missing=True)).route
    assert route.active
    assert grpc_stub.Resolve(pb.ResolveRequest(key=key)).route == route


def test_a_missing_route_cannot_be_created_without_a_url(grpc_stub, key):
    labels = pb.Labels(labels={"a": "1"})

    refusal = refused(grpc_stub.Update, pb.UpdateRequest(key=key, labels=labels, allow_missing=True))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.fields) == ["url"]


MUTATIONS = {
    "Update": lambda key, **fields: pb.UpdateRequest(key=key, url=OTHER, **fields),
    "Activate": lambda key, **fields: pb.ActivateRequest(key=key, **fields),
    "Deactivate": lambda key, **fields: pb.DeactivateRequest(key=key, **fields),
    "Delete": lambda key, **fields: pb.DeleteRequest(key=key, **fields),
}


@pytest.mark.parametrize("method", MUTATIONS)
def test_a_mutation_of_an_absent_route_is_not_found(grpc_stub, key, method):
    refusal = refused(getattr(grpc_stub, method), MUTATIONS[method](key))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize("method", MUTATIONS)
def test_a_mutation_of_another_revision_than_expected_is_aborted(grpc_stub, key, method):
    route = grpc_stub.Create(pb.CreateRequest(key=key, url=URL)).route

    refusal = refused(getattr(grpc_stub, method), MUTATIONS[method](key, expected_revision=route.revision + 1))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "REVISION_MISMATCH")
    assert refusal.metadata["revision"] == str(route.revision)
    assert grpc_stub.Get(pb.GetRequest(key=key)).route == route


@pytest.mark.parametrize("method", MUTATIONS)
def test_a_mutation_of_the_expected_revision_is_done(grpc_stub, key, method):
    route = grpc_stub.Create(pb.CreateRequest(key=key, url=URL)).route

    getattr(grpc_stub, method)(MUTATIONS[method](key, expected_revision=route.revision))

    (newest, *_) = grpc_stub.ListChanges(pb.ListChangesRequest(tenant=key.tenant, newest_first=True)).changes
    assert (newest.revision > route.revision) == (method != "Activate")


def test_activating_and_deactivating_again_is_fine_and_makes_no_change(grpc_stub, key):
    created = grpc_stub.Create(pb.CreateRequest(key=key, url=URL)).route

    assert grpc_stub.Activate(pb.ActivateRequest(key=key)).route == created
    off = grpc_stub.Deactivate(pb.DeactivateRequest(key=key)).route
    assert not off.active
    assert grpc_stub.Deactivate(pb.DeactivateRequest(key=key)).route == off
    on = grpc_stub.Activate(pb.ActivateRequest(key=key)).route
    assert on.active

    kinds = [route_pb2.ChangeKind.Name(change.kind) for change in history(grpc_stub, key)]
    assert kinds == ["CHANGE_KIND_CREATED", "CHANGE_KIND_DEACTIVATED", "CHANGE_KIND_ACTIVATED"]


def test_exclusive_activation_switches_the_siblings_off_in_consecutive_revisions(grpc_stub, key):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    grpc_stub.Create(pb.CreateRequest(key=version(key, "v2"), url=URL))
    grpc_stub.Create(pb.CreateRequest(key=version(key, "v3"), url=URL, active=False))
    elsewhere = RouteKey(tenant=key.tenant, service=key.service, env="staging", version="v1")
    grpc_stub.Create(pb.CreateRequest(key=elsewhere, url=URL))

    response = grpc_stub.Activate(pb.ActivateRequest(key=version(key, "v3"), exclusive=True))

    changes = history(grpc_stub, key)[4:]
    assert [(change.key.version, change.after.active) for change in changes] == [
        ("v3", True),
        ("v1", False),
        ("v2", False),
    ]
    first = changes[0].revision
    assert [change.revision for change in changes] == [first, first + 1, first + 2]
    assert response.revision == first + 2
    active = grpc_stub.List(pb.ListRequest(tenant=key.tenant, active=True)).routes
    assert [(route.key.env, route.key.version) for route in active] == [("prod", "v3"), ("staging", "v1")]
    refused(grpc_stub.Resolve, pb.ResolveRequest(key=key))


def test_revisions_of_a_key_go_on_across_delete_and_recreate(grpc_stub, key):
    first = grpc_stub.Create(pb.CreateRequest(key=key, url=URL)).route.revision
    deleted = grpc_stub.Delete(pb.DeleteRequest(key=key)).revision
    again = grpc_stub.Create(pb.CreateRequest(key=key, url=OTHER)).route.revision

    assert first < deleted < again
    assert grpc_stub.Resolve(pb.ResolveRequest(key=key)).route.url == OTHER


def test_the_same_request_id_answers_as_the_first_time(grpc_stub, key):
    request = pb.CreateRequest(key=key, url=URL, request_id=uuid.uuid4().hex)
    first = grpc_stub.Create(request)
    grpc_stub.Update(pb.UpdateRequest(key=key, url=OTHER))

    assert grpc_stub.Create(request) == first
    assert len(history(grpc_stub, key)) == 2


def test_a_deleted_route_stays_deleted_when_the_delete_is_repeated(grpc_stub, key):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    request = pb.DeleteRequest(key=key, request_id=uuid.uuid4().hex)

    assert grpc_stub.Delete(request) == grpc_stub.Delete(request)


def test_a_request_id_with_another_body_is_refused(grpc_stub, key):
    request_id = uuid.uuid4().hex
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL, request_id=request_id))

    for method, request in (
        ("Create", pb.CreateRequest(key=key, url=OTHER, request_id=request_id)),
        ("Activate", pb.ActivateRequest(key=key, request_id=request_id)),
        ("Create", pb.CreateRequest(key=version(key, "v2"), url=URL, request_id=request_id)),
    ):
        refusal = refused(getattr(grpc_stub, method), request)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
        assert refusal.metadata["request_id"] == request_id


def test_a_request_id_belongs_to_its_tenant(grpc_stub, key):
    request_id = uuid.uuid4().hex
    elsewhere = RouteKey(tenant=f"{key.tenant}-other", service="payments", env="prod", version="v1")

    for where in (key, elsewhere):
        route = grpc_stub.Create(pb.CreateRequest(key=where, url=URL, request_id=request_id)).route
        assert route.key == where


def test_the_history_says_who_what_why_and_when(grpc_stub, key):
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    request_id = uuid.uuid4().hex
    created = grpc_stub.Create(
        pb.CreateRequest(key=key, url=URL, reason="launch", request_id=request_id),
        metadata=[("traceparent", traceparent), ("tracestate", "vendor=opaque")],
    ).route
    updated = grpc_stub.Update(pb.UpdateRequest(key=key, url=OTHER)).route

    create, update = history(grpc_stub, key)

    assert (create.actor, create.reason, create.request_id) == ("anonymous", "launch", request_id)
    assert (create.traceparent, create.tracestate) == (traceparent, "vendor=opaque")
    assert create.occur_time == created.update_time
    assert not create.HasField("before")
    assert create.after == created
    assert (update.before, update.after) == (created, updated)
    assert uuid.UUID(create.event_id) != uuid.UUID(update.event_id)
    assert uuid.UUID(create.epoch) == uuid.UUID(update.epoch)
