"""Processes with the role xds: in Envoy and not, alone, several on one port, and as they start and stop."""

import json
import subprocess
from collections import Counter
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.propagation_pb2 import GetPropagationRequest
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server.xds.server import SERVICE
from tests.support.processes import free_port, get_metric, run, serve, server_process
from tests.support.tools import require, tool
from tests.support.waiting import eventually
from tests.support.xds_streams import LIVE, status_of, stream
from tests.support.xds_world import RDS

KEY = RouteKey(tenant="team-a", service="payments", env="prod", version="v1")
ROOT = "v1~prod~payments~team-a"
URL = "http://10.0.0.1:8080"
# Each stream on a connection of its own, so that the kernel gives some to every worker.
STREAMS = 'pointsman_xds_streams{kind="grpc"}'
ALONE = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture
def environ(database_url: str, redis_url: str) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5"}


def xds_of(process: Any) -> str:
    return f"127.0.0.1:{process.log('serving')[-1]['xds_port']}"


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_it_is_served_beside_the_api_and_ends_with_the_process(environ: dict[str, str], transport: str) -> None:
    chosen = ("--roles", "api,xds", "--transport", transport)
    with serve(*chosen, POINTSMAN_LAME_DUCK_SECONDS="1", **environ) as (process, address, http):
        with ExitStack() as stack:
            api = RouteServiceStub(stack.enter_context(grpc.insecure_channel(address)))
            channel = stack.enter_context(grpc.insecure_channel(xds_of(process)))
            client = stack.enter_context(stream(channel))
            assert client.status(ROOT) == 5
            api.Create(pb.CreateRequest(key=KEY, url=URL, active=True))
            opened = client.read_until(lambda response: response.type_url == RDS)
            assert status_of(opened, ROOT) == LIVE
            assert get_metric(http, STREAMS) == 1

            # A stream hears of the end in any case, and a call in the second of the lame duck alone.
            watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            # When the server has looked for the first time.
            assert any(each.status == health_pb2.HealthCheckResponse.SERVING for each in watched)
            process.process.terminate()
            assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.RpcError) as ended:
                client.read()
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert process.process.wait(30) == 0


def test_workers_share_the_port(environ: dict[str, str]) -> None:
    names = ("POINTSMAN_LISTEN", "POINTSMAN_XDS_LISTEN", "POINTSMAN_HTTP_LISTEN")
    ports = {name: f"127.0.0.1:{free_port()}" for name in names}
    http = f"http://{ports['POINTSMAN_HTTP_LISTEN']}"
    with server_process("serve", "--roles", "api,xds", "--workers", "2", **ports, **environ) as process:
        process.wait_for_log("serving", times=2)
        with ExitStack() as stack:
            clients = []
            for _ in range(20):
                channel = stack.enter_context(grpc.insecure_channel(ports["POINTSMAN_XDS_LISTEN"], ALONE))
                clients.append(stack.enter_context(stream(channel)))
                assert clients[-1].status(ROOT) == 5
            assert eventually(lambda: get_metric(http, STREAMS) == 20)
            listed = run("pointsman", "xds", "clients", "--xds", ports["POINTSMAN_XDS_LISTEN"], "--json")
            (server,) = json.loads(listed.stdout)["servers"]
            assert (server["workers"], server["workers_answered"]) == (2, 2)
            workers = Counter(client["id"].split("-")[0] for client in server["clients"])
            assert (len(workers), workers.total()) == (2, 20)
            # Every worker hears of the change, and knows of the clients of both who has it.
            api = RouteServiceStub(stack.enter_context(grpc.insecure_channel(ports["POINTSMAN_LISTEN"])))
            revision = api.Create(pb.CreateRequest(key=KEY, url=URL, active=True)).route.revision
            asked = GetPropagationRequest(tenant=KEY.tenant, service=KEY.service, env=KEY.env, revision=revision)
            for client in clients:
                assert status_of(client.read_until(lambda response: response.type_url == RDS), ROOT) == LIVE
            assert eventually(lambda: api.GetPropagation(asked).applied_count == 20)
            assert api.GetPropagation(asked).watcher_count == 20


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_a_port_that_is_taken_is_named(environ: dict[str, str], transport: str) -> None:
    with serve("--roles", "xds", DATABASE_URL=environ["DATABASE_URL"]) as (process, _, _http):
        taken = {"POINTSMAN_XDS_LISTEN": xds_of(process), "POINTSMAN_LISTEN": "127.0.0.1:0"}
        taken |= {"POINTSMAN_HTTP_LISTEN": "127.0.0.1:0", "POINTSMAN_ROLES": "api,xds"}
        done = run("pointsman-server", "serve", "--transport", transport, **taken, **environ)
        assert f"cannot listen on {taken['POINTSMAN_XDS_LISTEN']} (POINTSMAN_XDS_LISTEN)" in done.stderr
        assert done.returncode == 1


@pytest.mark.go
def test_grpcurl_reads_all_its_services_by_reflection(environ: dict[str, str]) -> None:
    grpcurl = require("grpcurl", tool("grpcurl"), "go install builds it: make tools")

    def call(*arguments: str) -> str:
        return subprocess.run([grpcurl, "-plaintext", *arguments], capture_output=True, text=True, check=True).stdout

    with serve("--roles", "xds", DATABASE_URL=environ["DATABASE_URL"]) as (process, _, _http):
        address = xds_of(process)
        csds = "envoy.service.status.v3.ClientStatusDiscoveryService"
        assert {SERVICE, csds, "pointsman.v1.XdsService"} < set(call(address, "list").split())
        assert "rpc StreamAggregatedResources" in call(address, "describe", SERVICE)
        with grpc.insecure_channel(address) as channel, stream(channel, node="curled") as client:
            assert client.status(ROOT) == 5
            (config,) = json.loads(call(address, f"{csds}/FetchClientStatus"))["config"]
            assert config["node"]["id"] == "curled"
            (resource,) = config["genericXdsConfigs"]
            assert (resource["name"], resource["configStatus"]) == (ROOT, "SYNCED")
            assert resource["xdsConfig"]["virtualHosts"][0]["domains"] == ["*"]
            (listed,) = json.loads(call(address, "pointsman.v1.XdsService/ListXdsClients"))["clients"]
            assert listed["nodeId"] == "curled"
