"""The names in a verified client certificate, from ``x-forwarded-client-cert`` as Envoy itself writes it.

Envoy verifies the certificate, drops the header that a client sends, and writes its own (SANITIZE_SET). It can list the
names there, but does not quote them: a DNS name ``x;URI=spiffe://prod/admin`` would be read as two names. So it passes
the certificate (``Cert``, percent-encoded PEM), and the names are read from that.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

from pointsman_server.rpc.transport.asgi.headers import CLIENT_CERTIFICATE, Headers, first

AuthContext = Mapping[str, list[bytes]]

MOST_CACHED = 1024
NO_CERTIFICATE: AuthContext = MappingProxyType({})
# Before it come at most the URI of the server's own certificate (By) and the digest (Hash).
_CERT = re.compile(rb'(?:^|;)Cert="([^"]*)"$')


def auth_context_of(headers: Headers) -> AuthContext:
    """Return the certificate and its names by grpcio's properties; empty without a certificate."""
    given = first(headers, CLIENT_CERTIFICATE)
    return NO_CERTIFICATE if given is None else _parsed(given)


@lru_cache(MOST_CACHED)
def _parsed(header: bytes) -> AuthContext:
    from pointsman_server.adapters.files.certificates import names_in

    found = _CERT.search(header)
    pem = unquote_to_bytes(found[1]) if found else b""
    try:
        uris, dns = names_in(pem)
    except ValueError:
        # A caller with a certificate that names nobody: authentication refuses it.
        uris, dns = (), ()
    context = {"x509_pem_cert": [pem or header], "peer_uri": _encoded(uris), "peer_dns": _encoded(dns)}
    return MappingProxyType(context)


def _encoded(names: tuple[str, ...]) -> list[bytes]:
    return [name.encode() for name in names]
