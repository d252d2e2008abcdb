"""The configuration of Envoy."""

from pathlib import Path
from typing import Any

import pytest

from pointsman_server.rpc.transport.envoy.bootstrap import Door, bootstrap
from pointsman_server.rpc.transport.limits import CallLimits, Connections

DIRECTORY = Path("/run/pointsman")


def chain_of(tls: str) -> dict[str, Any]:
    door = Door(["0.0.0.0"], 443, "a:b", "/lib/pyvoy.so", DIRECTORY, tls=tls)
    (listener,) = bootstrap(door)["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    return dict(chain)


def manager_of(tls: str) -> dict[str, Any]:
    (connection_manager,) = chain_of(tls)["filters"]
    return dict(connection_manager["typed_config"])


def tls_of(tls: str) -> dict[str, Any]:
    return dict(chain_of(tls)["transport_socket"]["typed_config"])


def test_without_tls_nothing_encrypts() -> None:
    assert "transport_socket" not in chain_of("")


@pytest.mark.parametrize("tls", ["server", "mutual"])
def test_tls_begins_at_1_2_offers_both_versions_of_http_and_waits_ten_seconds(tls: str) -> None:
    common = tls_of(tls)["common_tls_context"]

    assert common["tls_params"] == {"tls_minimum_protocol_version": "TLSv1_2"}
    assert common["alpn_protocols"] == ["h2", "http/1.1"]
    assert chain_of(tls)["transport_socket_connect_timeout"] == "10s"


@pytest.mark.parametrize("tls", ["server", "mutual"])
def test_the_certificate_comes_from_a_file_that_is_watched(tls: str) -> None:
    (secret,) = tls_of(tls)["common_tls_context"]["tls_certificate_sds_secret_configs"]

    assert secret["name"] == "server"
    assert secret["sds_config"]["path_config_source"] == {"path": "/run/pointsman/tls/server.json"}


def test_mutual_tls_requires_a_certificate_of_the_authorities_at_each_connection() -> None:
    context = tls_of("mutual")

    assert context["require_client_certificate"] is True
    authorities = context["common_tls_context"]["validation_context_sds_secret_config"]
    assert authorities["sds_config"]["path_config_source"] == {"path": "/run/pointsman/tls/client-ca.json"}
    assert context["disable_stateless_session_resumption"] is True
    assert context["disable_stateful_session_resumption"] is True


def test_tls_of_the_server_alone_asks_for_no_certificate_and_resumes_sessions() -> None:
    context = tls_of("server")

    assert context["require_client_certificate"] is False
    assert "validation_context_sds_secret_config" not in context["common_tls_context"]
    assert context["disable_stateless_session_resumption"] is False


def test_only_a_verified_certificate_reaches_the_application_and_as_a_whole() -> None:
    mutual = manager_of("mutual")

    assert mutual["forward_client_cert_details"] == "SANITIZE_SET"
    assert mutual["set_current_client_cert_details"] == {"cert": True}


@pytest.mark.parametrize("tls", ["", "server"])
def test_without_mutual_tls_no_certificate_reaches_the_application(tls: str) -> None:
    assert manager_of(tls)["forward_client_cert_details"] == "SANITIZE"


@pytest.mark.parametrize("tls", ["", "server", "mutual"])
def test_the_peer_is_that_of_the_connection(tls: str) -> None:
    assert manager_of(tls)["use_remote_address"] is True


LIMITS = CallLimits(message_bytes=1 << 20, metadata_bytes=16 << 10, streams=77)
CONNECTIONS = Connections(most=123, unread=4, heap_bytes=300 << 20, keepalive=6, keepalive_timeout=5, idle=8, age=9)


def limited() -> dict[str, Any]:
    return bootstrap(Door(["::"], 1, "a:b", "/lib/pyvoy.so", DIRECTORY, limits=LIMITS, connections=CONNECTIONS))


def limited_manager() -> dict[str, Any]:
    (listener,) = limited()["static_resources"]["listeners"]
    return dict(listener["filter_chains"][0]["filters"][0]["typed_config"])


def test_connections_and_the_heap_are_bounded() -> None:
    overload = limited()["overload_manager"]

    bounds = {each["name"].rpartition(".")[2]: each["typed_config"] for each in overload["resource_monitors"]}
    assert bounds["global_downstream_max_connections"]["max_active_downstream_connections"] == 123
    assert bounds["fixed_heap"]["max_heap_size_bytes"] == 300 << 20
    assert {each["name"].rpartition(".")[2] for each in overload["actions"]} == {
        "shrink_heap",
        "reset_high_memory_stream",
        "stop_accepting_requests",
        "stop_accepting_connections",
    }


def test_the_administration_is_reached_also_when_clients_have_all_connections() -> None:
    assert limited()["admin"]["ignore_global_conn_limit"] is True


def test_the_lifetimes_of_connections_and_streams_are_those_of_the_settings() -> None:
    manager = limited_manager()

    assert manager["http2_protocol_options"]["max_concurrent_streams"] == 77
    assert manager["http2_protocol_options"]["connection_keepalive"] == {"interval": "6.000s", "timeout": "5.000s"}
    assert manager["common_http_protocol_options"]["idle_timeout"] == "8.000s"
    assert manager["common_http_protocol_options"]["max_connection_duration"] == "9.000s"
    assert manager["stream_flush_timeout"] == "4.000s"
    assert manager["stream_idle_timeout"] == "0s"


def test_without_an_age_a_connection_may_last() -> None:
    assert "max_connection_duration" not in manager_of("")["common_http_protocol_options"]


def test_metadata_that_the_application_takes_is_never_refused_by_envoy() -> None:
    """The application counts 32 bytes a header besides its letters; Envoy bounds the letters and the number."""
    manager = limited_manager()
    smallest = len(b"x") + 32

    assert manager["max_request_headers_kb"] << 10 >= 2 * LIMITS.metadata_bytes
    assert manager["common_http_protocol_options"]["max_headers_count"] >= 2 * LIMITS.metadata_bytes // smallest


def test_the_largest_metadata_stays_within_what_envoy_accepts() -> None:
    door = Door(["::"], 1, "a:b", "/lib/pyvoy.so", DIRECTORY, limits=CallLimits(metadata_bytes=1 << 26))
    (listener,) = bootstrap(door)["static_resources"]["listeners"]

    assert listener["filter_chains"][0]["filters"][0]["typed_config"]["max_request_headers_kb"] == 8192


def test_it_listens_on_each_address_and_on_ipv4_too_for_all_of_ipv6() -> None:
    door = Door(["::", "127.0.0.1"], 443, "a:b", "/lib/pyvoy.so", DIRECTORY)
    (listener,) = bootstrap(door)["static_resources"]["listeners"]

    assert listener["address"]["socket_address"] == {"address": "::", "port_value": 443, "ipv4_compat": True}
    others = [item["address"]["socket_address"] for item in listener["additional_addresses"]]
    assert others == [{"address": "127.0.0.1", "port_value": 443}]
