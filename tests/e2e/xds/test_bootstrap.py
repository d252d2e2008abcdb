"""Each kind of client starts with exactly what ``pointsman xds bootstrap`` prints, and nothing more."""

from pathlib import Path

import grpc
import pytest

from pointsman import Client
from tests.e2e.xds.conftest import BACKEND, NAME, Service, envoy, printed, started
from tests.support.certificates import TlsFiles
from tests.support.processes import free_port
from tests.support.tls_listener import tls_listener
from tests.support.waiting import eventually

OK = grpc.StatusCode.OK
PYTHON = "python"
GO = pytest.param("go", marks=pytest.mark.go)
NODE = pytest.param("node", marks=pytest.mark.node)
pytestmark = pytest.mark.engines


@pytest.mark.parametrize("program", [PYTHON, GO, NODE])
def test_a_grpc_client_starts_in_plain_text(service: Service, tmp_path: Path, program: str) -> None:
    environ = printed(program, tmp_path / "bootstrap.json", "--xds", service.xds)
    for variable in ("GRPC_EXPERIMENTAL_XDS_SYSTEM_ROOT_CERTS", "GRPC_EXPERIMENTAL_XDS_SNI"):
        assert environ.pop(variable, "true") == "true"
    assert environ == {"GRPC_XDS_BOOTSTRAP": str(tmp_path / "bootstrap.json")}
    with started(program, environ) as probe:
        probe.target("name", f"xds:///{NAME}")
        probe.target("authority", f"xds://pointsman/{NAME}")
        probe.target("unknown", "xds:///v9~prod~payments~team-a")
        probe.wait("name", OK, BACKEND)
        probe.wait("authority", OK, BACKEND)
        probe.wait("unknown", grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize("program", [PYTHON, GO, NODE])
def test_a_grpc_client_trusts_the_file_for_https_urls(
    service: Service, tls: TlsFiles, tmp_path: Path, program: str
) -> None:
    environ = printed(
        program, tmp_path / "b.json", "--xds", service.xds, "--https-ca-file", str(tls.client_ca), "--locality", "eu/a"
    )
    with started(program, environ) as probe:
        probe.target("https", "xds:///v1~prod~vault~team-a", credentials="xds")
        probe.target("http", f"xds:///{NAME}", credentials="xds")
        probe.wait("https", OK, "https")
        probe.wait("http", OK, BACKEND)


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("python", "localhost"),
        pytest.param("go", "localhost", marks=pytest.mark.go),
        # What clients cannot do (docs/xds.md).
        pytest.param("node", "v1~prod~hosts-node~team-a", marks=pytest.mark.node),
    ],
)
def test_the_server_name_of_tls_is_the_host_of_the_url(
    service: Service, tls: TlsFiles, tmp_path: Path, program: str, name: str
) -> None:
    environ = printed(program, tmp_path / "b.json", "--xds", service.xds, "--https-ca-file", str(tls.client_ca))
    with tls_listener(tls) as listener, started(program, environ) as probe:
        with Client(service.api, timeout=30) as client:
            client.create(f"team-a/hosts-{program}/prod/v1", f"https://localhost:{listener.port}")
        probe.target("https", f"xds:///v1~prod~hosts-{program}~team-a", credentials="xds")
        assert eventually(lambda: listener.names)
        assert set(listener.names) == {name}


def test_an_envoy_starts_in_plain_text_and_trusts_the_file_for_https_urls(
    service: Service, tls: TlsFiles, tmp_path: Path
) -> None:
    port = free_port()
    options = ("--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0", "--https-ca-file", str(tls.client_ca))
    assert printed("envoy", tmp_path / "envoy.json", "--xds", service.xds, *options, "--family", "team-a/*/prod") == {}
    with envoy(tmp_path / "envoy.json", tmp_path), started(PYTHON, {}) as probe:
        for name, authority in (("http", NAME), ("https", "v1~prod~vault~team-a"), ("unknown", "v9~x~y~z")):
            probe.target(name, f"ipv4:127.0.0.1:{port}", authority=authority)
        probe.wait("http", OK, BACKEND)
        probe.wait("https", OK, "https")
        probe.wait("unknown", grpc.StatusCode.NOT_FOUND)
