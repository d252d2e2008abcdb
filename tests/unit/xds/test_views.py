"""What a client's node says of it."""

import pytest

from pointsman_server.xds.protocol.messages import DiscoveryRequest
from pointsman_server.xds.views import DEFAULT_CA_FILE, DEFAULT_LISTEN, ClientKind, View, socket_address, view_of


def view(user_agent: str, metadata: dict[str, object] | None = None) -> View:
    node = DiscoveryRequest().node
    node.user_agent_name = user_agent
    if metadata is not None:
        node.metadata.update({"pointsman": metadata, "other": 1})
    return view_of(node)


@pytest.mark.parametrize("user_agent", ["gRPC C-core", "gRPC Node Pure JS", "", "Envoy proxy"])
def test_everything_but_envoy_is_a_grpc_client(user_agent: str) -> None:
    assert view(user_agent) == view(user_agent, {}) == View(ClientKind.GRPC)


def test_a_grpc_client_names_its_certificate_provider() -> None:
    metadata = {"ca_provider": "roots", "ca_file": "/a", "listen": "127.0.0.1:1", "families": ["a/b/c"]}

    assert view("gRPC Go", metadata) == View(ClientKind.GRPC, ca_provider="roots", marks=True)


def test_only_grpc_go_is_marked() -> None:
    assert view("gRPC Go") == View(ClientKind.GRPC, marks=True)


def test_an_envoy_has_defaults() -> None:
    assert view("envoy") == View(ClientKind.ENVOY, ca_file=DEFAULT_CA_FILE, listen=DEFAULT_LISTEN)


def test_an_envoy_names_its_listener_its_certificates_and_its_families() -> None:
    metadata = {"ca_provider": "x", "ca_file": "/ca.pem", "listen": "[::1]:9", "families": ["b/*/*", "a/b/c", "b/*/*"]}

    expected = View(ClientKind.ENVOY, ca_file="/ca.pem", listen="[::1]:9", families=("a/b/c", "b/*/*"))
    assert view("envoy", metadata) == expected


@pytest.mark.parametrize(
    "metadata",
    [
        {"ca_file": 1, "listen": ["127.0.0.1:1"], "families": "a/b/c"},
        {"ca_file": "", "listen": "", "families": [1, "", {}]},
        {"ca_file": "a\nb", "listen": "localhost:80"},
        {"ca_file": "a" * 2_000, "listen": "127.0.0.1:99999"},
        {"listen": "::1:80"},
        {"listen": "[127.0.0.1]:80"},
        {"listen": "127.0.0.1:0"},
        {"listen": "127.0.0.1:²"},
        {"listen": "127.0.0.1"},
    ],
)
def test_malformed_metadata_is_as_if_it_was_not_there(metadata: dict[str, object]) -> None:
    assert view("envoy", metadata) == view("envoy")


def test_metadata_that_is_no_object_is_as_if_it_was_not_there() -> None:
    node = DiscoveryRequest().node
    node.user_agent_name = "envoy"
    node.metadata.update({"pointsman": "x"})

    assert view_of(node) == view("envoy")


def test_addresses_are_read() -> None:
    assert socket_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert socket_address("[0:0::1]:65535") == ("::1", 65535)
