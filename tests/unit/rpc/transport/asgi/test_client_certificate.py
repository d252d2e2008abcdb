"""rpc.transport.asgi.client_certificate: the names that Envoy found in a verified certificate."""

import pytest

from pointsman_server.rpc.transport.asgi.client_certificate import HEADER, auth_context_of


def test_without_the_header_there_is_no_certificate() -> None:
    assert auth_context_of([(b"x-a", b"URI=spiffe://a/b")]) == {}


@pytest.mark.parametrize(
    ("value", "uris", "names"),
    [
        (b"Hash=ab;URI=spiffe://a/b", [b"spiffe://a/b"], None),
        (b"Hash=ab;URI=spiffe://a/b;URI=spiffe://a/c", [b"spiffe://a/b", b"spiffe://a/c"], None),
        (b"Hash=ab;URI=;DNS=one.example;DNS=two.example", None, [b"one.example", b"two.example"]),
        (b'Hash=ab;URI="spiffe://a/b;c,d=e"', [b"spiffe://a/b;c,d=e"], None),
        (b'Hash=ab;URI="spiffe://a/\\"b\\""', [b'spiffe://a/"b"'], None),
        (b"Hash=ab;URI=", None, None),
    ],
)
def test_its_names_are_read(value: bytes, uris: list[bytes] | None, names: list[bytes] | None) -> None:
    found = auth_context_of([(HEADER, value)])

    assert found["x509_pem_cert"] == [b"ab"]
    assert (found.get("peer_uri"), found.get("peer_dns")) == (uris, names)
