"""tls: what is given for a connection, and connections by TLS and by certificates of both sides."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from pointsman import AsyncClient, Client, Unavailable
from pointsman.connection.tls import channel_credentials
from tests.support.fake_route_service import FakeServer, serving
from tests.unit.client.conftest import Run

KEY = "team-a/payments/prod/v2"


@dataclass(frozen=True)
class Files:
    """The authority that everybody trusts, and the certificate of the client, as files."""

    ca: Path
    cert: Path
    key: Path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    found = Files(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(found.ca)
    ours = authority.issue_cert("spiffe.internal", common_name="team-a")
    ours.private_key_pem.write_to_path(found.key)
    for part in ours.cert_chain_pems:
        part.write_to_path(found.cert, append=True)
    return found


def server_credentials(authority: trustme.CA, *, of_both_sides: bool) -> grpc.ServerCredentials:
    ours = authority.issue_cert("127.0.0.1", "localhost")
    chain = b"".join(part.bytes() for part in ours.cert_chain_pems)
    pair = (ours.private_key_pem.bytes(), chain)
    return grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=of_both_sides)


@pytest.fixture
def by_tls(authority: trustme.CA) -> Iterator[FakeServer]:
    with serving(FakeServer(), server_credentials(authority, of_both_sides=False)) as server:
        server.add(KEY, "https://x.internal")
        yield server


@pytest.fixture
def by_both(authority: trustme.CA) -> Iterator[FakeServer]:
    with serving(FakeServer(), server_credentials(authority, of_both_sides=True)) as server:
        server.add(KEY, "https://x.internal")
        yield server


class TestArguments:
    def test_nothing_is_plaintext(self) -> None:
        assert channel_credentials() is None
        assert channel_credentials(tls=False) is None

    def test_credentials_of_grpc_are_taken_as_they_are(self) -> None:
        ours = grpc.ssl_channel_credentials()
        assert channel_credentials(ours) is ours

    def test_tls_alone_trusts_the_system(self) -> None:
        assert isinstance(channel_credentials(tls=True), grpc.ChannelCredentials)

    @pytest.mark.parametrize("name", ["ca", "cert", "key"])
    def test_tls_switched_off_and_a_file_contradict_each_other(self, files: Files, name: str) -> None:
        with pytest.raises(ValueError, match="switched off"):
            channel_credentials(tls=False, **{f"{name}_file": getattr(files, name)})

    def test_credentials_and_files_contradict_each_other(self, files: Files) -> None:
        for more in ({"tls": True}, {"tls": False}, {"ca_file": files.ca}):
            with pytest.raises(ValueError, match="not both"):
                channel_credentials(grpc.ssl_channel_credentials(), **more)  # type: ignore[arg-type]

    def test_a_certificate_needs_its_key(self, files: Files) -> None:
        for alone in ({"cert_file": files.cert}, {"key_file": files.key}):
            with pytest.raises(ValueError, match="belong together"):
                channel_credentials(**alone)  # type: ignore[arg-type]

    def test_a_file_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"ca_file .*nothing\.pem: No such file"):
            channel_credentials(ca_file=tmp_path / "nothing.pem")

    def test_a_file_that_holds_something_else_is_named_and_not_shown(self, files: Files, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"key_file .* must hold a private key in PEM"):
            channel_credentials(cert_file=files.cert, key_file=files.cert)
        other = tmp_path / "other"
        other.write_text("s3cret")
        with pytest.raises(ValueError, match=r"ca_file .* must hold a certificate in PEM") as caught:
            channel_credentials(ca_file=other)
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("kind", [Client, AsyncClient])
    def test_a_client_of_either_kind_refuses_what_contradicts_itself(self, kind: Any, files: Files) -> None:
        with pytest.raises(ValueError, match="belong together"):
            kind("localhost:1", cert_file=files.cert)


class TestConnections:
    def test_by_tls_with_an_authority_of_ones_own(self, by_tls: FakeServer, files: Files) -> None:
        with Client(by_tls.target, ca_file=files.ca, token="t-1") as client:
            assert client.resolve(KEY).url == "https://x.internal"
        assert by_tls.calls[0].metadata["authorization"] == "Bearer t-1"

    def test_a_server_without_a_trusted_certificate_is_refused(self, by_tls: FakeServer) -> None:
        with Client(by_tls.target, tls=True, token="t-1", max_attempts=1) as client, pytest.raises(Unavailable):
            client.resolve(KEY)
        assert by_tls.calls == []

    def test_the_certificate_of_the_client_is_shown(self, by_both: FakeServer, files: Files) -> None:
        with Client(by_both.target, ca_file=files.ca, cert_file=files.cert, key_file=files.key) as client:
            client.resolve(KEY)
        assert by_both.calls[0].auth["x509_common_name"] == ["team-a"]

    async def test_with_the_asyncio_client_too(self, by_both: FakeServer, files: Files) -> None:
        async with AsyncClient(by_both.target, ca_file=files.ca, cert_file=files.cert, key_file=files.key) as client:
            await client.resolve(KEY)
        assert by_both.calls[0].auth["x509_common_name"] == ["team-a"]

    def test_without_one_a_server_that_wants_it_is_unavailable(self, by_both: FakeServer, files: Files) -> None:
        with Client(by_both.target, ca_file=files.ca, max_attempts=1) as client, pytest.raises(Unavailable):
            client.resolve(KEY)
        assert by_both.calls == []

    def test_the_command_takes_the_same_files(self, run: Run, by_both: FakeServer, files: Files) -> None:
        pair = ("--cert-file", str(files.cert), "--key-file", str(files.key))
        done = run("--server", by_both.target, "--ca-file", str(files.ca), *pair, "resolve", KEY)
        assert (done.exit_code, done.stdout) == (0, "https://x.internal\n")
