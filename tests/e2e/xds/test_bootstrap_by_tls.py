"""Each kind of client starts with what ``pointsman xds bootstrap`` prints, where the server wants to know who it is."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pointsman import Client
from tests.e2e.xds.conftest import BACKEND, KEY, NAME, Service, Start, envoy, printed, started
from tests.support.certificates import Authority, TlsFiles
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, jwks
from tests.support.processes import clean_environ, free_port, run
from tests.support.servers import EVERYBODY
from tests.support.waiting import eventually
from tests.support.xds_clients.backend import METHOD

OK = grpc.StatusCode.OK
PAGE = Path(__file__).parents[3] / "docs" / "xds.md"
ADMIN = "{address: 127.0.0.1, port_value: 0}"
PYTHON = "python"
CALL_SECONDS = 30
GO = pytest.param("go", marks=pytest.mark.go)
pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def secured(tls: TlsFiles) -> dict[str, object]:
    """The settings of a server that wants to know who its clients are."""
    return {"tls_cert_file": tls.cert, "tls_key_file": tls.key, "policy_file": EVERYBODY}


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey("key-1")


@pytest.fixture(scope="module")
def with_tokens(
    start: Start, secured: dict[str, object], tls: TlsFiles, key: SigningKey, backend: str, tmp_path_factory: Any
) -> Iterator[Service]:
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    keys.write_bytes(jwks(key))
    with start(**secured, jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_jwks_file=keys) as running:
        service = by_name(running)
        with Client(service.api, ca_file=tls.client_ca, token=key.token(), timeout=30) as client:
            client.create(KEY, backend)
        yield service


@pytest.fixture(scope="module")
def pair(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """The certificate of a client."""
    files = TlsFiles(tmp_path_factory.mktemp("client"))
    files.write(authority.client(dns=("checkout.internal",)))
    return files


@pytest.fixture(scope="module")
def with_certificates(
    start: Start, secured: dict[str, object], tls: TlsFiles, pair: TlsFiles, backend: str
) -> Iterator[Service]:
    with start(**secured, tls_client_ca_file=tls.client_ca) as running:
        service = by_name(running)
        with Client(service.api, ca_file=tls.client_ca, cert_file=pair.cert, key_file=pair.key, timeout=30) as client:
            client.create(KEY, backend)
        yield service


@pytest.fixture
def token_options(tls: TlsFiles, key: SigningKey, tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "token").write_text(key.token())
    return "--ca-file", str(tls.client_ca), "--token-file", str(tmp_path / "token")


@pytest.fixture
def certificate_options(tls: TlsFiles, pair: TlsFiles) -> tuple[str, ...]:
    return "--ca-file", str(tls.client_ca), "--cert-file", str(pair.cert), "--key-file", str(pair.key)


@pytest.mark.parametrize("program", [PYTHON, GO])
def test_a_grpc_client_sends_a_token(
    with_tokens: Service, token_options: tuple[str, ...], tmp_path: Path, program: str
) -> None:
    environ = printed(program, tmp_path / "b.json", "--xds", with_tokens.xds, before=token_options)
    with started(program, environ) as probe:
        probe.target("name", f"xds:///{NAME}")
        probe.wait("name", OK, BACKEND)


def test_the_commands_take_the_same_credentials(
    with_tokens: Service, token_options: tuple[str, ...], tmp_path: Path
) -> None:
    environ = printed(PYTHON, tmp_path / "b.json", "--xds", with_tokens.xds, before=token_options)
    with started(PYTHON, environ) as probe:
        probe.target("name", f"xds:///{NAME}")
        probe.wait("name", OK, BACKEND)
        listed = run("pointsman", *token_options, "xds", "clients", "--xds", with_tokens.xds)
        explained = run("pointsman", *token_options, "xds", "explain", KEY, "--xds", with_tokens.xds)
    assert (listed.returncode, explained.returncode) == (0, 0), listed.stderr + explained.stderr
    assert "jwt:checkout" in listed.stdout
    assert "calls     pass" in explained.stdout

    refused = run("pointsman", *token_options[:2], "xds", "clients", "--xds", with_tokens.xds)
    assert refused.returncode == 6
    assert "give a token" in refused.stderr


@pytest.mark.parametrize("program", [PYTHON, GO])
def test_a_grpc_client_shows_a_certificate(
    with_certificates: Service, certificate_options: tuple[str, ...], tmp_path: Path, program: str
) -> None:
    environ = printed(program, tmp_path / "b.json", "--xds", with_certificates.xds, before=certificate_options)
    with started(program, environ) as probe:
        probe.target("name", f"xds:///{NAME}")
        probe.wait("name", OK, BACKEND)


CONFIGURED = f"""
import asyncio
import grpc, grpc.aio
import pointsman
pointsman.xds.configure()
target = pointsman.xds.target("{KEY}")
with grpc.secure_channel(target, pointsman.xds.credentials()) as channel:
    print(channel.unary_unary("{METHOD}")(b"0", timeout={CALL_SECONDS}).decode())
