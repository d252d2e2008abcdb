"""xds bootstrap: the document, and what is said beside it."""

import json
import socket
from pathlib import Path

import pytest

from tests.unit.client.conftest import Run


@pytest.mark.parametrize("program", ["python", "go", "node"])
def test_prints_the_bootstrap_of_a_client_on_this_machine(run: Run, program: str) -> None:
    done = run("--server", "localhost:50051", "xds", "bootstrap", "--for", program)
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["xds_servers"][0]["server_uri"] == "localhost:50052"
    assert document["node"]["id"] == socket.gethostname()


def test_prints_that_of_envoy(run: Run) -> None:
    done = run(
        *("xds", "bootstrap", "--for", "envoy", "--xds", "pointsman.internal:50052", "--node-id", "edge"),
        *("--locality", "eu/a", "--listen", "0.0.0.0:8080", "--family", "a/*/prod", "--family", "b/*/*"),
        *("--admin", "127.0.0.1:0"),
    )
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["node"]["metadata"]["pointsman"] == {"listen": "0.0.0.0:8080", "families": ["a/*/prod", "b/*/*"]}
    assert document["admin"]["address"]["socket_address"]["port_value"] == 0


def test_says_which_variables_the_client_needs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text("a.b.c\n")
    done = run("--tls", "--token-file", "jwt", "xds", "bootstrap", "--for", "go", "--output", "b.json", "--xds", "a:1")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "the client needs these environment variables:",
        f"export GRPC_XDS_BOOTSTRAP={tmp_path}/b.json",
        "export GRPC_EXPERIMENTAL_XDS_BOOTSTRAP_CALL_CREDS=true",
        "export GRPC_EXPERIMENTAL_XDS_SYSTEM_ROOT_CERTS=true",
        "export GRPC_EXPERIMENTAL_XDS_SNI=true",
    ]
    server = json.loads((tmp_path / "b.json").read_text())["xds_servers"][0]
    assert server["call_creds"][0]["config"] == {"jwt_token_file": f"{tmp_path}/jwt"}


def test_a_shell_can_take_the_variables_as_they_are_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my files").mkdir()
    done = run("xds", "bootstrap", "--for", "python", "--output", "my files/b$1.json", "--xds", "a:1")
    assert done.stderr.splitlines()[1] == f"export GRPC_XDS_BOOTSTRAP='{tmp_path}/my files/b$1.json'"


def test_says_which_files_are_not_on_this_machine(run: Run, tmp_path: Path) -> None:
    done = run("--ca-file", "ca.pem", "xds", "bootstrap", "--for", "python", "--https-ca-file", "/no/https.pem")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        f"note: {tmp_path}/ca.pem is not on this machine: it must be on that of the client",
        "note: /no/https.pem is not on this machine: it must be on that of the client",
    ]


def test_warns_of_a_token_that_would_not_be_taken(run: Run, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("pmk_canary\n")
    before = ("--tls", "--token-file", "token", "xds", "bootstrap", "--xds", "a:1", "--for")
    done = run(*before, "go")
    assert done.exit_code == 0
    assert f"warning: {tmp_path}/token: gRPC sends a JWT alone" in done.stderr
    assert "canary" not in done.output
    (tmp_path / "token").write_text("a.b.c\n")
    assert "line end" in run(*before, "python").stderr
    assert "line end" in run(*before, "envoy").stderr
    (tmp_path / "token").write_text("pmk_canary")
    assert "Envoy reads the token when it starts" in run(*before, "envoy").stderr
    told = run(*before, "envoy", "--output", "envoy.json").stderr
    assert told == f"it refers to {tmp_path}/envoy.token.json, which is written, too\n"
    [secret] = json.loads((tmp_path / "envoy.token.json").read_text())["resources"]
    assert secret["generic_secret"]["secret"]["filename"] == f"{tmp_path}/token"


def test_says_what_node_cannot_do(run: Run) -> None:
    assert "note: https URLs will be refused" in run("xds", "bootstrap", "--for", "node").stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--tls", "xds", "bootstrap", "--for", "node"], "plain text alone"),
        (["--token-file", "t", "xds", "bootstrap", "--for", "python"], "needs TLS"),
        (["--token", "t", "--tls", "xds", "bootstrap", "--for", "python"], "--token-file instead of --token"),
        (["--cert-file", "t", "xds", "bootstrap", "--for", "envoy"], "belong together"),
        (["xds", "bootstrap", "--for", "go", "--family", "a/b/c"], "Envoy's"),
        (["xds", "bootstrap", "--for", "envoy", "--admin", "0.0.0.0:1"], "loopback"),
        (["xds", "bootstrap", "--for", "envoy", "--locality", "a/b/c/d"], "locality"),
        (["--server", "unix:/x", "xds", "bootstrap", "--for", "go"], "where is xDS"),
        (["xds", "bootstrap", "--for", "go", "--xds", "a"], "--xds: 'a' must be HOST:PORT: it has no port"),
        (["xds", "bootstrap", "--for", "go", "--xds", "http://a:1"], "--xds: 'http://a:1' must be HOST:PORT"),
        (["xds", "bootstrap", "--for", "rust"], "rust"),
        (["xds", "bootstrap"], "Missing option '--for'. Choose from: python, go, node, envoy"),
    ],
)
def test_what_a_client_cannot_do_is_refused_in_words(run: Run, arguments: list[str], problem: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert problem in done.stderr


def test_a_file_that_cannot_be_written_is_an_error(run: Run) -> None:
    done = run("xds", "bootstrap", "--for", "go", "--output", "no/such/b.json")
    assert done.exit_code == 1
    assert done.stderr == "error: no/such/b.json cannot be written: No such file or directory\n"
