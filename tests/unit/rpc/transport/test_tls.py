"""Certificates from files: read again when they change, and never replaced by what cannot be used."""

from pathlib import Path

import pytest

from pointsman_server.adapters.files import certificates
from pointsman_server.rpc.transport import tls
from pointsman_server.rpc.transport.tls import BadCertificates, Certificates
from tests.support.certificates import Authority, Pair, TlsFiles
from tests.support.fakes import ManualClock


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> TlsFiles:
    files = TlsFiles(tmp_path)
    files.write(authority.server(), authority.pem)
    return files


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Checks:
    """The real check; counts what was read."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, cert: bytes, key: bytes, authorities: bytes | None) -> None:
        self.count += 1
        certificates.check(cert, key, authorities)


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
def held(files: TlsFiles, checks: Checks, clock: ManualClock) -> Certificates:
    held = Certificates(tls.Files(files.cert, files.key, files.client_ca), checks, now=clock)
    held.credentials()
    return held


def test_what_has_not_changed_is_not_read_again(held: Certificates, checks: Checks, clock: ManualClock) -> None:
    for _ in range(100):
        clock.advance(1)
        assert held.renewed() is None
    assert checks.count == 1


@pytest.mark.parametrize("which", ["pair", "client_ca"])
def test_what_has_changed_comes_into_force_once(
    held: Certificates, clock: ManualClock, files: TlsFiles, authority: Authority, which: str
) -> None:
    if which == "pair":
        files.write(authority.server())
    else:
        files.client_ca.write_bytes(Authority().pem)
    clock.advance(1)

    assert held.renewed() is not None
    clock.advance(1)
    assert held.renewed() is None


def test_the_files_are_looked_at_once_a_second_whatever_the_number_of_handshakes(
    held: Certificates, checks: Checks, clock: ManualClock, files: TlsFiles, authority: Authority
) -> None:
    files.write(authority.server())
    clock.advance(0.9)
    assert [held.renewed() for _ in range(100)] == [None] * 100

    clock.advance(0.1)
    assert [held.renewed() is None for _ in range(100)] == [False] + [True] * 99
    assert checks.count == 2


def test_a_secret_that_kubernetes_turns_by_a_link_is_noticed(
    tmp_path: Path, authority: Authority, checks: Checks, clock: ManualClock
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        TlsFiles(tmp_path / name).write(authority.server(), authority.pem)
    link = tmp_path / "data"
    link.symlink_to("one")
    files = TlsFiles(link)
    held = Certificates(tls.Files(files.cert, files.key, files.client_ca), checks, now=clock)
    held.credentials()
    link.unlink()
    link.symlink_to("two")
    clock.advance(1)

    assert held.renewed() is not None


BAD = {
    "the key of another": "the key is not that",
    "no key": "the key is no PEM",
    "no certificate": "the certificate is no PEM",
    "no authorities": "the client authorities are no PEM",
    "a file that is not there": "No such file",
}


def spoil(files: TlsFiles, authority: Authority, what: str) -> None:
    good = authority.server()
    files.write(Pair(good.cert, authority.server().key) if what == "the key of another" else good)
    if what == "no key":
        files.key.write_text("canary")
    elif what == "no certificate":
        files.cert.write_bytes(b"")
    elif what == "no authorities":
        files.client_ca.write_text("canary")
    elif what == "a file that is not there":
        files.key.unlink()


@pytest.mark.parametrize("what", BAD)
def test_a_server_does_not_start_on_what_cannot_be_used(files: TlsFiles, authority: Authority, what: str) -> None:
    spoil(files, authority, what)

    with pytest.raises(BadCertificates, match=BAD[what]) as caught:
        Certificates(tls.Files(files.cert, files.key, files.client_ca), certificates.check).credentials()
    assert str(files.key) in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_used_replaces_nothing_and_what_comes_after_it_does(
    held: Certificates, clock: ManualClock, files: TlsFiles, authority: Authority, what: str
) -> None:
    spoil(files, authority, what)
    for _ in range(3):
        clock.advance(1)
        assert held.renewed() is None

    files.write(authority.server(), authority.pem)
    clock.advance(1)
    assert held.renewed() is not None


def test_that_it_cannot_be_used_is_said_once(
    held: Certificates, clock: ManualClock, files: TlsFiles, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(files, authority, "the key of another")
    for _ in range(3):
        clock.advance(1)
        held.renewed()

    assert capsys.readouterr().out.count("the key is not that of the first certificate") == 1
