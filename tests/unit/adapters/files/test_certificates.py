"""Which PEM files a server takes, the names in a certificate, and when it ends."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from pointsman_server.adapters.files.certificates import check, expires, names_in
from tests.support.certificates import Authority, Key, self_signed


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=lambda key: f"{type(key).__name__}-{getattr(key, 'key_size', '')}",
)
def test_keys_that_envoy_takes_pass(key: Key) -> None:
    pair = self_signed(key)

    check(pair.cert, pair.key, Authority().pem)


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1())],  # noqa: S505 - to be refused
    ids=["RSA-1024", "secp256k1"],
)
def test_keys_that_envoy_refuses_do_not(key: Key) -> None:
    pair = self_signed(key)

    with pytest.raises(ValueError, match="the key is not usable for TLS"):
        check(pair.cert, pair.key, None)


def test_the_names_are_those_of_the_certificate_in_its_order() -> None:
    pair = Authority().client(uris=("spiffe://prod/b", "https://a"), dns=("b.internal", "a.internal"), cn="admin")

    assert names_in(pair.cert) == (("spiffe://prod/b", "https://a"), ("b.internal", "a.internal"))


def test_the_common_name_is_no_name() -> None:
    assert names_in(Authority().client(cn="admin").cert) == ((), ())


def test_what_is_no_certificate_is_refused() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is that of the library
        names_in(b"")


def test_names_that_are_no_text_are_refused() -> None:
    spoilt = Authority().client(uris=("https://aaaa",)).cert
    der = (
        x509.load_pem_x509_certificate(spoilt)
        .public_bytes(Encoding.DER)
        .replace(b"https://aaaa", b"https://\xff\xff\xff\xff")
    )

    with pytest.raises(ValueError):  # noqa: PT011 - the text is that of the library
        names_in(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))


def test_of_several_certificates_the_first_to_end_counts() -> None:
    authority = Authority()
    short, long = authority.client(days=1), authority.client(days=30)
    assert expires(short.cert) < expires(long.cert)
    assert expires(long.cert + short.cert) == expires(short.cert)


def test_what_is_no_certificate_has_no_end() -> None:
    with pytest.raises(ValueError, match="it is no PEM of one or more certificates"):
        expires(b"half a file")
