"""The configuration of Envoy, as a pure function of what the settings ask for.

Envoy terminates TLS and HTTP, bounds what a connection can take, and hands each request to the application that pyvoy
runs in it. https://www.envoyproxy.io/docs/envoy/latest/api-v3/api
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pointsman_server.rpc.transport.envoy import goaway, secrets
from pointsman_server.rpc.transport.envoy.secrets import CLIENT_CA, SERVER
from pointsman_server.rpc.transport.limits import LONGEST_ID, REQUEST_ID, CallLimits, Connections

Config = dict[str, Any]

TYPES = "type.googleapis.com/envoy.extensions"
# What a stream, and all streams of a connection, may send before it is read; also what Envoy buffers of a response
# before the application has to wait.
STREAM_WINDOW_BYTES = 256 << 10
CONNECTION_WINDOW_BYTES = 1 << 20
CONNECTION_BUFFER_BYTES = 256 << 10
# Envoy's own bounds of headers are this many times those of the application, which refuses by a status that says so.
HEADER_SLACK = 4
# A header takes so much at least, as the application counts (RFC 9113, 6.5.2).
SMALLEST_HEADER_BYTES = 33
# A TLS handshake, and the headers of a request, each arrive within this time.
HANDSHAKE_SECONDS = 10
# After GOAWAY, how long a connection goes on to take calls that were already on their way (RFC 9113, 6.8).
GOAWAY_SECONDS = 1
# Rapid reset (CVE-2023-44487): a connection is closed when half of this many streams ended within a second of their
# start without a response.
PREMATURE_RESETS = 500
# Answers to pings, settings and resets that wait for a client to read them: with more it is disconnected.
CONTROL_FRAMES = 1000
# Other frames that wait for a client to read them: with more it is disconnected.
OUTBOUND_FRAMES = 10_000
# New connections that are taken before calls go on: with more, a storm of connections delays them.
ACCEPTS_AT_ONCE = 1
OVERLOAD_SECONDS = 0.25
# Of the heap's bound. Envoy resets the streams with the largest buffers first, from these bytes (as a power of two) on.
RESET_FROM, RESET_ALL, REFUSE_FROM = 0.8, 0.95, 0.9
TRACKED_STREAM_POWER = 17


def admin_socket(directory: Path) -> Path:
    """Return where Envoy's administration listens, in the directory that is private to this server."""
    return directory / "admin.sock"


@dataclass(frozen=True, slots=True)
class Door:
    """What Envoy serves, and where.

    It listens on ``port`` of each of the IP addresses ``hosts``.
    ``application`` is the ASGI application, as ``module:attribute``. ``module`` is pyvoy's dynamic module.
    ``directory`` is private to this server: Envoy's administration socket and the certificates are in it.
    ``tls`` is "server" or "mutual", or empty for plaintext. ``filters`` come before the application.
    ``virtual_host`` is added to the only virtual host; ``local_replies`` is how Envoy's own answers are written.
    """

    hosts: Sequence[str]
    port: int
    application: str
    module: str
    directory: Path
    limits: CallLimits = field(default_factory=CallLimits)
    connections: Connections = field(default_factory=Connections)
    share_port: bool = False
    tls: str = ""
    filters: Sequence[Mapping[str, Any]] = ()
    virtual_host: Mapping[str, Any] = field(default_factory=dict)
    local_replies: Mapping[str, Any] = field(default_factory=dict)

    @property
    def admin_socket(self) -> Path:
        """Where Envoy's administration listens."""
        return admin_socket(self.directory)

    @property
    def secrets(self) -> Path:
        """Where Envoy gets the certificates (``secrets.Secrets``)."""
        return secrets.directory_in(self.directory)


def bootstrap(door: Door) -> Config:
    """Return the configuration that Envoy starts with."""
    return {
        "node": {"id": "pointsman", "cluster": "pointsman"},
        "admin": {
            "address": {"pipe": {"path": str(door.admin_socket), "mode": 0o600}},
            "ignore_global_conn_limit": True,
        },
        "static_resources": {"listeners": [_listener(door)]},
        "overload_manager": _overload(door),
        "layered_runtime": {"layers": [{"name": "static", "static_layer": _runtime()}]},
    }


def _runtime() -> Config:
    return {
        "overload.premature_reset_total_stream_count": PREMATURE_RESETS,
        "overload.premature_reset_min_stream_lifetime_seconds": 1,
        # One connection cannot hold up the others by many requests in one read.
        "http.max_requests_per_io_cycle": 1,
    }


def _overload(door: Door) -> Config:
    """Bound connections and memory.

    The heap is that of Envoy's allocator, which Python's larger objects and native libraries use too.
    https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/overload_manager/overload_manager
    """
    monitors = "envoy.resource_monitors"
    heap = f"{monitors}.fixed_heap"

    def at(threshold: float) -> list[Config]:
        return [{"name": heap, "threshold": {"value": threshold}}]

    return {
        "refresh_interval": _seconds(OVERLOAD_SECONDS),
        "loadshed_points": [goaway.shed_point()],
        "resource_monitors": [
            goaway.monitor(door.directory),
            {
                "name": f"{monitors}.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{TYPES}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": door.connections.most,
                },
            },
            {
                "name": heap,
                "typed_config": {
                    "@type": f"{TYPES}.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": door.connections.heap_bytes,
                },
            },
        ],
        "actions": [
            {"name": "envoy.overload_actions.shrink_heap", "triggers": at(RESET_FROM)},
            {
                "name": "envoy.overload_actions.reset_high_memory_stream",
                "triggers": [
                    {"name": heap, "scaled": {"scaling_threshold": RESET_FROM, "saturation_threshold": RESET_ALL}}
                ],
            },
            {"name": "envoy.overload_actions.stop_accepting_requests", "triggers": at(REFUSE_FROM)},
            {"name": "envoy.overload_actions.stop_accepting_connections", "triggers": at(RESET_ALL)},
        ],
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": TRACKED_STREAM_POWER},
    }


