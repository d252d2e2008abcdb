"""Certificates for tests, of authorities made by trustme, with any names."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    cert: bytes
    key: bytes


Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def self_signed(key: Key) -> Pair:
    """Make a certificate for localhost that is signed by its own key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    signed = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(signed.public_bytes(Encoding.PEM), pem)


class Authority:
    """An authority of a test alone."""

    def __init__(self) -> None:
        self._ca = trustme.CA(key_type=trustme.KeyType.ECDSA)

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self._ca.cert_pem.bytes()

    def server(self, *names: str) -> Pair:
        """Issue one for these hosts, names and addresses; without any, for localhost."""
        issued = self._ca.issue_cert(*(names or ("localhost", "127.0.0.1")))
        return Pair(b"".join(pem.bytes() for pem in issued.cert_chain_pems), issued.private_key_pem.bytes())

    def client(
        self, uris: tuple[str, ...] = (), dns: tuple[str, ...] = (), *, cn: str = "somebody", days: float = 1
    ) -> Pair:
        """Issue one with exactly these names, good for ``days`` from now; with fewer than none it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(self.pem)
        end = datetime.now(UTC) + timedelta(days=days)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - timedelta(days=2))
            .not_valid_after(end)
        )
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signer = load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Pair(builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM), pem)


@dataclass(frozen=True)
class TlsFiles:
    """The files that a server reads, in a directory of the test."""

    directory: Path

    @property
    def cert(self) -> Path:
        """The chain of the server."""
        return self.directory / "tls.crt"

    @property
    def key(self) -> Path:
        """Its key."""
        return self.directory / "tls.key"

    @property
    def client_ca(self) -> Path:
        """The authorities of clients."""
        return self.directory / "ca.crt"

    def write(self, pair: Pair, client_ca: bytes | None = None) -> None:
        """Write or replace them."""
        self.cert.write_bytes(pair.cert)
        self.key.write_bytes(pair.key)
        if client_ca is not None:
            self.client_ca.write_bytes(client_ca)


def connect(address: str, authority: Authority, pair: Pair | None = None) -> grpc.Channel:
    """Open a channel that trusts ``authority`` and shows ``pair``, on a connection of its own."""
    credentials = grpc.ssl_channel_credentials(authority.pem, pair.key if pair else None, pair.cert if pair else None)
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(address.replace("127.0.0.1", "localhost"), credentials, options)
