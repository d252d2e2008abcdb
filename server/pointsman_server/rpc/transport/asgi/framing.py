"""Length-prefixed messages: a byte that says whether the message is compressed, four bytes of its length, its bytes."""

from typing import Any

from grpc import StatusCode

from pointsman_server.rpc.transport.asgi.compression import Unpacker, too_large
from pointsman_server.rpc.transport.asgi.headers import Headers, Rejected

PREFIX = 5


def frame(message: bytes) -> bytes:
    """Put the prefix before a message; it is not compressed."""
    return b"\0" + len(message).to_bytes(4) + message


def whole_message(body: bytes, most: int) -> bytes | None:
    """Return the message if ``body`` is exactly one, not compressed and of at most ``most`` bytes; else None."""
    length = len(body) - PREFIX
    if 0 <= length <= most and body[0] == 0 and int.from_bytes(body[1:PREFIX]) == length:
        return body[PREFIX:]
    return None


class Deframer:
    """Cuts the bytes of a request into messages, none of which is larger than ``unpacker`` allows."""

    __slots__ = ("_buffer", "_headers", "_unpacker")

    def __init__(self, headers: Headers, unpacker: Unpacker) -> None:
        self._headers = headers
        self._unpacker = unpacker
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes that arrived."""
        self._buffer += data

    async def next(self) -> bytes | None:
        """Return the next message; None until all of it has arrived. Raises Rejected."""
        buffer = self._buffer
        if len(buffer) < PREFIX:
            return None
        length = int.from_bytes(buffer[1:PREFIX])
        if length > self._unpacker.most:
            # Before it arrives, so that none of it is kept.
            raise too_large(self._unpacker.most)
        if len(buffer) < PREFIX + length:
            return None
        flag, message = buffer[0], bytes(buffer[PREFIX : PREFIX + length])
        del buffer[: PREFIX + length]
        if flag == 0:
            return message
        if flag == 1:
            return await self._unpacker.unpack(message, self._headers)
        raise Rejected(StatusCode.INTERNAL, "the prefix of a message is malformed")

    def end(self) -> None:
        """Check that the request does not end within a message. Raises Rejected."""
        if self._buffer:
            raise Rejected(StatusCode.INTERNAL, "the request ends within a message")


def as_it_is(message: Any) -> Any:
    """Parse and encode for handlers that exchange bytes."""
    return message
