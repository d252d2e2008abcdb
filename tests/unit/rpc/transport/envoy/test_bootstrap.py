"""The configuration of Envoy."""

from pathlib import Path
from typing import Any

import pytest

from pointsman_server.rpc.transport.envoy.bootstrap import Door, bootstrap

DIRECTORY = Path("/run/pointsman")


def chain_of(tls: str) -> dict[str, Any]:
    door = Door("0.0.0.0", 443, "a:b", "/lib/pyvoy.so", DIRECTORY, tls=tls)
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
