"""The parts of protobuf's wire format that the fast path reads and writes itself.

See protobuf.dev/programming-guides/encoding. Requests are only split into fields here: ``terms`` and ``read_key``
decode the fields with protobuf.
"""

from functools import lru_cache

_SMALL = tuple(bytes((number,)) for number in range(128))
# Fields 1 to 4, length-delimited.
_FIRST_FIELD, _SECOND_FIELD, _THIRD_FIELD, _FOURTH_FIELD = 0x0A, 0x12, 0x1A, 0x22
NO_SELECTION = b"", b"", b""


def varint(number: int) -> bytes:
    """Encode a number that is not negative as a varint."""
    if number < 128:
        return _SMALL[number]
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


@lru_cache(4096)
def head(number: int, length: int) -> bytes:
    """Encode the tag of field ``number``, 1 to 15, and ``length``, the bytes of its content."""
    return _SMALL[number << 3 | 2] + varint(length)


def field(number: int, content: bytes) -> bytes:
    """Encode a message, text or bytes as field ``number``, 1 to 15."""
    return head(number, len(content)) + content


def cut(message: bytes) -> tuple[bytes, bytes]:
    """Return the content of the leading field 1, or nothing, and the rest: ``split`` for one field."""
    if len(message) < 2 or message[0] != _FIRST_FIELD:
        return b"", message
    length, begin = message[1], 2
    if length > 127:
        if len(message) == 2 or message[2] > 127:
            return b"", message
        length, begin = (length & 127) | (message[2] << 7), 3
    end = begin + length
    return (message[begin:end], message[end:]) if end <= len(message) else (b"", message)


def cut_selection(message: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the leading fields 1 to 3, the content of field 4, and the rest; nothing of any where it is otherwise.

    So of a Select the key of the family, as ``codec.key_to_bytes`` encodes it, and the sticky key; if all fields come
    in the order of their numbers. A length of more than a byte in one of the first three fields is not understood.
    """
    try:
        if (
            message[0] != _FIRST_FIELD
            or message[second := 2 + message[1]] != _SECOND_FIELD
            or message[third := second + 2 + message[second + 1]] != _THIRD_FIELD
        ):
            return NO_SELECTION
        end = third + 2 + message[third + 1]
        if end == len(message) or message[end] != _FOURTH_FIELD:
            return message[:end], b"", message[end:]
        length, begin = message[end + 1], end + 2
        if length > 127:
            if message[begin] > 127:
                return NO_SELECTION
            length, begin = (length & 127) | (message[begin] << 7), begin + 1
    except IndexError:
        return NO_SELECTION
    stop = begin + length
    return (message[:end], message[begin:stop], message[stop:]) if stop <= len(message) else NO_SELECTION


def split(message: bytes) -> tuple[list[bytes], bytes]:
    """Return the contents of the leading fields that are field 1 and length-delimited, and the rest of the message.

    The first field that is truncated, or whose length takes more than two bytes, begins the rest.
    """
    contents: list[bytes] = []
    start, end = 0, len(message)
    while start + 1 < end and message[start] == _FIRST_FIELD:
        length, begin = message[start + 1], start + 2
        if length > 127:
            if begin >= end or message[begin] > 127:
                break
            length, begin = (length & 127) | (message[begin] << 7), begin + 1
        if begin + length > end:
            break
        start = begin + length
        contents.append(message[begin:start])
    return contents, message[start:]


@lru_cache(4096)
def age(milliseconds: int) -> bytes:
    """Encode ``Provenance.age``, field 2, a google.protobuf.Duration. A negative one is encoded as 0."""
    seconds, rest = divmod(max(0, milliseconds), 1000)
    content = (b"\x08" + varint(seconds) if seconds else b"") + (b"\x10" + varint(rest * 1_000_000) if rest else b"")
    return field(2, content)