async def call():
    async with grpc.aio.insecure_channel(target) as channel:
        print((await channel.unary_unary("{METHOD}")(b"0", timeout={CALL_SECONDS})).decode())
asyncio.run(call())
"""


@pytest.mark.parametrize("kind", ["tokens", "certificates"])
def test_configure_takes_the_same_from_the_environment(request: pytest.FixtureRequest, kind: str) -> None:
    service: Service = request.getfixturevalue(f"with_{kind}")
    options = request.getfixturevalue(f"{kind.removesuffix('s')}_options")
    named = {
        f"POINTSMAN_{option.removeprefix('--').replace('-', '_').upper()}": value
        for option, value in zip(options[::2], options[1::2], strict=True)
    }
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURED],
        env=clean_environ() | named | {"POINTSMAN_XDS_SERVER": service.xds},
        capture_output=True,
        text=True,
        timeout=2 * CALL_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, [BACKEND, BACKEND]), done.stderr


def test_an_envoy_sends_its_token_and_takes_one_that_replaces_it(
    with_tokens: Service, token_options: tuple[str, ...], key: SigningKey, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(key.token(exp=1))
    port = free_port()
    options = ("--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0")
    printed("envoy", tmp_path / "envoy.json", "--xds", with_tokens.xds, *options, before=token_options)
    with envoy(tmp_path / "envoy.json", tmp_path), started(PYTHON, {}) as probe:
        assert eventually(lambda: "the token has expired" in (tmp_path / "envoy.log").read_text())
        # As secrets are renewed.
        (tmp_path / "next").write_text(key.token())
        (tmp_path / "next").rename(token)
        probe.target("name", f"ipv4:127.0.0.1:{port}", authority=NAME)
        probe.wait("name", OK, BACKEND)


def test_an_envoy_shows_a_certificate(
    with_certificates: Service, certificate_options: tuple[str, ...], tmp_path: Path
) -> None:
    check_envoy(with_certificates, certificate_options, tmp_path)


@pytest.mark.node
def test_node_connects_by_the_proxy_of_the_page(
    with_certificates: Service, tls: TlsFiles, pair: TlsFiles, tmp_path: Path
) -> None:
    port = free_port()
    [_, proxy] = PAGE.read_text().split("```yaml\nstatic_resources:")
    server_port = with_certificates.xds.removeprefix("localhost:")
    content = f"static_resources:{proxy.partition('```')[0]}"
    for documented, real in {
        "50053": str(port),
        "50052": server_port,
        "pointsman.internal": "localhost",
        "ca.pem": str(tls.client_ca),
        "cert.pem": str(pair.cert),
        "key.pem": str(pair.key),
    }.items():
        assert documented in content
        content = content.replace(documented, real)
    (tmp_path / "proxy.yaml").write_text(f"{content}\nadmin: {{address: {{socket_address: {ADMIN}}}}}\n")
    environ = printed("node", tmp_path / "b.json", "--xds", f"127.0.0.1:{port}")
    with envoy(tmp_path / "proxy.yaml", tmp_path), started("node", environ) as probe:
        probe.target("name", f"xds:///{NAME}")
        probe.wait("name", OK, BACKEND)


def check_envoy(service: Service, before: tuple[str, ...], directory: Path) -> None:
    port = free_port()
    options = ("--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0")
    printed("envoy", directory / "envoy.json", "--xds", service.xds, *options, before=before)
    with envoy(directory / "envoy.json", directory), started(PYTHON, {}) as probe:
        probe.target("name", f"ipv4:127.0.0.1:{port}", authority=NAME)
        probe.wait("name", OK, BACKEND)


def by_name(service: Service) -> Service:
    """Return the addresses by the name in the certificate."""
    return Service(*(address.replace("127.0.0.1", "localhost") for address in (service.api, service.xds)))
