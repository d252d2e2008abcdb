"""TLS certificates from files, which are read again when they change, without a restart.

Open connections keep the certificates of their handshake. Where clients have certificates, the server therefore closes
connections after certificates.CONNECTION_SECONDS, and clients connect again by the current files.
"""

import threading
import time
from collections.abc import Callable

import grpc

from pointsman_server.rpc.transport.certificates import (
    CHECK_SECONDS,
    BadCertificates,
    CertificateCheck,
    Files,
    RenewalLog,
    Stamp,
    read,
    stamp_of,
)
from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)


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
        self._renewals = RenewalLog(log, files)

    def credentials(self) -> grpc.ServerCredentials:
        """Read the files, for a server that starts. Raises BadCertificates."""
        self._stamp = stamp_of(self._files)
        mutual = self._files.client_ca is not None
        # ``renewed`` returns None for no change, which the type stubs lack.
        return grpc.dynamic_ssl_server_credentials(self._read(), self.renewed, mutual)  # type: ignore[arg-type]

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the certificates in the files if they have changed, else None."""
        with self._lock:
            if self._now() - self._checked < CHECK_SECONDS:
                return None
            self._checked = self._now()
            stamp = stamp_of(self._files)
            return None if stamp == self._stamp else self._renew(stamp)

    def _renew(self, stamp: Stamp) -> grpc.ServerCertificateConfiguration | None:
        try:
            configuration = self._read()
        except BadCertificates as error:
            # Keep the old stamp, so that the files are read again: they may be half written.
            self._renewals.refused(error)
            return None
        self._stamp = stamp
        self._renewals.renewed()
        return configuration

    def _read(self) -> grpc.ServerCertificateConfiguration:
        cert, key, authorities = read(self._files, self._check)
        return grpc.ssl_server_certificate_configuration([(key, cert)], authorities)
