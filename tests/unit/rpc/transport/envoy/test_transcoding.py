"""What Envoy is told about JSON, gRPC-Web and pages of other origins."""

import base64
from collections.abc import Iterable
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from pointsman.v1 import route_service_pb2
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.transport.envoy import transcoding

SERVICE_METHODS = list(route_service_pb2.DESCRIPTOR.services_by_name["RouteService"].methods)


def _names(filters: Iterable[Any]) -> list[str]:
    return [(each if isinstance(each, str) else each["name"]).rpartition(".")[2] for each in filters]


def test_pages_of_other_origins_are_let_in_only_when_named() -> None:
    assert _names(transcoding.filters(message_bytes=1)) == ["rbac", "grpc_web", "grpc_json_transcoder"]
    assert _names(transcoding.virtual_host([])["routes"][1]["typed_per_filter_config"]) == [
        "rbac",
        "grpc_web",
        "grpc_json_transcoder",
    ]

    with_cors = transcoding.filters(message_bytes=1, cors_origins=["https://a.example"])
    assert _names(with_cors) == ["cors", "rbac", "grpc_web", "grpc_json_transcoder"]
    _, others = transcoding.virtual_host(["https://a.example", "*"])["routes"]
    policy = others["typed_per_filter_config"][transcoding.CORS]["config"]
    assert policy["allow_origin_string_match"] == [{"exact": "https://a.example"}, {"prefix": ""}]


def test_filters_are_on_for_other_protocols_alone() -> None:
    filters = transcoding.filters(message_bytes=1, cors_origins=["*"])
    grpc, others = transcoding.virtual_host(["*"])["routes"]

    assert all(each["disabled"] for each in filters)
    assert {each["name"] for each in filters} == set(others["typed_per_filter_config"])
    assert [header["name"] for header in grpc["match"]["headers"]] == ["content-type", "origin"]
    assert "typed_per_filter_config" not in grpc


def test_bodies_are_bounded_and_what_is_unknown_in_a_query_is_refused() -> None:
    transcoder = transcoding.filters(message_bytes=4096)[-1]["typed_config"]

    assert transcoder["max_request_body_size"] == 4096
    assert transcoder["services"] == [SERVICE]
    assert transcoder["request_validation_options"]["reject_unknown_query_parameters"] is True


def test_the_descriptors_are_complete_and_in_order_and_hold_the_paths_and_the_details_of_errors() -> None:
    transcoder = transcoding.filters(message_bytes=1)[-1]["typed_config"]
    files = FileDescriptorSet.FromString(base64.b64decode(transcoder["proto_descriptor_bin"]))

    pool = DescriptorPool()
    for file in files.file:
        pool.Add(file)  # refuses one whose imports are missing

    assert pool.FindMessageTypeByName("google.rpc.RetryInfo")
    assert [method.name for method in pool.FindServiceByName(SERVICE).methods] == [m.name for m in SERVICE_METHODS]


@pytest.mark.parametrize("method", SERVICE_METHODS, ids=lambda method: method.name)
def test_every_rpc_has_a_path(method) -> None:
    rule = method.GetOptions().Extensions[annotations_pb2.http]

    assert rule.WhichOneof("pattern")


def test_the_paths_of_the_system_before_are_there() -> None:
    paths = {}
    for method in SERVICE_METHODS:
        for rule in method.GetOptions().Extensions[annotations_pb2.http].additional_bindings:
            verb = rule.WhichOneof("pattern")
            paths[f"{verb} {getattr(rule, verb)}"] = method.name

    assert {path: name for path, name in paths.items() if "/api/" in path} == {
        "get /api/v1/routes/resolve": "Resolve",
        "post /api/v1/routes": "Create",
        "post /api/v1/routes/activate": "Activate",
        "post /api/v1/routes/deactivate": "Deactivate",
    }


def test_each_answer_of_envoy_itself_is_a_status_in_json() -> None:
    mappers = transcoding.local_replies()["mappers"]

    by_status = {
        mapper["filter"]["and_filter"]["filters"][0]["status_code_filter"]["comparison"]["value"]["default_value"]: (
            mapper["body_format_override"]["json_format"]
        )
        for mapper in mappers
    }
    assert by_status[400] == {"code": 3, "message": "%LOCAL_REPLY_BODY%", "details": []}
    assert {400, 413, 431, 503} <= set(by_status)
