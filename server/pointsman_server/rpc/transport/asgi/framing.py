"""Length-prefixed messages: a byte that says whether the message is compressed, four bytes of its length, its bytes."""

import zlib
from typing import Any

from grpc import StatusCode

from pointsman_server.rpc.transport.asgi.headers import Headers, Rejected, first

PREFIX = 5
ENCODINGS = (b"identity", b"gzip", b"deflate")
ACCEPTED = b",".join(ENCODINGS)
ONE_REQUEST = "the method takes exactly one request"
# What zlib is told: gzip has a header of its own.
_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


def frame(message: bytes) -> bytes:
    """Put the prefix before a message; it is not compressed."""
    return b"\0" + len(message).to_bytes(4) + message


def whole_message(body: bytes, most: int) -> bytes | None:
    """Return the message if ``body`` is exactly one, not compressed and of at most ``most`` bytes; else None."""
    length = len(body) - PREFIX
    if 0 <= length <= most and body[0] == 0 and int.from_bytes(body[1:PREFIX]) == length:
        return body[PREFIX:]
    return None


def unpack(compressed: bytes, headers: Headers, most: int) -> bytes:
    """Decompress a message by ``grpc-encoding``; of more than ``most`` bytes no more is unpacked. Raises Rejected."""
    name = first(headers, b"grpc-encoding") or b""
    if name and name not in ENCODINGS:
        text = f"grpc-encoding {name.decode('ascii', 'replace')} is not supported: use gzip, deflate or identity"
        raise Rejected(StatusCode.UNIMPLEMENTED, text)
    bits = _WINDOW_BITS.get(name)
    if bits is None:
        raise Rejected(StatusCode.INTERNAL, "a message is compressed, and grpc-encoding does not say how")
    unpacker = zlib.decompressobj(bits)
    try:
        message = unpacker.decompress(compressed, most + 1)
    except zlib.error:
        raise Rejected(StatusCode.INTERNAL, "a compressed message is malformed") from None
    if len(message) > most:
        raise too_large(most)
    if not unpacker.eof or unpacker.unused_data:
        raise Rejected(StatusCode.INTERNAL, "a compressed message is malformed")
    return message


class Deframer:
    """Cuts the bytes of a request into messages, none of which is larger than ``most`` bytes."""

    def __init__(self, headers: Headers, most: int) -> None:
        self._headers = headers
        self._most = most
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes that arrived."""
        self._buffer += data

    def next(self) -> bytes | None:
        """Return the next message; None until all of it has arrived. Raises Rejected."""
        buffer = self._buffer
        if len(buffer) < PREFIX:
            return None
        length = int.from_bytes(buffer[1:PREFIX])
        if length > self._most:
            # Before it arrives, so that none of it is kept.
            raise too_large(self._most)
        if len(buffer) < PREFIX + length:
            return None
        flag, message = buffer[0], bytes(buffer[PREFIX : PREFIX + length])
        del buffer[: PREFIX + length]
        if flag == 0:
            return message
        if flag == 1:
            return unpack(message, self._headers, self._most)
        raise Rejected(StatusCode.INTERNAL, "the prefix of a message is malformed")

    def end(self) -> None:
        """Check that the request does not end within a message. Raises Rejected."""
        if self._buffer:
            raise Rejected(StatusCode.INTERNAL, "the request ends within a message")


def too_large(most: int) -> Rejected:
    """Say that a message is larger than the limit."""
    return Rejected(StatusCode.RESOURCE_EXHAUSTED, f"the message is larger than {most} bytes")


def as_it_is(message: Any) -> Any:
    """Parse and encode for handlers that exchange bytes."""
    return message
