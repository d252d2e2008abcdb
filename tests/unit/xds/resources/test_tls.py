"""TLS in the form that each kind of client takes."""

from typing import Any

import pytest

from pointsman_server.xds.protocol.messages import Cluster
from pointsman_server.xds.resources.destinations import Destination, destination_of
from pointsman_server.xds.resources.tls import secure
from pointsman_server.xds.views import ClientKind, View
from tests.support.xds_messages import plain

ENVOY = View(ClientKind.ENVOY, ca_file="/ca.pem", listen="127.0.0.1:1")
NAME, ADDRESS, ADDRESS_6 = "https://Payments.internal.:1", "https://127.0.0.1", "https://[2001:DB8:0::1]"


def context(view: View, url: str) -> Any:
    destination = destination_of(view.kind, url)
    assert isinstance(destination, Destination)
    cluster = Cluster()
    secure(cluster, view, destination)
    assert cluster.transport_socket.name == "envoy.transport_sockets.tls"
    socket = plain(cluster)["transport_socket"]["typed_config"]
    assert socket.pop("@type") == "UpstreamTlsContext"
    return socket


def test_grpc_clients_use_the_certificate_provider_that_they_name() -> None:
    assert context(View(ca_provider="roots"), NAME) == {
        "common_tls_context": {
            "validation_context": {
                "ca_certificate_provider_instance": {"instance_name": "roots"},
                "match_subject_alt_names": [{"exact": "payments.internal"}],
            }
        },
        "sni": "payments.internal",
    }


def test_grpc_clients_that_name_none_use_the_certificates_of_the_system() -> None:
    assert context(View(), NAME)["common_tls_context"]["validation_context"] == {
        "system_root_certs": {},
        "match_subject_alt_names": [{"exact": "payments.internal"}],
    }


def test_envoy_uses_a_file() -> None:
    assert context(ENVOY, NAME) == {
        "common_tls_context": {
            "validation_context": {
                "trusted_ca": {"filename": "/ca.pem"},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "payments.internal"}}],
            }
        },
        "sni": "payments.internal",
    }


@pytest.mark.parametrize(("url", "address"), [(ADDRESS, "127.0.0.1"), (ADDRESS_6, "2001:db8::1")])
def test_an_address_is_a_san_and_no_server_name(url: str, address: str) -> None:
    validation = context(ENVOY, url)["common_tls_context"]["validation_context"]

    assert validation["match_typed_subject_alt_names"] == [{"san_type": "IP_ADDRESS", "matcher": {"exact": address}}]
    assert "sni" not in context(ENVOY, url)
    for view in (View(), View(ca_provider="a")):
        found = context(view, url)
        assert "sni" not in found
        assert {"exact": address} in found["common_tls_context"]["validation_context"]["match_subject_alt_names"]


@pytest.mark.parametrize(
    ("url", "sans"),
    [
        (ADDRESS, ["127.0.0.1"]),
        (ADDRESS_6, ["2001:db8::1", "2001:DB8:0:0:0:0:0:1"]),
        ("https://[1:2:3:4:5:6:7:8]", ["1:2:3:4:5:6:7:8"]),
    ],
)
def test_an_address_is_also_written_as_node_does(url: str, sans: list[str]) -> None:
    validation = context(View(), url)["common_tls_context"]["validation_context"]

    assert validation["match_subject_alt_names"] == [{"exact": san} for san in sans]
