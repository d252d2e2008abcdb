"""The wire format by hand is that of protobuf itself."""

import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from tests.bench import protobuf
from tests.bench.driver import split


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**31, 2**63 - 1])
def test_numbers_are_as_protobuf_writes_them(number: int) -> None:
    message = pb.ResolveRequest(min_revision=number)
    ours = protobuf.field(2, number) if number else b""
    assert ours == message.SerializeToString()


def test_bytes_are_as_protobuf_writes_them() -> None:
    assert protobuf.field(1, b"t" * 200) == RouteKey(tenant="t" * 200).SerializeToString()


def test_a_message_is_read_back() -> None:
    message = protobuf.field(1, b"key") + protobuf.field(7, 1)
    assert list(protobuf.fields(message)) == [(1, b"key"), (7, 1)]


@pytest.mark.parametrize("message", [b"\x08", b"\x08\x80", b"\x0d\x00\x00\x00\x00"])
def test_what_is_cut_short_or_unknown_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"ends within a number|not expected"):
        list(protobuf.fields(message))


def test_only_a_serializable_range_says_so() -> None:
    exact = protobuf.range_request(b"key", serializable=False)
    assert protobuf.range_request(b"key", serializable=True) == exact + b"\x38\x01"


def test_the_values_of_a_range_and_of_a_transaction_are_found() -> None:
    def answer(value: bytes) -> bytes:
        pair = protobuf.field(1, b"key") + protobuf.field(5, value)
        return protobuf.field(1, b"header") + protobuf.field(2, pair) + protobuf.field(4, 1)

    assert protobuf.values_of_range(answer(b"a")) == [b"a"]
    txn = protobuf.field(2, 1) + b"".join(protobuf.field(3, protobuf.field(1, answer(each))) for each in (b"a", b"b"))
    assert protobuf.values_of_txn(txn) == [b"a", b"b"]


def test_framed_messages_are_split_again() -> None:
    framed = [protobuf.framed(body) for body in (b"one", b"", b"three" * 100)]
    assert split(b"".join(framed)) == framed
