"""ops.certificate_expiry: when certificates end, as the files change."""

import os
from pathlib import Path

from pointsman_server.ops.certificate_expiry import CertificateExpiry


def parsed(text: bytes) -> float:
    """Stands for a parser of PEM: the file holds the time."""
    return float(text)


def write(path: Path, text: str, changed: int) -> None:
    path.write_text(text)
    os.utime(path, ns=(changed, changed))


def test_each_file_has_its_time(tmp_path: Path) -> None:
    server, authority = tmp_path / "server.pem", tmp_path / "ca.pem"
    write(server, "100", 1)
    write(authority, "200", 1)
    expiry = CertificateExpiry({"server": server, "client_ca": authority}, parsed)
    assert expiry.times() == {"server": 100.0, "client_ca": 200.0}


def test_a_file_that_changed_is_read_again_and_another_is_not(tmp_path: Path) -> None:
    file, read = tmp_path / "server.pem", []

    def expires(text: bytes) -> float:
        read.append(text)
        return parsed(text)

    expiry = CertificateExpiry({"server": file}, expires)
    write(file, "100", 1)
    expiry.times()
    expiry.times()
    assert len(read) == 1
    write(file, "300", 2)
    assert expiry.times() == {"server": 300.0}


def test_a_file_that_cannot_be_read_keeps_its_time_and_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "server.pem"
    expiry = CertificateExpiry({"server": file}, parsed)
    assert expiry.times() == {}
    write(file, "100", 1)
    assert expiry.times() == {"server": 100.0}
    write(file, "half written", 2)
    assert expiry.times() == {"server": 100.0}
    file.unlink()
    assert expiry.times() == {"server": 100.0}
    write(file, "300", 2)
    assert expiry.times() == {"server": 300.0}
