"""Metadata as HTTP/2 headers, and back: the header tables of the gRPC over HTTP/2 specification.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from itertools import chain

import grpc
from grpc import StatusCode

from pointsman_server.rpc.refusal import Refusal

Headers = Sequence[tuple[bytes, bytes]]
Metadata = tuple[tuple[str, str | bytes], ...]

# Written by Envoy, never by the client.
CLIENT_CERTIFICATE = b"x-forwarded-client-cert"
# Headers of HTTP and of the protocol itself are no metadata. ``user-agent`` is, as in grpcio.
RESERVED = frozenset({b"host", b"content-type", b"content-length", b"te", b"connection", CLIENT_CERTIFICATE})
RESERVED_PREFIX = b"grpc-"
AUTHORIZATION = b"authorization"
# A header counts 32 bytes besides its letters (RFC 9113, 6.5.2).
HEADER_OVERHEAD = 32
# What headers mean is remembered: a client sends most of them with every call. Bounded in number and length.
MOST_KNOWN = 4096
LONGEST_KNOWN = 2048
# Headers whose values are credentials, which are kept by who verifies them alone, or never come again.
NEVER_KNOWN = frozenset({AUTHORIZATION, b"x-request-id", b"traceparent", b"tracestate"})
_known: dict[tuple[bytes, bytes], Metadata] = {}

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Rejected(grpc.aio.AbortError):
    """A request that breaks the protocol or a limit; ``refusal`` is how the call ends."""

    def __init__(self, code: StatusCode, text: str) -> None:
        super().__init__(text)
        self.refusal = Refusal(code, text)


def first(headers: Headers, name: bytes) -> bytes | None:
    """Return the first value of a header; None without one."""
    for key, value in headers:
        if key == name:
            return value
    return None


def size_of(headers: Headers) -> int:
    """Return the size of a header list as HTTP/2 counts it."""
    return sum(map(len, chain.from_iterable(headers))) + HEADER_OVERHEAD * len(headers)


def exceeds(headers: Headers, most: int) -> bool:
    """Say whether a header list is larger than ``most`` bytes, without the client certificate, which Envoy adds."""
    size = size_of(headers)
    return size > most and size - size_of([each for each in headers if each[0] == CLIENT_CERTIFICATE]) > most


def timeout_of(headers: Headers) -> float | None:
    """Return ``grpc-timeout`` in seconds; None without one. Raises Rejected."""
    given = first(headers, b"grpc-timeout")
    if given is None:
        return None
    match = _TIMEOUT.fullmatch(given)
    if match is None:
        raise Rejected(StatusCode.INVALID_ARGUMENT, "grpc-timeout is malformed: one to eight digits and a unit")
    return int(match[1]) * _SECONDS[match[2]]


def metadata_of(headers: Headers) -> Metadata:
    """Return the metadata: text, and bytes for names in ``-bin``, whose values are base64. Raises Rejected."""
    found: list[tuple[str, str | bytes]] = []
    for header in headers:
        known = _known.get(header)
        if known is None:
            known = _pairs_of(*header)
            if len(header[1]) <= LONGEST_KNOWN and header[0] not in NEVER_KNOWN:
                if len(_known) >= MOST_KNOWN:
                    _known.clear()
                _known[header] = known
        found += known
    return tuple(found)


def _pairs_of(name: bytes, value: bytes) -> Metadata:
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        return ()
    text = name.decode("ascii", "replace")
    if name.endswith(b"-bin"):
        # Several values of one name may be joined by commas.
        return tuple((text, _from_base64(text, part.strip())) for part in value.split(b","))
    if name == AUTHORIZATION:
        # Envoy joins several by commas, which no credential holds: how many there were must be seen.
        if b"," not in value:
            return ((text, _text(value.strip())),)
        return tuple((text, _text(part.strip())) for part in value.split(b","))
    return ((text, _text(value)),)


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        return value


def _from_base64(name: str, value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        raise Rejected(StatusCode.INVALID_ARGUMENT, f"the value of {name} is not base64") from None


def headers_of(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    """Encode metadata as headers or trailers."""
    return [(name.encode("ascii"), _encoded(name, value)) for name, value in metadata]


def _encoded(name: str, value: str | bytes) -> bytes:
    if name.endswith("-bin"):
        raw = value.encode() if isinstance(value, str) else value
        return base64.b64encode(raw).rstrip(b"=")
    return value.encode("ascii") if isinstance(value, str) else value


def percent_encoded(text: str) -> bytes:
    """Encode a status text: UTF-8, in which bytes outside of printable ASCII, and ``%``, become ``%XX``."""
    if text.isascii() and text.isprintable() and "%" not in text:
        return text.encode("ascii")
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in text.encode("utf-8", "replace")
    )
