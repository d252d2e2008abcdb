"""The files of TLS certificates: how they are read and checked, and what tells that they have changed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

# How often one looks whether the files have changed, in seconds.
CHECK_SECONDS = 1.0
# How long a connection can outlive the expiry of its client certificate, or the removal of the authority.
CONNECTION_SECONDS = 900

Stamp = tuple[tuple[int, int, int], ...]


class BadCertificates(Exception):
    """The TLS files cannot be used; the text names them and says why."""


@dataclass(frozen=True, slots=True)
class Files:
    """The paths of the PEM files. With ``client_ca``, every client must have a certificate signed by it."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        """The paths that are set."""
        return (self.cert, self.key, *([self.client_ca] if self.client_ca else []))


class RenewalLog:
    """Writes to ``log`` what became of new files: each problem once, until another one or none."""

    def __init__(self, log: FilteringBoundLogger, files: Files) -> None:
        self._log = log
        self._cert = str(files.cert)
        self._problem = ""

    def refused(self, error: Exception) -> None:
        """Say that the new files cannot be used."""
        if str(error) != self._problem:
            self._log.error("new certificates cannot be used, the old ones stay", problem=str(error))
        self._problem = str(error)

    def renewed(self) -> None:
        """Say that the new files are in force."""
        self._problem = ""
        self._log.info("new certificates are in force", cert=self._cert)


# Takes the PEM bytes of the certificate chain, the private key and the client authorities (or None). Raises ValueError.
CertificateCheck = Callable[[bytes, bytes, bytes | None], None]


def read(files: Files, check: CertificateCheck) -> tuple[bytes, bytes, bytes | None]:
    """Return the certificate chain, the private key and the client authorities, checked. Raises BadCertificates."""
    cert, key = _text(files.cert), _text(files.key)
    authorities = _text(files.client_ca) if files.client_ca else None
    try:
        check(cert, key, authorities)
    except ValueError as error:
        raise BadCertificates(f"{', '.join(map(str, files.all))}: {error}") from None
    return cert, key, authorities


def stamp_of(files: Files) -> Stamp:
    """Return what differs once a file has changed."""
    return tuple(_stamp(path) for path in files.all)


def _stamp(path: Path) -> tuple[int, int, int]:
    # Follows links: Kubernetes updates a mounted Secret by switching a symbolic link.
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificates(f"{path}: {error.strerror}") from error
