"""TLS of the server: certificates from files, read again when they change, without a restart.

Connections that are open keep what they were made with. Where clients have certificates, connections therefore end
after a while (``transport.Connections.age``) and are made anew, by what is in the files then.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)

# The files are looked at for a handshake, and at most so often.
LOOK_SECONDS = 1.0
# With client certificates: how long one that has expired, or whose authority is trusted no more, can go on.
CONNECTION_SECONDS = 900

Stamp = tuple[tuple[int, int, int], ...]


class BadCertificates(Exception):
    """The files of TLS cannot be used; the text names them and says why."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where the PEM files lie; with ``client_ca``, every client must have a certificate of it."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file that there is."""
        return (self.cert, self.key, *([self.client_ca] if self.client_ca else []))


# Checks the texts of certificate chain, private key and client authorities (or None). Raises ValueError.
CertificateCheck = Callable[[bytes, bytes, bytes | None], None]


class Certificates:
    """The certificates in the files, as gRPC asks for them with every handshake, from any thread.

    A new pair that cannot be used is logged once and leaves the old one in force.
    """

    def __init__(self, files: Files, check: CertificateCheck, *, now: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._check = check
        self._now = now
        self._turn = threading.Lock()
        self._looked = now()
        self._stamp: Stamp = ()
        self._problem = ""

    def credentials(self) -> grpc.ServerCredentials:
        """Read the files, for a server that starts. Raises BadCertificates."""
        self._stamp = self._stat()
        mutual = self._files.client_ca is not None
        # None means that nothing is new, which the stubs do not say.
        return grpc.dynamic_ssl_server_credentials(self._read(), self.renewed, mutual)  # type: ignore[arg-type]

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is in the files if that is new, else None."""
        with self._turn:
            if self._now() - self._looked < LOOK_SECONDS:
                return None
            self._looked = self._now()
            stamp = self._stat()
            return None if stamp == self._stamp else self._renew(stamp)

    def _renew(self, stamp: Stamp) -> grpc.ServerCertificateConfiguration | None:
        try:
            configuration = self._read()
        except BadCertificates as error:
            # The stamp stays, so that they are read again: they may be half written.
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
    # Through links: Kubernetes renews a mounted Secret by turning one.
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
