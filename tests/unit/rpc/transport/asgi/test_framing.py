"""rpc.transport.asgi.framing: length-prefixed messages, their limits, and what is compressed."""

import gzip
import zlib

import pytest
from grpc import StatusCode

from pointsman_server.rpc.transport.asgi.framing import Deframer, frame, whole_message
from pointsman_server.rpc.transport.asgi.headers import Rejected

MOST = 100


def compressed(message: bytes) -> bytes:
    return b"\1" + len(message).to_bytes(4) + message


def refused(deframer: Deframer) -> StatusCode:
    with pytest.raises(Rejected) as raised:
        deframer.next()
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
def test_messages_are_found_however_they_arrive(step: int) -> None:
    deframer = Deframer([], MOST)
    wire = frame(b"one") + frame(b"") + frame(b"three")
    found = []
    for begin in range(0, len(wire), step):
        deframer.feed(wire[begin : begin + step])
        while (message := deframer.next()) is not None:
            found.append(message)
    deframer.end()

    assert found == [b"one", b"", b"three"]


def test_a_message_that_is_too_large_is_refused_before_it_arrives() -> None:
    deframer = Deframer([], MOST)
    deframer.feed(frame(b"x" * (MOST + 1))[:5])

    assert refused(deframer) is StatusCode.RESOURCE_EXHAUSTED


def test_a_request_must_not_end_within_a_message() -> None:
    deframer = Deframer([], MOST)
    deframer.feed(frame(b"xyz")[:-1])

    assert deframer.next() is None
    with pytest.raises(Rejected, match="within a message"):
        deframer.end()


def test_a_prefix_of_another_kind_is_refused() -> None:
    deframer = Deframer([], MOST)
    deframer.feed(b"\2\0\0\0\0")

    assert refused(deframer) is StatusCode.INTERNAL


@pytest.mark.parametrize(("name", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_a_compressed_message_is_unpacked(name: bytes, pack: object) -> None:
    deframer = Deframer([(b"grpc-encoding", name)], MOST)
    deframer.feed(compressed(pack(b"x" * MOST)))  # type: ignore[operator]

    assert deframer.next() == b"x" * MOST


@pytest.mark.parametrize(("name", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_no_more_is_unpacked_than_a_message_may_have(name: bytes, pack: object) -> None:
    deframer = Deframer([(b"grpc-encoding", name)], MOST)
    deframer.feed(compressed(pack(b"x" * (MOST + 1))))  # type: ignore[operator]

    assert refused(deframer) is StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("headers", "message", "code"),
    [
        # Compressed, and nothing says how.
        ([], gzip.compress(b"x", mtime=0), StatusCode.INTERNAL),
        ([(b"grpc-encoding", b"identity")], gzip.compress(b"x", mtime=0), StatusCode.INTERNAL),
        ([(b"grpc-encoding", b"snappy")], b"x", StatusCode.UNIMPLEMENTED),
        ([(b"grpc-encoding", b"gzip")], b"not gzip", StatusCode.INTERNAL),
        ([(b"grpc-encoding", b"gzip")], gzip.compress(b"cut off", mtime=0)[:-3], StatusCode.INTERNAL),
    ],
)
def test_what_cannot_be_unpacked_is_refused(
    headers: list[tuple[bytes, bytes]], message: bytes, code: StatusCode
) -> None:
    deframer = Deframer(headers, MOST)
    deframer.feed(compressed(message))

    assert refused(deframer) is code
