"""TLS certificates from files, which are read again when they change, without a restart.

Open connections keep the certificates of their handshake. Where clients have certificates, the server therefore closes
connections after CONNECTION_SECONDS, and clients connect again by the current files.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)

# A handshake checks whether the files have changed, at most this often.
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


# Takes the PEM bytes of the certificate chain, the private key and the client authorities (or None). Raises ValueError.
CertificateCheck = Callable[[bytes, bytes, bytes | None], None]


class Certificates:
    """The current certificates. gRPC asks for them at every handshake, from any thread.

    New files that cannot be used are logged once, and the old certificates stay in use.
    """

    def __init__(self, files: Files, check: CertificateCheck, *, now: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._check = check
        self._now = now
        self._lock = threading.Lock()
        self._checked = now()
        self._stamp: Stamp = ()
        self._problem = ""

    def credentials(self) -> grpc.ServerCredentials:
        """Read the files, for a server that starts. Raises BadCertificates."""
        self._stamp = self._stat()
        mutual = self._files.client_ca is not None
        # ``renewed`` returns None for no change, which the type stubs lack.
        return grpc.dynamic_ssl_server_credentials(self._read(), self.renewed, mutual)  # type: ignore[arg-type]

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the certificates in the files if they have changed, else None."""
        with self._lock:
            if self._now() - self._checked < CHECK_SECONDS:
                return None
            self._checked = self._now()
            stamp = self._stat()
            return None if stamp == self._stamp else self._renew(stamp)

    def _renew(self, stamp: Stamp) -> grpc.ServerCertificateConfiguration | None:
        try:
            configuration = self._read()
        except BadCertificates as error:
            # Keep the old stamp, so that the files are read again: they may be half written.
            if str(error) != self._problem:
                log.error("new certificates cannot be used, the old ones stay", problem=str(error))  # noqa: TRY400 - says all
            self._problem = str(error)
            return None
        self._stamp, self._problem = stamp, ""
        log.info("new certificates are in force", cert=str(self._files.cert))
        return configuration

    def _stat(self) -> Stamp:
        return tuple(_stamp(path) for path in self._files.all)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        files = self._files
        cert, key = _text(files.cert), _text(files.key)
        authorities = _text(files.client_ca) if files.client_ca else None
        try:
            self._check(cert, key, authorities)
        except ValueError as error:
            raise BadCertificates(f"{', '.join(map(str, files.all))}: {error}") from None
        return grpc.ssl_server_certificate_configuration([(key, cert)], authorities)


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
