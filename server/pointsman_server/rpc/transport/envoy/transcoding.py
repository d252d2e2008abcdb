"""Filters of Envoy that let other protocols call the RPCs: JSON with REST paths, and gRPC-Web for browsers.

The paths are the ``google.api.http`` options of the protos. Messages are the JSON of proto3.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/grpc_json_transcoder_filter
"""

import base64
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import code_pb2, error_details_pb2

from pointsman.v1 import route_service_pb2
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.descriptors import with_imports

Config = dict[str, Any]

TYPES = "type.googleapis.com/envoy.extensions.filters.http"


# The code of ``google.rpc.Status`` in the JSON of answers that Envoy gives by itself, by their HTTP status.
LOCAL_CODES = {
    400: code_pb2.INVALID_ARGUMENT,
    403: code_pb2.PERMISSION_DENIED,
    404: code_pb2.NOT_FOUND,
    408: code_pb2.DEADLINE_EXCEEDED,
    413: code_pb2.RESOURCE_EXHAUSTED,
    414: code_pb2.INVALID_ARGUMENT,
    429: code_pb2.RESOURCE_EXHAUSTED,
    431: code_pb2.RESOURCE_EXHAUSTED,
    500: code_pb2.INTERNAL,
    502: code_pb2.UNAVAILABLE,
    503: code_pb2.UNAVAILABLE,
    504: code_pb2.DEADLINE_EXCEEDED,
}
CORS = "envoy.filters.http.cors"
SAME_ORIGIN = "envoy.filters.http.rbac"
GRPC_WEB = "envoy.filters.http.grpc_web"
TRANSCODER = "envoy.filters.http.grpc_json_transcoder"
# What browsers send with gRPC-Web and JSON, and what their scripts may read.
CORS_METHODS = "GET, POST, PATCH, DELETE, OPTIONS"
CORS_HEADERS = "authorization, content-type, grpc-timeout, x-grpc-web, x-request-id, x-user-agent"
CORS_EXPOSED = "grpc-message, grpc-status, grpc-status-details-bin, x-request-id"
CORS_MAX_AGE_SECONDS = 600


def filters(*, message_bytes: int, cors_origins: Sequence[str] = ()) -> list[Config]:
    """Return the filters, in their order. ``message_bytes``: the largest body of a request in JSON.

    They are off, and ``virtual_host`` turns them on for requests that may be of another protocol than gRPC. A call of
    gRPC passes none of them: they would take a third of Envoy's memory for each open stream.
    """
    cors = {"name": CORS, "typed_config": {"@type": f"{TYPES}.cors.v3.Cors"}}
    chain = [
        *([cors] if cors_origins else []),
        _same_origin(),
        {"name": GRPC_WEB, "typed_config": {"@type": f"{TYPES}.grpc_web.v3.GrpcWeb"}},
        {"name": TRANSCODER, "typed_config": _transcoder(message_bytes)},
    ]
    return [{**each, "disabled": True} for each in chain]


def _same_origin() -> Config:
    """Refuse what a browser sends across origins without asking first, as a form does.

    The transcoder reads a body as JSON whatever its type. For the types of JSON and gRPC a browser asks the server
    first (a CORS preflight), and for the others it does not; it names the origin of the page in both cases.
    """
    browser = {"header": {"name": "origin", "present_match": True}}
    changes = {"not_rule": _header(":method", "GET|HEAD|OPTIONS")}
    unasked = {"not_rule": _header("content-type", r"application/(json|grpc).*")}
    policy = {"permissions": [{"and_rules": {"rules": [browser, changes, unasked]}}], "principals": [{"any": True}]}
    rules = {"action": "DENY", "policies": {"cross-origin": policy}}
    return {
        "name": SAME_ORIGIN,
        "typed_config": {"@type": f"{TYPES}.rbac.v3.RBAC", "rules": rules},
    }


def _header(name: str, pattern: str) -> Config:
    return {"header": {"name": name, "string_match": {"safe_regex": {"regex": pattern}}}}


def virtual_host(cors_origins: Sequence[str]) -> Config:
    """Return which requests pass the filters: all but those of gRPC clients that are no pages in a browser."""
    on = {name: _on({}) for name in (SAME_ORIGIN, GRPC_WEB, TRANSCODER)}
    if cors_origins:
        on[CORS] = _on(_cors(cors_origins))
    grpc = [
        _header("content-type", r"application/grpc(\+.*)?"),
        {"header": {"name": "origin", "present_match": True, "invert_match": True}},
    ]
    return {
        "routes": [
            {"match": {"prefix": "/", "headers": [each["header"] for each in grpc]}, **_UNUSED},
            {"match": {"prefix": "/"}, "typed_per_filter_config": on, **_UNUSED},
        ]
    }


# The application answers before Envoy looks for a cluster; but CORS is applied only on a route to one.
_UNUSED: Config = {"route": {"cluster_header": "x-pointsman-unused"}}


def _on(config: Config) -> Config:
    """Turn a filter on for a route."""
    return {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": config}


def _cors(origins: Sequence[str]) -> Config:
    """Return what Envoy tells pages of ``origins``."""
    return {
        "@type": f"{TYPES}.cors.v3.CorsPolicy",
        "allow_origin_string_match": [_origin(origin) for origin in origins],
        "allow_methods": CORS_METHODS,
        "allow_headers": CORS_HEADERS,
        "expose_headers": CORS_EXPOSED,
        "max_age": str(CORS_MAX_AGE_SECONDS),
    }


def _origin(origin: str) -> Config:
    return {"prefix": ""} if origin == "*" else {"exact": origin}


def local_replies() -> Config:
    """Return how Envoy writes its own answers: as ``google.rpc.Status`` in JSON, but not to clients of gRPC."""
    return {"mappers": [_mapper(status, code) for status, code in LOCAL_CODES.items()]}


def _mapper(status: int, code: int) -> Config:
    comparison = {"op": "EQ", "value": {"default_value": status, "runtime_key": "pointsman.unused"}}
    filters = [{"status_code_filter": {"comparison": comparison}}, _NOT_GRPC]
    body = {"code": code, "message": "%LOCAL_REPLY_BODY%", "details": []}
    return {
        "filter": {"and_filter": {"filters": filters}},
        "body_format_override": {"json_format": body, "content_type": "application/json"},
    }


# The transcoder makes gRPC of what it takes, and keeps the path that it came by.
_NOT_GRPC: Config = {
    "or_filter": {
        "filters": [
            {
                "header_filter": {
                    "header": {
                        "name": "content-type",
                        "string_match": {"prefix": "application/grpc"},
                        "invert_match": True,
                        "treat_missing_header_as_empty": True,
                    }
                }
            },
            {"header_filter": {"header": {"name": "x-envoy-original-path", "present_match": True}}},
        ]
    }
}


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
    return FileDescriptorSet(file=with_imports((route_service_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR)))
