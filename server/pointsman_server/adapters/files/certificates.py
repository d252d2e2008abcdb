"""Checks PEM files before a server uses them, because the transports say little about those that they refuse."""

from collections.abc import Callable
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

T = TypeVar("T")

# What Envoy takes.
SMALLEST_RSA_BITS = 2048
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def check(cert: bytes, key: bytes, authorities: bytes | None) -> None:
    """Check a certificate chain, its private key, and the authorities of clients if there are any.

    Raises ValueError, which says what is wrong and quotes nothing.
    """
    chain = _load(x509.load_pem_x509_certificates, cert, "the certificate is no PEM of one or more certificates")
    private = _load(lambda text: load_pem_private_key(text, None), key, "the key is no PEM of an unencrypted key")
    if chain[0].public_key() != private.public_key():
        raise ValueError("the key is not that of the first certificate")
    if not _usable(private):
        raise ValueError(
            "the key is not usable for TLS: it needs RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519"
        )
    if authorities is not None:
        _load(x509.load_pem_x509_certificates, authorities, "the client authorities are no PEM of certificates")


def names_in(pem: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the URIs and the DNS names among the subject alternative names of a certificate. Raises ValueError."""
    try:
        extension = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return (), ()
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError("the names of the certificate are malformed") from error
    names = extension.value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(uris), tuple(names.get_values_for_type(x509.DNSName))


def expires(pem: bytes) -> float:
    """Return when the first of the certificates in a PEM ends, in seconds since 1970. Raises ValueError."""
    found = _load(x509.load_pem_x509_certificates, pem, "it is no PEM of one or more certificates")
    return min(certificate.not_valid_after_utc.timestamp() for certificate in found)


def _usable(key: object) -> bool:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.key_size >= SMALLEST_RSA_BITS
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return isinstance(key.curve, CURVES)
    return isinstance(key, ed25519.Ed25519PrivateKey)


def _load(load: Callable[[bytes], T], text: bytes, complaint: str) -> T:
    try:
        return load(text)
    except (ValueError, TypeError) as error:
        raise ValueError(complaint) from error
