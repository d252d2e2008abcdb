"""What is told of the clients of xDS: by XdsService, by the service of client status, and through reflection."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from pointsman.v1 import route_service_pb2, xds_service_pb2
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.xds_service_pb2_grpc import XdsServiceStub
from pointsman_server.xds.clients.status import ClientStatusRequest, ClientStatusResponse
from pointsman_server.xds.protocol import messages
from tests.support.engines import fresh_database, fresh_redis
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually
from tests.support.xds_streams import stream
from tests.support.xds_world import CDS, EDS, LDS, RDS

KEY = RouteKey(tenant="team-a", service="payments", env="prod", version="v1")
ROOT = "v1~prod~payments~team-a"
CSDS = "envoy.service.status.v3.ClientStatusDiscoveryService"
SYNCED, ERROR = 1, 4


@pytest.fixture(scope="module")
def server(engines: Any, template_database: str) -> Iterator[RunningServer]:
    with fresh_database(template_database) as database_url:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        with serving(settings(roles="api,xds", database_url=database_url, redis_url=redis_url)) as server:
            with grpc.insecure_channel(server.address) as api:
                RouteServiceStub(api).Create(
                    route_service_pb2.CreateRequest(key=KEY, url="http://10.0.0.1:80/a/path", active=True)
                )
            yield server


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.xds) as channel:
        yield channel


def client_statuses(channel: grpc.Channel, **fields: Any) -> list[Any]:
    fetch = channel.unary_unary(
        f"/{CSDS}/FetchClientStatus", ClientStatusRequest.SerializeToString, ClientStatusResponse.FromString
    )
    return list(fetch(ClientStatusRequest(**fields)).config)


def test_a_client_is_listed_with_what_it_has_acknowledged_and_refused(channel: grpc.Channel) -> None:
    service = XdsServiceStub(channel)

    def listed() -> Any:
        answer = service.ListXdsClients(xds_service_pb2.ListXdsClientsRequest(name_prefix=ROOT))
        return answer.clients[0] if answer.clients else None

    with stream(channel, node="checkout-7", user_agent="gRPC test\x1b[2J") as client:
        for kind in (LDS, RDS, CDS, EDS):
            client.subscribe(kind, ROOT)
            client.read_until(lambda response, kind=kind: response.type_url == kind)
        assert eventually(lambda: listed().acknowledged_revision == 1)
        found = listed()
        assert (found.node_id, found.user_agent) == ("checkout-7", "gRPC test [2J")
        assert found.kind == xds_service_pb2.XDS_CLIENT_KIND_GRPC
        assert (list(found.names), found.name_count, found.subject) == ([ROOT], 1, "anonymous")
        assert found.address.startswith("ipv4:127.0.0.1:")

        client.subscribe(RDS, ROOT, f"{ROOT}-b")
        client.refuse(client.read(), "no such filter\n\x07")
        assert eventually(lambda: listed().refusals)
        (refusal,) = listed().refusals
        assert (refusal.resource_type, refusal.message) == ("RDS", "no such filter  ")
    assert eventually(lambda: listed() is None)


def test_clients_come_in_pages(channel: grpc.Channel) -> None:
    service = XdsServiceStub(channel)
    with stream(channel, node="one") as one, stream(channel, node="two") as two:
        for client in (one, two):
            client.subscribe(LDS, "v9~prod~paged~team-a")
            client.read()
        request = xds_service_pb2.ListXdsClientsRequest(name_prefix="v9~prod~paged", page_size=1)
        first = service.ListXdsClients(request)
        request.page_token = first.next_page_token
        second = service.ListXdsClients(request)
        assert [each.node_id for page in (first, second) for each in page.clients] == ["one", "two"]
        assert not second.next_page_token
        with pytest.raises(grpc.RpcError) as refused:
            service.ListXdsClients(xds_service_pb2.ListXdsClientsRequest(page_token="x"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("key", ["team-a/payments/prod/v1", ROOT])
def test_a_name_is_explained_for_each_kind_of_client(channel: grpc.Channel, key: str) -> None:
    answer = XdsServiceStub(channel).ExplainXds(xds_service_pb2.ExplainXdsRequest(key=key))
    assert (answer.name, answer.revision) == (ROOT, 1)
    by_grpc, by_envoy = answer.explanations
    assert (by_grpc.status, by_envoy.status) == (grpc.StatusCode.FAILED_PRECONDITION.value[0], 0)
    assert "path" in by_grpc.reason
    assert [resource["name"] for resource in by_grpc.resources][:2] == [ROOT, ROOT]


@pytest.mark.parametrize("key", ["team-a", "a~b", "team-a/payments/prod/v1/x"])
def test_what_is_no_name_is_refused(channel: grpc.Channel, key: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        XdsServiceStub(channel).ExplainXds(xds_service_pb2.ExplainXdsRequest(key=key))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "version~env~service~tenant" in (refused.value.details() or "")


def test_standard_tools_see_the_status_of_each_resource(channel: grpc.Channel) -> None:
    with stream(channel, node="csds-1") as client:
        for kind in (LDS, CDS, EDS):
            client.subscribe(kind, ROOT)
            client.read_until(lambda response, kind=kind: response.type_url == kind)
        client.subscribe(RDS, ROOT)
        client.refuse(client.read(), "too strange")
        mine = {"node_matchers": [{"node_id": {"prefix": "csds-"}}]}

        def statuses() -> dict[str, int]:
            (config,) = client_statuses(channel, **mine)
            return {each.type_url: each.config_status for each in config.generic_xds_configs}

        assert eventually(lambda: statuses()[RDS] == ERROR)
        assert statuses() == {LDS: SYNCED, CDS: SYNCED, EDS: SYNCED, RDS: ERROR}
        (config,) = client_statuses(channel, **mine)
        assert config.node.id == "csds-1"
        contents = {each.type_url: each for each in config.generic_xds_configs}
        assert contents[RDS].error_state.details == "too strange"
        listener = messages.Listener.FromString(contents[LDS].xds_config.value)
        assert listener.name == ROOT
        assert not client_statuses(channel, node_matchers=[{"node_id": {"exact": "another"}}])
        (bare,) = client_statuses(channel, exclude_resource_contents=True, **mine)
        assert not any(each.HasField("xds_config") for each in bare.generic_xds_configs)
