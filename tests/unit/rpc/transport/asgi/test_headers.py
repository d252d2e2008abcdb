"""rpc.transport.asgi.headers: metadata as HTTP/2 headers, by the specification of gRPC over HTTP/2."""

import pytest
from grpc import StatusCode

from pointsman_server.rpc.transport.asgi.headers import (
    Rejected,
    first,
    headers_of,
    metadata_of,
    percent_encoded,
    size_of,
    timeout_of,
)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (b"1H", 3600),
        (b"2M", 120),
        (b"3S", 3),
        (b"250m", 0.25),
        (b"500u", 0.0005),
        (b"7n", 7e-9),
        (b"0m", 0),
        (b"99999999H", 99999999 * 3600),
    ],
)
def test_a_timeout_is_a_number_and_its_unit(given: bytes, seconds: float) -> None:
    assert timeout_of([(b"grpc-timeout", given)]) == pytest.approx(seconds)


@pytest.mark.parametrize("given", [b"", b"1", b"S", b"-1S", b"1.5S", b"123456789S", b"1s", b" 1S", b"1S ", b"1SS"])
def test_a_malformed_timeout_is_refused(given: bytes) -> None:
    with pytest.raises(Rejected) as raised:
        timeout_of([(b"grpc-timeout", given)])

    assert raised.value.refusal.code is StatusCode.INVALID_ARGUMENT


def test_without_a_timeout_there_is_no_deadline() -> None:
    assert timeout_of([(b"te", b"trailers")]) is None


def test_headers_of_the_protocol_are_no_metadata() -> None:
    reserved = [
        (b"host", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"grpc-timeout", b"1S"),
        (b"grpc-encoding", b"gzip"),
        (b"grpc-accept-encoding", b"gzip"),
        (b"x-forwarded-client-cert", b"URI=spiffe://a/b"),
    ]

    assert metadata_of([*reserved, (b"user-agent", b"me"), (b"x-a", b"1")]) == (("user-agent", "me"), ("x-a", "1"))


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (b"AAE=", [b"\0\1"]),
        # Padding may be left out, and values of one name may be joined.
        (b"AAE", [b"\0\1"]),
        (b"AAE,Ag==", [b"\0\1", b"\2"]),
        (b"AAE, Ag", [b"\0\1", b"\2"]),
        (b"", [b""]),
    ],
)
def test_a_binary_value_is_base64(given: bytes, values: list[bytes]) -> None:
    assert metadata_of([(b"x-bin", given)]) == tuple(("x-bin", value) for value in values)


@pytest.mark.parametrize("given", [b"!", b"A", b"AA E", b"AAE=x"])
def test_a_binary_value_that_is_not_base64_is_refused_by_its_name(given: bytes) -> None:
    with pytest.raises(Rejected, match="x-bin"):
        metadata_of([(b"x-bin", given)])


def test_a_value_that_is_not_ascii_is_bytes() -> None:
    assert metadata_of([(b"x-a", b"\xff")]) == (("x-a", b"\xff"),)


def test_two_credentials_that_were_joined_are_two() -> None:
    assert metadata_of([(b"authorization", b"Bearer a, Bearer b")]) == (
        ("authorization", "Bearer a"),
        ("authorization", "Bearer b"),
    )


def test_metadata_becomes_headers_and_comes_back() -> None:
    metadata = (("x-a", "1"), ("x-bin", b"\0\xff"), ("x-a", "2"))

    assert metadata_of(headers_of(metadata)) == metadata


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("plain text: ok", b"plain text: ok"),
        ("100 %", b"100 %25"),
        ("a\nb", b"a%0Ab"),
        ("\x7f", b"%7F"),
        ("schön", b"sch%C3%B6n"),
        ("→", b"%E2%86%92"),
        ("", b""),
    ],
)
def test_a_status_text_is_percent_encoded(text: str, encoded: bytes) -> None:
    assert percent_encoded(text) == encoded


def test_the_first_value_counts() -> None:
    assert first([(b"a", b"1"), (b"b", b"2"), (b"b", b"3")], b"b") == b"2"
    assert first([], b"b") is None


def test_a_header_counts_its_letters_and_32_bytes() -> None:
    assert size_of([(b"ab", b"cde"), (b"f", b"")]) == 5 + 32 + 1 + 32
