"""The standard health service, reflection, and the HTTP port."""

import json
import urllib.error
import urllib.request

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from pointsman_server.rpc import HEALTH, REFLECTION, SERVICE
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


def test_health_lists_every_service(grpc_channel):
    listed = health_pb2_grpc.HealthStub(grpc_channel).List(health_pb2.HealthListRequest()).statuses

    assert {name: answer.status for name, answer in listed.items()} == dict.fromkeys(
        ["", "pointsman.v1.RouteService", "readiness", "liveness"], SERVING
    )


def test_watching_an_unknown_service_says_so(grpc_channel):
    watch = health_pb2_grpc.HealthStub(grpc_channel).Watch(health_pb2.HealthCheckRequest(service="x"), timeout=10)

    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


@pytest.fixture(params=REFLECTION)
def ask(request, grpc_channel):
    """Ask for reflection by each of its names; returns the responses."""
    info = grpc_channel.stream_stream(
        f"/{request.param}/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )

    def ask(**fields):
        [response] = info(iter([reflection_pb2.ServerReflectionRequest(**fields)]), timeout=10)
        return response

    return ask


def test_reflection_lists_the_services(ask):
    names = {service.name for service in ask(list_services="").list_services_response.service}

    assert names == {SERVICE, HEALTH, *REFLECTION}


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        (SERVICE, "pointsman/v1/route_service.proto"),
        (f"{SERVICE}.Resolve", "pointsman/v1/route_service.proto"),
        ("pointsman.v1.ResolveRequest.key", "pointsman/v1/route_service.proto"),
        ("pointsman.v1.Provenance.SOURCE_REDIS", "pointsman/v1/route_service.proto"),
        ("pointsman.v1.EXISTING_ROUTES_SKIP", "pointsman/v1/route_service.proto"),
        ("pointsman.v1.Route", "pointsman/v1/route.proto"),
        ("google.rpc.ErrorInfo", "google/rpc/error_details.proto"),
        ("pointsman.v1.ErrorReason", "pointsman/v1/error_reason.proto"),
        ("grpc.health.v1.Health.List", "grpc_health/v1/health.proto"),
        ("grpc.reflection.v1.ServerReflection.ServerReflectionInfo", "grpc_reflection/v1/reflection.proto"),
        ("grpc.reflection.v1alpha.ServerReflection", "grpc_reflection/v1alpha/reflection.proto"),
    ],
)
def test_reflection_finds_every_kind_of_symbol(ask, symbol, file):
    response = ask(file_containing_symbol=symbol)
    files = [FileDescriptorProto.FromString(each) for each in response.file_descriptor_response.file_descriptor_proto]

    assert files[0].name == file
    # With all that it imports, which a client needs to make sense of it.
    assert {name for each in files for name in each.dependency} <= {each.name for each in files}
    assert response.original_request.file_containing_symbol == symbol


def test_reflection_of_version_one_describes_itself_by_its_own_name(ask):
    response = ask(file_by_filename="grpc_reflection/v1/reflection.proto")
    [file] = [FileDescriptorProto.FromString(each) for each in response.file_descriptor_response.file_descriptor_proto]

    assert file.package == "grpc.reflection.v1"
    assert b"v1alpha" not in file.SerializeToString()


@pytest.mark.parametrize(
    "unknown",
    [
        {"file_containing_symbol": "pointsman.v1.RouteService.Teleport"},
        {"file_by_filename": "pointsman/v2/route.proto"},
        {"all_extension_numbers_of_type": "pointsman.v1.Nothing"},
        {"file_containing_extension": {"containing_type": "google.protobuf.FieldOptions", "extension_number": 1}},
    ],
)
def test_reflection_does_not_find_what_is_not_there(ask, unknown):
    assert ask(**unknown).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_reflection_says_that_a_message_has_no_extensions(ask):
    numbers = ask(all_extension_numbers_of_type="pointsman.v1.Route").all_extension_numbers_response

    assert (numbers.base_type_name, list(numbers.extension_number)) == ("pointsman.v1.Route", [])


def test_reflection_says_that_a_request_without_a_question_is_none(ask):
    assert ask(host="x").error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


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
