"""Certificates for Envoy: published when they change, and never replaced by broken ones."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from pointsman_server.adapters.files import certificates
from pointsman_server.rpc.transport.certificates import BadCertificates, Files
from pointsman_server.rpc.transport.envoy import secrets as module
from pointsman_server.rpc.transport.envoy.secrets import Secrets
from tests.support.certificates import Authority, Pair, TlsFiles
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def written(tmp_path: Path, authority: Authority) -> TlsFiles:
    written = TlsFiles(tmp_path / "files")
    written.directory.mkdir()
    written.write(authority.server(), authority.pem)
    return written


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "envoy"


@pytest.fixture
def secrets(written: TlsFiles, directory: Path) -> Secrets:
    secrets = made(written, directory)
    secrets.publish()
    return secrets


def made(written: TlsFiles, directory: Path) -> Secrets:
    return Secrets(Files(written.cert, written.key, written.client_ca), directory, certificates.check)


def resource(directory: Path, name: str) -> dict[str, Any]:
    (found,) = json.loads((directory / f"{name}.json").read_text())["resources"]
    return dict(found)


def published(directory: Path) -> tuple[bytes, bytes, bytes]:
    """Read what Envoy reads: the certificate, the key and the authorities."""
    pair = resource(directory, "server")["tls_certificate"]
    context = resource(directory, "client-ca")["validation_context"]
    sources = (pair["certificate_chain"], pair["private_key"], context["trusted_ca"])
    cert, key, authorities = (Path(source["filename"]).read_bytes() for source in sources)
    return cert, key, authorities


def contents(written: TlsFiles) -> tuple[bytes, bytes, bytes]:
    return written.cert.read_bytes(), written.key.read_bytes(), written.client_ca.read_bytes()


@pytest.mark.usefixtures("secrets")
def test_envoy_gets_the_files_by_links_in_a_private_directory(written: TlsFiles, directory: Path) -> None:
    assert published(directory) == contents(written)
    assert resource(directory, "server")["name"] == "server"
    assert resource(directory, "client-ca")["name"] == "client-ca"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    key = contents(written)[1]
    copies = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    assert copies
    assert not [path for path in copies if key in path.read_bytes()], "the key is written nowhere"


def test_without_client_authorities_there_is_no_resource_of_them(written: TlsFiles, directory: Path) -> None:
    Secrets(Files(written.cert, written.key), directory, certificates.check).publish()

    assert not (directory / "client-ca.json").exists()


def test_relative_paths_are_those_of_the_process(
    written: TlsFiles, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(written.directory)
    Secrets(Files(Path("tls.crt"), Path("tls.key"), Path("ca.crt")), directory, certificates.check).publish()

    assert published(directory) == contents(written)


def test_what_has_not_changed_is_not_published_again(
    secrets: Secrets, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = resource(directory, "server")
    secrets.renew()

    assert resource(directory, "server") == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("which", ["server", "client-ca"])
def test_a_change_gives_each_resource_another_text(
    secrets: Secrets, written: TlsFiles, directory: Path, authority: Authority, which: str
) -> None:
    before = resource(directory, which)
    written.write(authority.server(), Authority().pem)
    secrets.renew()

    assert resource(directory, which) != before, "Envoy ignores a resource that is the same"
    assert published(directory) == contents(written)


def test_files_that_changed_before_envoy_ran_are_published(
    secrets: Secrets, written: TlsFiles, directory: Path, authority: Authority
) -> None:
    # The process that publishes first becomes Envoy, in which another object goes on.
    del secrets
    inside = made(written, directory)
    before = resource(directory, "server")
    inside.renew()
    assert resource(directory, "server") == before, "what is published is not published again"

    written.write(authority.server())
    made(written, directory).renew()
    assert resource(directory, "server") != before


def test_a_switch_of_the_link_that_kubernetes_mounts_is_a_change(
    tmp_path: Path, directory: Path, authority: Authority
) -> None:
    versions = [TlsFiles(tmp_path / name) for name in ("one", "two")]
    for version in versions:
        version.directory.mkdir()
        version.write(authority.server(), authority.pem)
    link = tmp_path / "data"
    link.symlink_to("one")
    secrets = made(TlsFiles(link), directory)
    secrets.publish()

    for version in (versions[1], versions[0]):
        new = tmp_path / "new"
        new.symlink_to(version.directory)
        new.replace(link)
        secrets.renew()
        assert published(directory) == contents(version)


def test_old_links_are_removed_but_for_the_last(
    secrets: Secrets, written: TlsFiles, directory: Path, authority: Authority
) -> None:
    for _ in range(5):
        written.write(authority.server())
        secrets.renew()

    assert len([path for path in directory.iterdir() if path.is_dir()]) == 2


def test_broken_files_at_the_start_are_refused(written: TlsFiles, directory: Path) -> None:
    written.key.write_text("canary")

    with pytest.raises(BadCertificates, match="the key is no PEM"):
        made(written, directory).publish()
    assert not directory.exists()


def spoil(written: TlsFiles, authority: Authority, what: str) -> None:
    good = authority.server()
    if what == "the key of another":
        written.write(Pair(good.cert, authority.server().key))
    elif what == "half a certificate":
        written.write(Pair(good.cert[: len(good.cert) // 4], good.key))
    elif what == "no authorities":
        written.write(good, b"")
    else:
        written.key.unlink()


@pytest.mark.parametrize("what", ["the key of another", "half a certificate", "no authorities", "no file"])
def test_broken_files_replace_nothing_are_logged_once_and_followed_by_good_ones(
    secrets: Secrets,
    written: TlsFiles,
    directory: Path,
    authority: Authority,
    what: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = [resource(directory, name) for name in ("server", "client-ca")]
    spoil(written, authority, what)
    for _ in range(3):
        secrets.renew()
    assert [resource(directory, name) for name in ("server", "client-ca")] == before
    assert capsys.readouterr().out.count("new certificates cannot be used, the old ones stay") == 1

    written.write(authority.server(), authority.pem)
    secrets.renew()
    assert published(directory) == contents(written)
    assert capsys.readouterr().out.count("new certificates are in force") == 1


def test_a_directory_that_is_not_writable_ends_nothing(
    secrets: Secrets, written: TlsFiles, directory: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = directory.rename(directory.with_name("moved"))
    directory.write_text("no directory")
    written.write(authority.server())
    secrets.renew()
    assert "new certificates cannot be used" in capsys.readouterr().out

    directory.unlink()
    moved.rename(directory)
    secrets.renew()
    assert published(directory) == contents(written)


async def test_the_files_are_watched(
    secrets: Secrets, written: TlsFiles, directory: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.01)
    watching = asyncio.create_task(secrets.watch())
    try:
        for _ in range(2):
            written.write(authority.server())
            assert await asyncio.to_thread(eventually, lambda: published(directory) == contents(written))
    finally:
        watching.cancel()
