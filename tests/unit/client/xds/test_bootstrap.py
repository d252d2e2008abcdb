"""xds.bootstrap: what a gRPC client reads. That the real ones take it is tested in tests/e2e/xds."""

import pytest

from pointsman.xds.bootstrap import CA_PROVIDER, grpc_bootstrap
from pointsman.xds.options import ControlPlane, Node, Program, Upstreams

GRPC = [Program.PYTHON, Program.GO, Program.NODE]
PLAIN = ControlPlane(("a:1",))
NODE = Node("x")
# That Go needs to send the host of an https URL as server name.
SERVER_NAME = {"GRPC_EXPERIMENTAL_XDS_SNI": "true"}


@pytest.mark.parametrize("program", GRPC)
def test_the_least_is_the_server_and_a_node_with_a_locality(program: Program) -> None:
    assert grpc_bootstrap(program, PLAIN, NODE, Upstreams()).document == {
        "xds_servers": [
            {
                "server_uri": "a:1",
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3", "ignore_resource_deletion"],
            }
        ],
        "node": {"id": "x", "locality": {}},
        "authorities": {"pointsman": {}},
    }


def test_tls_without_files_trusts_the_system() -> None:
    made = grpc_bootstrap(Program.GO, ControlPlane(("a:1",), tls=True), NODE, Upstreams())
    assert made.document["xds_servers"][0]["channel_creds"] == [{"type": "tls"}]


def test_tls_with_files_has_them_in_its_config() -> None:
    servers = ControlPlane(("a:1", "b:2"), ca_file="/ca", cert_file="/cert", key_file="/key")
    made = grpc_bootstrap(Program.PYTHON, servers, NODE, Upstreams())
    config = {
        "ca_certificate_file": "/ca",
        "certificate_file": "/cert",
        "private_key_file": "/key",
        "refresh_interval": "600s",
    }
    assert [each["server_uri"] for each in made.document["xds_servers"]] == ["a:1", "b:2"]
    for each in made.document["xds_servers"]:
        assert each["channel_creds"] == [{"type": "tls", "config": config}]
    assert made.environment == {}


@pytest.mark.parametrize("program", [Program.PYTHON, Program.GO])
def test_a_token_is_a_call_credential_and_needs_a_variable(program: Program) -> None:
    made = grpc_bootstrap(program, ControlPlane(("a:1",), tls=True, token_file="/token"), NODE, Upstreams("/ca"))
    assert made.document["xds_servers"][0]["call_creds"] == [
        {"type": "jwt_token_file", "config": {"jwt_token_file": "/token"}}
    ]
    others = SERVER_NAME if program is Program.GO else {}
    assert made.environment == {"GRPC_EXPERIMENTAL_XDS_BOOTSTRAP_CALL_CREDS": "true"} | others


def test_go_needs_a_variable_to_trust_the_system_for_https_urls() -> None:
    variable = "GRPC_EXPERIMENTAL_XDS_SYSTEM_ROOT_CERTS"
    assert grpc_bootstrap(Program.GO, PLAIN, NODE, Upstreams()).environment == SERVER_NAME | {variable: "true"}
    assert grpc_bootstrap(Program.GO, PLAIN, NODE, Upstreams("/ca")).environment == SERVER_NAME
    assert grpc_bootstrap(Program.PYTHON, PLAIN, NODE, Upstreams()).environment == {}


@pytest.mark.parametrize("program", GRPC)
def test_a_file_for_https_urls_is_a_provider_that_the_server_is_told_of(program: Program) -> None:
    made = grpc_bootstrap(program, PLAIN, Node("x", ("eu", "a")), Upstreams("/https-ca"))
    assert made.document["certificate_providers"] == {
        CA_PROVIDER: {
            "plugin_name": "file_watcher",
            "config": {"ca_certificate_file": "/https-ca", "refresh_interval": "600s"},
        }
    }
    assert made.document["node"] == {
        "id": "x",
        "locality": {"region": "eu", "zone": "a"},
        "metadata": {"pointsman": {"ca_provider": CA_PROVIDER}},
    }
    assert made.notes == ()


@pytest.mark.parametrize("servers", [ControlPlane(("a:1",), tls=True), ControlPlane(("a:1",), token_file="/token")])
def test_node_is_refused_tls_and_tokens(servers: ControlPlane) -> None:
    with pytest.raises(ValueError, match="grpc-js-xds knows plain text alone"):
        grpc_bootstrap(Program.NODE, servers, NODE, Upstreams())


def test_node_is_told_what_it_cannot_do() -> None:
    notes = grpc_bootstrap(Program.NODE, ControlPlane(("a:1", "b:2")), NODE, Upstreams()).notes
    assert [note.partition(":")[0] for note in notes] == [
        "https URLs will be refused",
        "Node connects to the first server alone",
    ]


def test_of_several_servers_is_told_what_the_others_are_good_for() -> None:
    [note] = grpc_bootstrap(Program.GO, ControlPlane(("a:1", "b:2")), NODE, Upstreams()).notes
    assert note.startswith("while the first server is down")


@pytest.mark.parametrize("upstreams", [Upstreams(listen="a:1"), Upstreams(families=("*",)), Upstreams(admin="a:1")])
def test_what_is_of_envoy_is_refused(upstreams: Upstreams) -> None:
    with pytest.raises(ValueError, match="are Envoy's"):
        grpc_bootstrap(Program.PYTHON, PLAIN, NODE, upstreams)
