"""Just enough of the protobuf wire format to ask etcd, for which no stubs are published for Python.

Field numbers are those of ``etcd/api/etcdserverpb/rpc.proto`` (3.4).
"""

import struct
from collections.abc import Iterator, Sequence

VARINT, BYTES = 0, 2
RANGE_METHOD = "etcdserverpb.KV/Range"
PUT_METHOD = "etcdserverpb.KV/Put"
TXN_METHOD = "etcdserverpb.KV/Txn"


def framed(body: bytes) -> bytes:
    """Give a gRPC message the five bytes that go before it on the wire."""
    return struct.pack(">BI", 0, len(body)) + body


def varint(number: int) -> bytes:
    """Encode a number that is not negative."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def field(number: int, value: bytes | int) -> bytes:
    """Encode one field: bytes with their length, or a number."""
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Decode the fields of a message that has numbers and bytes alone. Raises ValueError."""
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        value, place = _read_varint(message, place)
        if tag & 7 == VARINT:
            yield tag >> 3, value
        elif tag & 7 == BYTES:
            yield tag >> 3, message[place : place + value]
            place += value
        else:
            raise ValueError(f"wire type {tag & 7} of field {tag >> 3} is not expected here")


def range_request(key: bytes, *, serializable: bool) -> bytes:
    """Ask for one key; ``serializable`` takes what the member asked has, without asking the others."""
    return field(1, key) + (field(7, 1) if serializable else b"")


def put_request(key: bytes, value: bytes) -> bytes:
    """Write one key."""
    return field(1, key) + field(2, value)


def txn_request(keys: Sequence[bytes]) -> bytes:
    """Ask for many keys in one transaction, serializably."""
    return b"".join(field(2, field(1, range_request(key, serializable=True))) for key in keys)


def values_of_range(response: bytes) -> list[bytes]:
    """Read the values of a RangeResponse."""
    pairs = [value for number, value in fields(response) if number == 2 and isinstance(value, bytes)]
    return [value for pair in pairs for number, value in fields(pair) if number == 5 and isinstance(value, bytes)]


def values_of_txn(response: bytes) -> list[bytes]:
    """Read the values of the RangeResponses in a TxnResponse."""
    answers = [value for number, value in fields(response) if number == 3 and isinstance(value, bytes)]
    return [
        value
        for answer in answers
        for number, ranged in fields(answer)
        if number == 1 and isinstance(ranged, bytes)
        for value in values_of_range(ranged)
    ]


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if place >= len(message):
            raise ValueError("the message ends within a number")
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
        shift += 7
