"""rpc.transport.asgi.framing: length-prefixed messages, and their limits."""

import gzip

import pytest
from grpc import StatusCode

from pointsman_server.rpc.transport.asgi.compression import Unpacker
from pointsman_server.rpc.transport.asgi.framing import Deframer, frame, whole_message
from pointsman_server.rpc.transport.asgi.headers import Rejected

MOST = 100
UNPACKER = Unpacker(MOST)


def compressed(message: bytes) -> bytes:
    return b"\1" + len(message).to_bytes(4) + message


async def refused(deframer: Deframer) -> StatusCode:
    with pytest.raises(Rejected) as raised:
        await deframer.next()
    return raised.value.refusal.code


@pytest.mark.parametrize("message", [b"", b"x", b"y" * MOST])
def test_a_body_that_is_one_message_is_that_message(message: bytes) -> None:
    assert whole_message(frame(message), MOST) == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0\0",
        frame(b"x") + b"y",
        frame(b"xy")[:-1],
        compressed(b"x"),
        frame(b"x" * (MOST + 1)),
        frame(b"") * 2,
    ],
)
def test_another_body_is_not(body: bytes) -> None:
    assert whole_message(body, MOST) is None


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
async def test_messages_are_found_however_they_arrive(step: int) -> None:
    deframer = Deframer([], UNPACKER)
    wire = frame(b"one") + frame(b"") + frame(b"three")
    found = []
    for begin in range(0, len(wire), step):
        deframer.feed(wire[begin : begin + step])
        while (message := await deframer.next()) is not None:
            found.append(message)
    deframer.end()

    assert found == [b"one", b"", b"three"]


async def test_a_message_that_is_too_large_is_refused_before_it_arrives() -> None:
    deframer = Deframer([], UNPACKER)
    deframer.feed(frame(b"x" * (MOST + 1))[:5])

    assert await refused(deframer) is StatusCode.RESOURCE_EXHAUSTED


async def test_a_request_must_not_end_within_a_message() -> None:
    deframer = Deframer([], UNPACKER)
    deframer.feed(frame(b"xyz")[:-1])

    assert await deframer.next() is None
    with pytest.raises(Rejected, match="within a message"):
        deframer.end()


async def test_a_prefix_of_another_kind_is_refused() -> None:
    deframer = Deframer([], UNPACKER)
    deframer.feed(b"\2\0\0\0\0")

    assert await refused(deframer) is StatusCode.INTERNAL


async def test_a_message_that_is_compressed_is_unpacked() -> None:
    deframer = Deframer([(b"grpc-encoding", b"gzip")], UNPACKER)
    deframer.feed(compressed(gzip.compress(b"x")) + frame(b"y"))

    assert [await deframer.next(), await deframer.next()] == [b"x", b"y"]
