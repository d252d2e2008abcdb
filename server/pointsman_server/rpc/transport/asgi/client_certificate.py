"""The names in a client certificate, from ``x-forwarded-client-cert`` as Envoy itself writes it.

Envoy verifies the certificate, drops what a client sends in this header, and writes its own (SANITIZE_SET).
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert
"""

import re
from collections.abc import Mapping

from pointsman_server.rpc.transport.asgi.headers import Headers, first

HEADER = b"x-forwarded-client-cert"
# Name, and a value that is quoted where it holds a comma, a semicolon or an equals sign.
_PAIR = re.compile(rb'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,]*)')
_NAMES = {b"hash": "x509_pem_cert", b"uri": "peer_uri", b"dns": "peer_dns"}


def auth_context_of(headers: Headers) -> Mapping[str, list[bytes]]:
    """Return the names by grpcio's properties; empty without a certificate."""
    given = first(headers, HEADER)
    if given is None:
        return {}
    found: dict[str, list[bytes]] = {}
    for name, value in _PAIR.findall(given):
        known = _NAMES.get(name.lower())
        if known and value:
            found.setdefault(known, []).append(_unquoted(value))
    return found


def _unquoted(value: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", value[1:-1]) if value.startswith(b'"') else value
