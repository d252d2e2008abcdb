"""Looks at PEM files before a server uses them, because gRPC says little about those that it cannot use."""

from collections.abc import Callable
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

T = TypeVar("T")


def check(cert: bytes, key: bytes, authorities: bytes | None) -> None:
    """Check a certificate chain, its private key, and the authorities of clients if there are any.

    Raises ValueError, which says what is wrong and quotes nothing.
    """
    chain = _load(x509.load_pem_x509_certificates, cert, "the certificate is no PEM of one or more certificates")
    private = _load(lambda text: load_pem_private_key(text, None), key, "the key is no PEM of an unencrypted key")
    if chain[0].public_key() != private.public_key():
        raise ValueError("the key is not that of the first certificate")
    if authorities is not None:
        _load(x509.load_pem_x509_certificates, authorities, "the client authorities are no PEM of certificates")


def _load(load: Callable[[bytes], T], text: bytes, complaint: str) -> T:
    try:
        return load(text)
    except (ValueError, TypeError) as error:
        raise ValueError(complaint) from error
