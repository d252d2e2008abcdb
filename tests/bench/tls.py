"""The certificate by which our servers, the floor and etcd speak TLS: one kind for all, ECDSA on P-256."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import Authority


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of a certificate for this machine, of its key, and of the authority that signed it."""

    cert: Path
    key: Path
    ca: Path

    @property
    def settings(self) -> dict[str, str]:
        """The variables by which one of our servers uses it."""
        return {"POINTSMAN_TLS_CERT_FILE": str(self.cert), "POINTSMAN_TLS_KEY_FILE": str(self.key)}


def write(directory: Path) -> Pair:
    """Write a certificate into ``directory``."""
    authority = Authority()
    issued = authority.server()
    pair = Pair(directory / "cert.pem", directory / "key.pem", directory / "ca.pem")
    pair.cert.write_bytes(issued.cert)
    pair.key.write_bytes(issued.key)
    pair.ca.write_bytes(authority.pem)
    return pair
