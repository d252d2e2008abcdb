"""The certificate by which our servers, the floor and etcd speak TLS: one kind for all, ECDSA on P-256."""

from dataclasses import dataclass
from pathlib import Path

import trustme


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
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = authority.issue_cert("127.0.0.1", "localhost", key_type=trustme.KeyType.ECDSA)
    pair = Pair(directory / "cert.pem", directory / "key.pem", directory / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(pair.cert)
    issued.private_key_pem.write_to_path(pair.key)
    authority.cert_pem.write_to_path(pair.ca)
    return pair
