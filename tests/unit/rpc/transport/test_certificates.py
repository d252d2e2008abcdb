"""The files of TLS: what is read of them, and when they have changed."""

import os
from pathlib import Path

import pytest

from pointsman_server.adapters.files import certificates
from pointsman_server.rpc.transport.certificates import BadCertificates, Files, read, stamp_of
from tests.support.certificates import Authority, TlsFiles


@pytest.fixture
def written(tmp_path: Path) -> TlsFiles:
    authority = Authority()
    written = TlsFiles(tmp_path)
    written.write(authority.server(), authority.pem)
    return written


@pytest.fixture
def files(written: TlsFiles) -> Files:
    return Files(written.cert, written.key, written.client_ca)


def test_what_is_read_is_what_is_in_the_files(files: Files, written: TlsFiles) -> None:
    contents = (written.cert.read_bytes(), written.key.read_bytes(), written.client_ca.read_bytes())

    assert read(files, certificates.check) == contents
    assert read(Files(files.cert, files.key), certificates.check) == (*contents[:2], None)


def test_a_file_that_is_not_there_is_named(files: Files, written: TlsFiles) -> None:
    written.client_ca.unlink()

    with pytest.raises(BadCertificates, match=f"^{written.client_ca}: No such file or directory$"):
        read(files, certificates.check)


def test_files_that_do_not_fit_together_are_all_named(files: Files, written: TlsFiles) -> None:
    written.key.write_bytes(Authority().server().key)

    with pytest.raises(BadCertificates) as caught:
        read(files, certificates.check)
    names = f"{written.cert}, {written.key}, {written.client_ca}"
    assert str(caught.value) == f"{names}: the key is not that of the first certificate"


def in_place(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def by_rename(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(path.read_bytes())
    before = path.stat()
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(path)


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [in_place, by_rename, removed])
@pytest.mark.parametrize("which", ["cert", "key", "client_ca"])
def test_each_change_of_each_file_is_one(files: Files, which: str, change: object) -> None:
    before = stamp_of(files)
    assert stamp_of(files) == before

    change(getattr(files, which))  # type: ignore[operator]
    assert stamp_of(files) != before
