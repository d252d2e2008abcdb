"""The standard health service, reflection, and the HTTP port, from outside."""

import json
import urllib.error
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.refusals import refused

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("service", ["", "pointsman.v1.RouteService", "readiness", "liveness"])
def test_a_server_that_can_answer_serves(grpc_channel, service):
    health = health_pb2_grpc.HealthStub(grpc_channel)

    assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING


def test_an_unknown_service_is_not_found(grpc_channel):
    health = health_pb2_grpc.HealthStub(grpc_channel)

    assert refused(health.Check, health_pb2.HealthCheckRequest(service="x")).code is grpc.StatusCode.NOT_FOUND


def test_health_can_be_watched(grpc_channel):
    health = health_pb2_grpc.HealthStub(grpc_channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="readiness"), timeout=10)

    assert next(watch).status == SERVING
    watch.cancel()


def test_reflection_lists_and_describes_the_services(grpc_channel):
    reflection = reflection_pb2_grpc.ServerReflectionStub(grpc_channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="pointsman.v1.RouteService"),
    ]

    listing, file = reflection.ServerReflectionInfo(iter(requests), timeout=10)

    names = {service.name for service in listing.list_services_response.service}
    assert {"pointsman.v1.RouteService", "grpc.health.v1.Health"} <= names
    assert file.file_descriptor_response.file_descriptor_proto


def get(url: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(url) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_readiness_tells_each_dependency(grpc_server, path):
    code, body = get(grpc_server.http + path)

    assert code == 200
    assert body["status"] == "ready"
    assert {name: state["up"] for name, state in body["dependencies"].items()} == {
        "postgres": True,
        "redis": True,
        "writes": True,
    }


def test_liveness_is_about_the_process_alone(grpc_server):
    assert get(f"{grpc_server.http}/health/live") == (200, {"status": "live"})