def _listener(door: Door) -> Config:
    chain: Config = {"filters": [_connection_manager(door)]}
    addresses = [_address(host, door.port) for host in door.hosts]
    if door.tls:
        chain["transport_socket"] = _tls(door)
        chain["transport_socket_connect_timeout"] = f"{HANDSHAKE_SECONDS}s"
    return {
        "name": "grpc",
        "address": addresses[0],
        "additional_addresses": [{"address": address} for address in addresses[1:]],
        # Otherwise a second server on a taken port would start, and get some of its connections.
        "enable_reuse_port": door.share_port,
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER_BYTES,
        "max_connections_to_accept_per_socket_event": ACCEPTS_AT_ONCE,
        "filter_chains": [chain],
    }


def _address(host: str, port: int) -> Config:
    address: Config = {"address": host, "port_value": port}
    if host == "::":
        # IPv4 too, as on grpcio.
        address["ipv4_compat"] = True
    return {"socket_address": address}


def _connection_manager(door: Door) -> Config:
    limits, connections = door.limits, door.connections
    config = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "grpc",
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], **door.virtual_host}]},
        "local_reply_config": dict(door.local_replies),
        "http_filters": [*door.filters, _application(door)],
        "server_header_transformation": "PASS_THROUGH",
        # The address of the connection is the caller's, whatever x-forwarded-for says.
        "use_remote_address": True,
        "skip_xff_append": True,
        # The caller's request id or, without one, a new one: in the request that the application gets, and in every
        # answer, those by Envoy itself too.
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "early_header_mutation_extensions": [_shortened_request_id()],
        "request_id_extension": {
            "typed_config": {
                "@type": f"{TYPES}.request_id.uuid.v3.UuidRequestIdConfig",
                # Else it would write into the caller's.
                "pack_trace_reason": False,
                "use_request_id_for_trace_sampling": False,
            }
        },
        "stream_error_on_invalid_http_message": True,
        "max_request_headers_kb": min(8192, HEADER_SLACK * math.ceil(limits.metadata_bytes / 1024)),
        "request_headers_timeout": f"{HANDSHAKE_SECONDS}s",
        # A stream of events may be silent for long.
        "stream_idle_timeout": "0s",
        # A response that is complete, and that the client does not read.
        "stream_flush_timeout": _seconds(connections.unread),
        "drain_timeout": f"{GOAWAY_SECONDS}s",
        **_client_certificate(door),
        "common_http_protocol_options": {
            "idle_timeout": _seconds(connections.idle),
            "max_headers_count": HEADER_SLACK * limits.metadata_bytes // SMALLEST_HEADER_BYTES,
            **({"max_connection_duration": _seconds(connections.age)} if connections.age else {}),
        },
        "http2_protocol_options": {
            "max_concurrent_streams": limits.streams,
            "initial_stream_window_size": STREAM_WINDOW_BYTES,
            "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
            "max_outbound_control_frames": CONTROL_FRAMES,
            "max_outbound_frames": OUTBOUND_FRAMES,
            "override_stream_error_on_invalid_http_message": True,
            "connection_keepalive": {
                "interval": _seconds(connections.keepalive),
                "timeout": _seconds(connections.keepalive_timeout),
            },
        },
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _shortened_request_id() -> Config:
    """Shorten a caller's request id before Envoy reads it, as ``Call.request_id`` does on every transport."""
    header = {"key": REQUEST_ID, "value": f"%REQ({REQUEST_ID}):{LONGEST_ID}%"}
    mutation = {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS"}}
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{TYPES}.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [mutation],
        },
    }


def _application(door: Door) -> Config:
    settings = {"app": door.application, "interface": "asgi", "root_path": "", "lifespan": True}
    return {
        "name": "pyvoy",
        "typed_config": {
            "@type": f"{TYPES}.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": door.module}}},
            "filter_name": "pyvoy",
            "terminal_filter": True,
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": json.dumps(settings),
            },
        },
    }


def _client_certificate(door: Door) -> Config:
    """Pass the verified certificate on, never what a client says it has.

    The whole of it: Envoy does not quote the names, which may contain anything (``asgi.client_certificate``).
    """
    if door.tls != "mutual":
        return {"forward_client_cert_details": "SANITIZE"}
    return {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"cert": True}}


def _tls(door: Door) -> Config:
    """Take the certificates from a file that is replaced when they change (SDS)."""
    mutual = door.tls == "mutual"
    common: Config = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [_secret(door, SERVER)],
    }
    if mutual:
        common["validation_context_sds_secret_config"] = _secret(door, CLIENT_CA)
    context = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": common,
        "require_client_certificate": mutual,
        # A resumed session is not verified again, so a certificate that has expired would go on.
        "disable_stateless_session_resumption": mutual,
        "disable_stateful_session_resumption": mutual,
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _secret(door: Door, name: str) -> Config:
    source = {"path_config_source": {"path": str(door.secrets / f"{name}.json")}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}s"
