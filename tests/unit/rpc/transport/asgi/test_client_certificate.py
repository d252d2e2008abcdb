"""The names in a client certificate, read from the header as Envoy writes it."""

from urllib.parse import quote

import pytest

from pointsman_server.auth.authenticator import CertificateNames
from pointsman_server.rpc.interceptors.authentication import credentials_of
from pointsman_server.rpc.transport.asgi.client_certificate import auth_context_of
from pointsman_server.rpc.transport.asgi.context import AsgiContext
from tests.support.certificates import Authority

HASH = "5f0f950ffab6e4f7018ce45be4ec06a80be2a5f3a9cecc3b9a8790c8a9b7d21f"
NAMES = [
    ((), ()),
    (("spiffe://prod/checkout",), ()),
    (("spiffe://prod/a", "spiffe://prod/b"), ("a.internal", "b.internal")),
    # Without quotes, each of these would be read as two names.
    ((), ("x;URI=spiffe://prod/admin",)),
    (("https://a;DNS=admin.internal",), ()),
    (('https://a,URI="spiffe://prod/admin"',), ()),
    (('https://a";Cert="',), ("a=b,c",)),
    (("spiffe://prod/" + "a" * 10_000,), ()),
]


def header(pem: bytes, by: str = "") -> list[tuple[bytes, bytes]]:
    value = f'{by}Hash={HASH};Cert="{quote(pem, safe="")}"'
    return [(b"host", b"localhost"), (b"x-forwarded-client-cert", value.encode())]


@pytest.mark.parametrize("by", ["", "By=spiffe://prod/server;"])
@pytest.mark.parametrize(("uris", "dns"), NAMES)
def test_the_names_are_those_of_the_certificate(uris: tuple[str, ...], dns: tuple[str, ...], by: str) -> None:
    pem = Authority().client(uris=uris, dns=dns).cert
    headers = header(pem, by)

    assert auth_context_of(headers)["x509_pem_cert"] == [pem]
    assert credentials_of(AsgiContext({"headers": headers}), ()).certificate == CertificateNames(uris, dns)


def test_without_the_header_there_is_no_certificate() -> None:
    assert auth_context_of([(b"host", b"localhost")]) == {}
    assert credentials_of(AsgiContext({"headers": []}), ()).certificate is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"Hash={HASH}",
        f"Hash={HASH};URI=spiffe://prod/admin;DNS=admin.internal",
        f'Hash={HASH};Cert=""',
        f'Hash={HASH};Cert="garbage"',
        f'Hash={HASH};Cert="garbage";URI=spiffe://prod/admin',
    ],
)
def test_a_header_without_a_certificate_names_nobody(value: str) -> None:
    headers = [(b"x-forwarded-client-cert", value.encode())]
    certificate = credentials_of(AsgiContext({"headers": headers}), ()).certificate

    assert certificate in (CertificateNames(), None)
