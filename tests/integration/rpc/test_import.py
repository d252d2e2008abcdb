"""Import, on both transports."""

import itertools
import threading

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import (
    CHANGE_KIND_ACTIVATED,
    CHANGE_KIND_CREATED,
    CHANGE_KIND_DEACTIVATED,
    CHANGE_KIND_UPDATED,
    RouteKey,
)
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.support.refusals import refused

URL = "https://imported.internal:8443"
_tenants = itertools.count(1)


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test uses."""
    return f"imported-{next(_tenants)}"


def route(
    tenant: str, version: str = "v1", url: str = URL, active: bool | None = None, **labels: str
) -> pb.ImportedRoute:
    key = RouteKey(tenant=tenant, service="payments", env="prod", version=version)
    return pb.ImportedRoute(key=key, url=url, active=active, labels=pb.Labels(labels=labels) if labels else None)


def many(tenant: str, count: int, url: str = URL) -> list[pb.ImportedRoute]:
    return [route(tenant, f"v{number}", url, tier="1") for number in range(count)]


def test_creates_changes_and_leaves(grpc_stub: RouteServiceStub, tenant: str) -> None:
    first = grpc_stub.Import(
        pb.ImportRequest(routes=[route(tenant, "v1"), route(tenant, "v2", active=False, tier="1")], reason="the move")
    )
    assert (first.created, first.updated, first.unchanged) == (2, 0, 0)
    assert (first.last_revision, first.revision) == (first.first_revision + 1, first.last_revision)
    second = grpc_stub.Import(
        pb.ImportRequest(
            routes=[
                route(tenant, "v1", active=False),
                route(tenant, "v2", active=True),
                route(tenant, "v3"),
                route(tenant, "v3b"),
            ]
        )
    )
    assert (second.created, second.updated, second.unchanged) == (2, 2, 0)
    third = grpc_stub.Import(pb.ImportRequest(routes=[route(tenant, "v3"), route(tenant, "v2", f"{URL}/new")]))
    assert (third.created, third.updated, third.unchanged) == (0, 1, 1)
    changes = grpc_stub.ListChanges(pb.ListChangesRequest(tenant=tenant)).changes
    assert [(change.key.version, change.kind) for change in changes] == [
        ("v1", CHANGE_KIND_CREATED),
        ("v2", CHANGE_KIND_CREATED),
        ("v2", CHANGE_KIND_ACTIVATED),
        ("v3", CHANGE_KIND_CREATED),
        ("v3b", CHANGE_KIND_CREATED),
        ("v1", CHANGE_KIND_DEACTIVATED),
        ("v2", CHANGE_KIND_UPDATED),
    ]
    assert changes[-1].before.labels == changes[-1].after.labels == {"tier": "1"}
    assert changes[0].reason == "the move"


def test_what_was_cached_is_answered_no_more(grpc_stub: RouteServiceStub, tenant: str) -> None:
    def resolve(version: str) -> str:
        key = route(tenant, version).key
        return str(grpc_stub.Resolve(pb.ResolveRequest(key=key)).route.url)

    grpc_stub.Import(pb.ImportRequest(routes=many(tenant, 300)))
    assert {resolve(f"v{number}") for number in range(0, 300, 10)} == {URL}
    with pytest.raises(grpc.RpcError):
        resolve("v300")
    grpc_stub.Import(pb.ImportRequest(routes=many(tenant, 301, f"{URL}/new")))
    assert {resolve(f"v{number}") for number in range(0, 301, 10)} == {f"{URL}/new"}


def test_the_same_request_id_answers_as_the_first_time_did(grpc_stub: RouteServiceStub, tenant: str) -> None:
    request = pb.ImportRequest(routes=many(tenant, 3), request_id="chunk-1")
    first = grpc_stub.Import(request)
    grpc_stub.Import(pb.ImportRequest(routes=many(tenant, 3, f"{URL}/new")))
    assert grpc_stub.Import(request) == first
    assert len(grpc_stub.ListChanges(pb.ListChangesRequest(tenant=tenant)).changes) == 6
    error = refused(grpc_stub.Import, pb.ImportRequest(routes=many(tenant, 2), request_id="chunk-1"))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


def test_one_request_sent_by_several_at_once_is_done_once(grpc_stub: RouteServiceStub, tenant: str) -> None:
    request = pb.ImportRequest(routes=many(tenant, 500), request_id="at-once")
    answers: list[pb.ImportResponse] = []
    threads = [threading.Thread(target=lambda: answers.append(grpc_stub.Import(request))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [answers[0]] * 4
    assert answers[0].created == 500


def test_one_bad_route_refuses_all_and_is_named(grpc_stub: RouteServiceStub, tenant: str) -> None:
    bad = [
        route(tenant, "v1"),
        route(tenant, "v2", "https://user:secret@x.internal"),
        route(tenant, "v1"),
        route(tenant, "v4"),
    ]
    error = refused(grpc_stub.Import, pb.ImportRequest(routes=bad))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert set(error.fields) == {"routes[1].url", "routes[2].key"}
    assert not grpc_stub.List(pb.ListRequest(tenant=tenant)).routes


def test_a_malformed_key_is_named_and_of_thousands_only_the_first(grpc_stub: RouteServiceStub, tenant: str) -> None:
    error = refused(grpc_stub.Import, pb.ImportRequest(routes=[route(tenant, "-v")] * 5000))
    assert error.reason == "INVALID_FIELD"
    assert list(error.fields) == [f"routes[{number}].key.version" for number in range(16)]
    assert error.message.endswith("; and more")


def test_existing_routes_are_skipped_or_refused_as_asked(grpc_stub: RouteServiceStub, tenant: str) -> None:
    grpc_stub.Import(pb.ImportRequest(routes=[route(tenant, "v2")]))
    routes = many(tenant, 3, f"{URL}/new")
    error = refused(grpc_stub.Import, pb.ImportRequest(routes=routes, existing=pb.EXISTING_ROUTES_REFUSE))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ROUTE_EXISTS")
    assert set(error.fields) == {"routes[2].key"}
    done = grpc_stub.Import(pb.ImportRequest(routes=routes, existing=pb.EXISTING_ROUTES_SKIP))
    assert (done.created, done.updated, done.unchanged) == (2, 0, 1)


def test_routes_at_other_revisions_than_expected_refuse_all_and_are_named(
    grpc_stub: RouteServiceStub, tenant: str
) -> None:
    first = grpc_stub.Import(pb.ImportRequest(routes=many(tenant, 2)))
    routes = many(tenant, 3, f"{URL}/new")
    for wanted in routes:
        wanted.expected_revision = first.first_revision
    error = refused(grpc_stub.Import, pb.ImportRequest(routes=routes))
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "REVISION_MISMATCH")
    expected = first.first_revision
    assert error.fields == {
        "routes[1].expected_revision": f"is {expected}, and the route is at revision {expected + 1}",
        "routes[2].expected_revision": f"is {expected}, and there is no such route",
    }
    routes[1].expected_revision += 1
    assert grpc_stub.Import(pb.ImportRequest(routes=routes[:2])).updated == 2
    routes[1].expected_revision = -1
    assert set(refused(grpc_stub.Import, pb.ImportRequest(routes=routes[:2])).fields) == {"routes[1].expected_revision"}


@pytest.mark.parametrize("count", [0, 10_001])
def test_there_are_no_fewer_routes_than_one_and_no_more_than_allowed(
    grpc_stub: RouteServiceStub, tenant: str, count: int
) -> None:
    error = refused(grpc_stub.Import, pb.ImportRequest(routes=many(tenant, 1) * count))
    assert set(error.fields) == {"routes"}
