"""xds.service: what a server says of its xDS clients."""

from collections.abc import Iterator
from datetime import UTC, datetime

import grpc
import pytest

from pointsman.errors import PermissionDenied
from pointsman.v1 import xds_service_pb2 as pb
from pointsman.xds.results import ClientKind
from pointsman.xds.service import XdsServiceClient
from tests.support.fake_xds_service import T0, FakeXdsService, serving


@pytest.fixture
def fake() -> Iterator[FakeXdsService]:
    with serving(FakeXdsService()) as servicer:
        yield servicer


@pytest.fixture
def client(fake: FakeXdsService) -> Iterator[XdsServiceClient]:
    with XdsServiceClient(fake.target) as client:
        yield client


def test_all_pages_of_the_clients_are_read(client: XdsServiceClient, fake: FakeXdsService) -> None:
    for number in range(5):
        fake.add(f"node-{number}")
    found = client.clients()
    assert [each.node_id for each in found.clients] == [f"node-{number}" for number in range(5)]
    assert (found.revision, found.worker, found.worker_count) == (7, "", 1)
    assert [request.page_token for request, _ in fake.requests] == ["", "2", "4"]


def test_the_worker_that_answers_is_named(client: XdsServiceClient, fake: FakeXdsService) -> None:
    fake.worker_count, fake.workers = 4, ["a"]
    assert (client.clients().worker, client.clients().worker_count) == ("a", 4)


def test_a_client_has_everything(client: XdsServiceClient, fake: FakeXdsService) -> None:
    added = fake.add("x", kind=pb.XDS_CLIENT_KIND_ENVOY, names=["v1~c~b~a"], name_count=12, subject="s")
    refusal = added.refusals.add(resource_type="CDS", message="no")
    refusal.refuse_time.seconds = T0
    [found] = client.clients(name_prefix="v1~").clients
    assert fake.requests[0][0] == pb.ListXdsClientsRequest(name_prefix="v1~", page_size=1_000)
    assert (found.id, found.node_id, found.user_agent) == ("0", "x", "gRPC C-core linux 1.85.3")
    assert (found.address, found.acknowledged_revision) == ("127.0.0.1:4242", 7)
    assert (found.kind, found.subject, found.names, found.name_count) == (ClientKind.ENVOY, "s", ("v1~c~b~a",), 12)
    assert found.connect_time == datetime.fromtimestamp(T0, UTC)
    assert [(each.resource_type, each.message, each.time) for each in found.refusals] == [
        ("CDS", "no", datetime.fromtimestamp(T0, UTC))
    ]


def test_a_kind_of_a_later_server_is_unknown(client: XdsServiceClient, fake: FakeXdsService) -> None:
    fake.add("x", kind=9)
    assert client.clients().clients[0].kind is ClientKind.UNKNOWN


def test_an_explanation_has_a_status_in_words(client: XdsServiceClient, fake: FakeXdsService) -> None:
    each = fake.explanation.explanations.add(kind=pb.XDS_CLIENT_KIND_GRPC, status=5, reason="inactive")
    each.limitations.append("a path")
    each.resources.add().update({"name": "x", "version": "1", "list": [{"a": 1.0}]})
    fake.explanation.explanations.add(kind=pb.XDS_CLIENT_KIND_ENVOY, status=99)
    fake.explanation.explanations.add(kind=9)
    found = client.explain("a/b/c/v1")
    assert (found.name, found.revision) == ("v1~c~b~a", 7)
    grpc_clients, envoy, later = found.explanations
    assert later.kind is ClientKind.UNKNOWN
    assert (grpc_clients.kind, grpc_clients.status) == (ClientKind.GRPC, grpc.StatusCode.NOT_FOUND)
    assert (grpc_clients.reason, grpc_clients.limitations) == ("inactive", ("a path",))
    assert grpc_clients.resources == ({"name": "x", "version": "1", "list": [{"a": 1.0}]},)
    assert (envoy.kind, envoy.status) == (ClientKind.ENVOY, grpc.StatusCode.UNKNOWN)


@pytest.mark.parametrize("kind", [ClientKind.GRPC, ClientKind.ENVOY])
def test_one_kind_may_be_asked_for(client: XdsServiceClient, fake: FakeXdsService, kind: ClientKind) -> None:
    fake.explanation.explanations.add(kind=pb.XDS_CLIENT_KIND_GRPC)
    fake.explanation.explanations.add(kind=pb.XDS_CLIENT_KIND_ENVOY)
    assert [each.kind for each in client.explain("a/b/c", kind=kind).explanations] == [kind]


def test_each_call_has_the_timeout_that_is_given(client: XdsServiceClient, fake: FakeXdsService) -> None:
    for timeout in (None, 1_000.0):
        client.clients(timeout=timeout)
        client.explain("a/b/c", timeout=timeout)
    assert [remaining > 500 for remaining in fake.remaining] == [False, False, True, True]


def test_credentials_are_sent_and_errors_are_those_of_every_client(fake: FakeXdsService) -> None:
    fake.failure = (grpc.StatusCode.PERMISSION_DENIED, "no")
    with XdsServiceClient(fake.target, token="t-1") as client, pytest.raises(PermissionDenied):
        client.clients()
    assert fake.requests[0][1]["authorization"] == "Bearer t-1"
