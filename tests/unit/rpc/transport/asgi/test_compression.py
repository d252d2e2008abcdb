"""Compressed messages are unpacked within their limit, a slice at a time."""

import asyncio
import gzip
import os
import zlib
from collections.abc import Callable

import pytest
from grpc import StatusCode

from pointsman_server.rpc.transport.asgi.compression import SLICE_BYTES, Unpacker
from pointsman_server.rpc.transport.asgi.headers import Rejected

MOST = 100
GZIP = [(b"grpc-encoding", b"gzip")]
BOTH = pytest.mark.parametrize(("name", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
Pack = Callable[[bytes], bytes]


async def refused(compressed: bytes, headers: list[tuple[bytes, bytes]], most: int = MOST) -> StatusCode:
    with pytest.raises(Rejected) as raised:
        await Unpacker(most).unpack(compressed, headers)
    return raised.value.refusal.code


@BOTH
@pytest.mark.parametrize("size", [0, 1, MOST])
async def test_a_message_is_unpacked(name: bytes, pack: Pack, size: int) -> None:
    assert await Unpacker(MOST).unpack(pack(b"x" * size), [(b"grpc-encoding", name)]) == b"x" * size


@BOTH
@pytest.mark.parametrize("kind", ["zeros", "random"])
@pytest.mark.parametrize("size", [SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 10 * SLICE_BYTES])
async def test_a_message_of_many_slices_is_unpacked(name: bytes, pack: Pack, kind: str, size: int) -> None:
    message = bytes(size) if kind == "zeros" else os.urandom(size)

    assert await Unpacker(size).unpack(pack(message), [(b"grpc-encoding", name)]) == message


@BOTH
@pytest.mark.parametrize("most", [MOST, SLICE_BYTES, 3 * SLICE_BYTES])
async def test_no_more_is_unpacked_than_a_message_may_have(name: bytes, pack: Pack, most: int) -> None:
    headers = [(b"grpc-encoding", name)]

    assert await refused(pack(bytes(most + 1)), headers, most) is StatusCode.RESOURCE_EXHAUSTED


async def test_of_all_messages_one_slice_is_unpacked_in_each_round_of_the_loop() -> None:
    slices = 8
    unpacker = Unpacker(slices * SLICE_BYTES)
    packed = gzip.compress(bytes(slices * SLICE_BYTES))
    unpacking = [asyncio.create_task(unpacker.unpack(packed, GZIP)) for _ in range(3)]
    rounds = 0
    while not all(task.done() for task in unpacking):
        rounds += 1
        await asyncio.sleep(0)

    assert rounds >= 3 * (slices - 1)
    assert [len(await task) for task in unpacking] == [slices * SLICE_BYTES] * 3


@pytest.mark.parametrize(
    ("headers", "message", "code"),
    [
        # Compressed, and nothing says how.
        ([], gzip.compress(b"x", mtime=0), StatusCode.INTERNAL),
        ([(b"grpc-encoding", b"identity")], gzip.compress(b"x", mtime=0), StatusCode.INTERNAL),
        ([(b"grpc-encoding", b"snappy")], b"x", StatusCode.UNIMPLEMENTED),
        (GZIP, b"not gzip", StatusCode.INTERNAL),
        (GZIP, gzip.compress(b"cut off", mtime=0)[:-3], StatusCode.INTERNAL),
        (GZIP, gzip.compress(b"one", mtime=0) * 2, StatusCode.INTERNAL),
    ],
)
async def test_what_cannot_be_unpacked_is_refused(
    headers: list[tuple[bytes, bytes]], message: bytes, code: StatusCode
) -> None:
    assert await refused(message, headers) is code
