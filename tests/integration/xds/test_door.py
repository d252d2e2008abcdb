"""The port of the role xds: a process that has it, beside the API on each transport, and alone."""

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server.xds.server import SERVICE
from tests.support.engines import fresh_database, fresh_redis
from tests.support.processes import get_metric
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually
from tests.support.xds_streams import LIVE, status_of, stream
from tests.support.xds_world import RDS

KEY = RouteKey(tenant="team-a", service="payments", env="prod", version="v1")
ROOT = "v1~prod~payments~team-a"


@pytest.fixture(params=["grpcio", "envoy"])
def server(request: pytest.FixtureRequest, engines, template_database: str) -> Iterator[RunningServer]:
    """A server with the roles api and xds."""
    with fresh_database(template_database) as database_url:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        chosen = settings(transport=request.param, roles="api,xds", database_url=database_url, redis_url=redis_url)
        with serving(chosen) as server:
            yield server


def test_a_change_by_the_api_reaches_a_client_of_xds(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as api, grpc.insecure_channel(server.xds) as xds, stream(xds) as client:
        assert client.status(ROOT) == 5
        RouteServiceStub(api).Create(pb.CreateRequest(key=KEY, url="http://10.0.0.1:8080", active=True))
        changed = client.read_until(lambda response: response.type_url == RDS)
        assert status_of(changed, ROOT) == LIVE


def test_health_is_served_there_and_waits_for_the_table(server: RunningServer) -> None:
    with grpc.insecure_channel(server.xds) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert eventually(lambda: health.Check(health_pb2.HealthCheckRequest(service=SERVICE)).status == 1)


def test_alone_it_needs_no_redis(database_url: str) -> None:
    with serving(settings(roles="xds", database_url=database_url)) as server:
        assert eventually(lambda: server.app.readiness.ready)
        with grpc.insecure_channel(server.xds) as channel, stream(channel) as client:
            assert client.status(ROOT) == 5


def test_a_stream_passes_what_every_call_passes(database_url: str) -> None:
    """Request ids, metrics by method, and the limit of streams, which health is not held to."""
    with (
        serving(settings(roles="xds", database_url=database_url, max_concurrent_calls=1)) as server,
        grpc.insecure_channel(server.xds) as channel,
        stream(channel, metadata={"x-request-id": "of-mine"}) as client,
    ):
        assert client.status(ROOT) == 5
        assert dict(client.call.initial_metadata())["x-request-id"] == "of-mine"
        labels = f'grpc_method="StreamAggregatedResources",grpc_service="{SERVICE}",grpc_type="bidi_stream"'
        assert get_metric(server.http, f"grpc_server_started_total{{{labels}}}") == 1
        assert get_metric(server.http, f"grpc_server_msg_sent_total{{{labels}}}") == 1
        with stream(channel) as another:
            another.subscribe(RDS, ROOT)
            with pytest.raises(grpc.RpcError) as refused:
                another.read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="liveness")).status
