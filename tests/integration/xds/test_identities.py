"""Who may have what: clients with a certificate or a token of their own, on a server that checks them."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from pointsman import Client
from pointsman.xds.options import ControlPlane, Program
from tests.support.certificates import Authority, Pair, TlsFiles
from tests.support.engines import fresh_database, fresh_redis
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, jwks
from tests.support.xds_clients.backends import backends
from tests.support.xds_clients.clients import TLS_KINDS, wait_for_door, xds_client
from tests.support.xds_clients.fleet import OK, XdsServer

pytestmark = pytest.mark.go

DENIED = grpc.StatusCode.PERMISSION_DENIED
READER = "spiffe://test/reader"
POLICY = f"""
[[grant]]
subjects = ["jwt:admin", "spiffe://test/admin"]
roles = ["admin"]
tenants = ["*"]

[[grant]]
subjects = ["jwt:reader", "{READER}"]
roles = ["reader"]
tenants = ["team-a"]
"""


@dataclass(frozen=True)
class Guarded:
    """A server that checks its callers, and how the reader connects to it."""

    server: XdsServer
    plane: ControlPlane
    policy: Path


# As it is when the reader has lost its grant.
REVOKED = POLICY[: POLICY.index("[[grant]]", POLICY.index("[[grant]]") + 1)]


@pytest.fixture(scope="module", params=["certificate", "token"])
def guarded(
    request: pytest.FixtureRequest, engines, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """A server with routes of two tenants, of which the reader may read one."""
    directory = tmp_path_factory.mktemp("access")
    ca, signing = Authority(), SigningKey()
    files = TlsFiles(directory)
    files.write(ca.server(), ca.pem)
    policy, keys, token = directory / "policy.toml", directory / "keys.json", directory / "token"
    policy.write_text(POLICY)
    keys.write_bytes(jwks(signing))
    token.write_text(signing.token(sub="reader"))
    by_token = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks_file": keys}
    checks = by_token if request.param == "token" else {"tls_client_ca_file": files.client_ca}
    with ExitStack() as stack:
        server = XdsServer.on(
            database_url=stack.enter_context(fresh_database(template_database)),
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            tls_cert_file=files.cert,
            tls_key_file=files.key,
            policy_file=policy,
            access_refresh_seconds=0.1,
            **checks,
        )
        stack.callback(server.stop)
        server.start()
        plane = replace(server.plane, ca_file=str(files.client_ca))
        urls = stack.enter_context(backends())
        if request.param == "token":
            plane = replace(plane, token_file=str(token))
            admin = {"token": signing.token(sub="admin")}
        else:
            cert, key = written(ca.client(uris=(READER,)), directory / "reader")
            plane = replace(plane, cert_file=cert, key_file=key)
            cert, key = written(ca.client(uris=("spiffe://test/admin",)), directory / "admin")
            admin = {"cert_file": cert, "key_file": key}
        address = server.api.replace("127.0.0.1", "localhost")
        with Client(address, ca_file=str(files.client_ca), timeout=30, **admin) as api:  # type: ignore[arg-type]
            for tenant in ("team-a", "team-b"):
                api.create(f"{tenant}/payments/prod/v1", f"http://127.0.0.1:{urls.open(tenant)}")
        yield Guarded(server, plane, policy)


def written(pair: Pair, path: Path) -> tuple[str, str]:
    cert, key = path.with_suffix(".crt"), path.with_suffix(".key")
    cert.write_bytes(pair.cert)
    key.write_bytes(pair.key)
    return str(cert), str(key)


@pytest.mark.parametrize("kind", TLS_KINDS)
def test_a_client_reaches_what_it_may_read(guarded: Guarded, kind: Program) -> None:
    with xds_client(kind, guarded.plane) as client:
        for name in ("team-a", "team-b", "team-c"):
            client.call(name, f"{name}/payments/prod/v1")
            client.call(f"{name} family", f"{name}/payments/prod")
        for name in ("team-a", "team-a family"):
            client.probe.wait(name, OK, "team-a")
        # The same whether or not there is something.
        for name in ("team-b", "team-c", "team-b family", "team-c family"):
            client.probe.wait(name, DENIED)


def test_an_envoy_does_not_hear_of_what_it_may_not_read(guarded: Guarded) -> None:
    with xds_client(Program.ENVOY, guarded.plane) as client:
        wait_for_door(client)
        for name in ("team-a", "team-b"):
            client.call(name, f"{name}/payments/prod/v1")
        client.probe.wait("team-a", OK, "team-a")
        client.probe.wait("team-b", grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize("kind", [*TLS_KINDS, Program.ENVOY])
def test_a_grant_that_is_lost_closes_names_of_open_streams(guarded: Guarded, kind: Program) -> None:
    with xds_client(kind, guarded.plane) as client:
        wait_for_door(client)
        client.call("route", "team-a/payments/prod/v1")
        client.probe.wait("route", OK, "team-a")
        try:
            guarded.policy.write_text(REVOKED)
            client.probe.wait("route", grpc.StatusCode.NOT_FOUND if kind is Program.ENVOY else DENIED)
        finally:
            guarded.policy.write_text(POLICY)
        client.probe.wait("route", OK, "team-a")


@pytest.mark.parametrize("kind", TLS_KINDS)
def test_a_client_that_shows_nothing_is_told_nothing(guarded: Guarded, kind: Program) -> None:
    nobody = replace(guarded.plane, cert_file="", key_file="", token_file="")
    with xds_client(kind, nobody) as client:
        client.call("route", "team-a/payments/prod/v1")
        client.probe.wait("route", grpc.StatusCode.UNAVAILABLE)
