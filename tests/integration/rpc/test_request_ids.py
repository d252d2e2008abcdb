"""Each answer names the call by its request id, on each way to an answer; so do the lines of the log."""

from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2
from structlog.testing import capture_logs

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import watch_pb2
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.support.servers import RunningServer

URL = "https://payments.internal"
GIVEN = (("x-request-id", "mine"),)


@pytest.fixture
def stub(grpc_stub: RouteServiceStub) -> RouteServiceStub:
    return grpc_stub


def ids(call: Any) -> list[str]:
    """Return the request ids in the headers, then the trailers, of an answer."""
    pairs = (*(call.initial_metadata() or ()), *(call.trailing_metadata() or ()))
    return [str(value) for name, value in pairs if name == "x-request-id"]


def answer(method: Any, request: Any, metadata: Any = ()) -> Any:
    """Make a call; return it, whether it is refused or not."""
    try:
        return method.with_call(request, metadata=metadata, timeout=30)[1]
    except grpc.RpcError as error:
        return error


def test_the_answer_has_the_id_that_the_caller_gave(stub: RouteServiceStub, key: RouteKey) -> None:
    created = answer(stub.Create, pb.CreateRequest(key=key, url=URL), GIVEN)
    # From the local cache by the fast path, from the store, and by the chain.
    local = answer(stub.Resolve, pb.ResolveRequest(key=key), GIVEN)
    request = pb.ResolveRequest(key=key, consistency=pb.CONSISTENCY_FULLY_CONSISTENT)
    stored = answer(stub.Resolve, request, GIVEN)
    listed = answer(stub.List, pb.ListRequest(tenant=key.tenant), GIVEN)

    for call in (created, local, stored, listed):
        assert call.code() is grpc.StatusCode.OK
        assert set(ids(call)) == {"mine"}


def test_without_one_each_answer_has_an_id_of_its_own(stub: RouteServiceStub, key: RouteKey) -> None:
    stub.Create(pb.CreateRequest(key=key, url=URL))
    calls = [answer(stub.Resolve, pb.ResolveRequest(key=key)) for _ in range(20)]
    found = [set(ids(call)) for call in calls]

    assert all(len(each) == 1 for each in found)
    assert len(set.union(*found)) == 20


@pytest.mark.parametrize("metadata", [(), GIVEN])
def test_an_error_has_it_in_its_details_too(stub: RouteServiceStub, key: RouteKey, metadata: Any) -> None:
    refused = answer(stub.Resolve, pb.ResolveRequest(key=key), metadata)
    assert refused.code() is grpc.StatusCode.NOT_FOUND
    trailers = dict(refused.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.RequestInfo()
    assert any(detail.Unpack(info) for detail in status.details)

    assert {info.request_id} == set(ids(refused))
    assert info.request_id == "mine" or not metadata


def test_a_stream_has_it_before_its_first_response(stub: RouteServiceStub, key: RouteKey) -> None:
    watch = stub.Watch(watch_pb2.WatchRequest(tenant=key.tenant), metadata=GIVEN, timeout=30)
    next(watch)
    try:
        assert dict(watch.initial_metadata())["x-request-id"] == "mine"
    finally:
        watch.cancel()


def test_json_has_it_as_a_header(grpc_server: RunningServer, key: RouteKey) -> None:
    if grpc_server.app.grpc_server.choice.transport != "envoy":
        return  # grpcio speaks no JSON
    url = f"http://{grpc_server.address}/pointsman.v1.RouteService/Resolve"
    body = {"key": {"tenant": key.tenant, "service": key.service, "env": key.env, "version": key.version}}
    with httpx.Client() as client:
        refused = client.post(url, json=body, headers=dict(GIVEN))
        # By Envoy itself: there is no such path.
        unknown = client.post(f"{url}/nowhere", json=body)

    assert (refused.status_code, refused.headers["x-request-id"]) == (404, "mine")
    assert unknown.status_code >= 400
    assert unknown.headers["x-request-id"]


def test_the_line_of_a_change_names_the_call_that_made_it(stub: RouteServiceStub, key: RouteKey) -> None:
    with capture_logs() as lines:
        call = answer(stub.Create, pb.CreateRequest(key=key, url=URL, reason="launch"))
    (line,) = [line for line in lines if line["event"] == "route changed"]

    assert {line["request_id"]} == set(ids(call))
    assert (line["kind"], line["actor"], line["reason"]) == ("CREATED", "anonymous", "launch")
    assert line["key"] == f"{key.tenant}/payments/prod/v1"
    assert line["revision"] > 0
