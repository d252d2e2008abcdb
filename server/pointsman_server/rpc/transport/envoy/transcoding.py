"""Filters of Envoy that let other protocols call the RPCs: JSON with REST paths, and gRPC-Web for browsers.

The paths are the ``google.api.http`` options of the protos. Messages are the JSON of proto3.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/grpc_json_transcoder_filter
"""

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import error_details_pb2

from pointsman.v1 import route_service_pb2
from pointsman_server.rpc import SERVICE

Config = dict[str, Any]

TYPES = "type.googleapis.com/envoy.extensions.filters.http"


def filters(*, message_bytes: int) -> list[Config]:
    """Return the filters, in their order. ``message_bytes``: the largest body of a request."""
    return [
        {"name": "envoy.filters.http.cors", "typed_config": {"@type": f"{TYPES}.cors.v3.Cors"}},
        {"name": "envoy.filters.http.grpc_web", "typed_config": {"@type": f"{TYPES}.grpc_web.v3.GrpcWeb"}},
        {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": _transcoder(message_bytes)},
    ]


def _transcoder(message_bytes: int) -> Config:
    return {
        "@type": f"{TYPES}.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor_bin": base64.b64encode(descriptors().SerializeToString()).decode("ascii"),
        "services": [SERVICE],
        "convert_grpc_status": True,
        "case_insensitive_enum_parsing": True,
        "print_options": {"always_print_primitive_fields": True},
        "request_validation_options": {
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
        "max_request_body_size": message_bytes,
    }


def descriptors() -> FileDescriptorSet:
    """Return the files of the service, and of the details of its errors, each after those that it imports."""
    found: dict[str, FileDescriptor] = {}
    _collect((route_service_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR), found)
    files = FileDescriptorSet()
    for descriptor in found.values():
        descriptor.CopyToProto(files.file.add())
    return files


def _collect(descriptors: Iterable[FileDescriptor], found: dict[str, FileDescriptor]) -> None:
    for descriptor in descriptors:
        if descriptor.name not in found:
            _collect(descriptor.dependencies, found)
            found[descriptor.name] = descriptor
