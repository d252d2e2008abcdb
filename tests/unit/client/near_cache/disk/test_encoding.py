"""The file as bytes; and fuzzed: torn, truncated, with flipped bits. It is refused, and never a wrong answer."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.near_cache.disk.encoding import (
    DIGEST_BYTES,
    MAGIC,
    MAGIC_1,
    DamagedSnapshot,
    StoredView,
    _digest,
    decode,
    decode_age,
    encode,
    encode_age,
)
from pointsman.near_cache.table.view import Filter
from pointsman.near_cache.watch.protocol import Position

VIEWS = (
    StoredView(Filter("team-a"), Position("epoch-1", 5), 1_700_000_000.25, has_traffic=True),
    StoredView(Filter("team-b", "payments", "prod"), Position("epoch-1", 7), 1_700_000_001.5),
)
ROWS = [
    (0, "team-a/payments/prod/v1", "https://one.internal", 3, b"\x00\x01\xff", True),
    (0, "team-a/payments/prod/v2", "https://zwei-ü.internal", 2**62, b"", False),
    (1, "team-b/payments/prod/v1", "https://two.internal/\u00e9", 7, b"rest", True),
]
TRAFFIC = [(0, b"one"), (0, b""), (1, b"\x00two")]
CONTENT = encode(VIEWS, ROWS, TRAFFIC)
# What the release before traffic wrote: one route of one view.
VERSION_1 = bytes.fromhex(
    "504d5441424c45016e0000007b22726f75746573223a20312c20227669657773223a205b5b227465616d2d61222c2022222c"
    "2022222c202265706f63682d31222c20352c20313730303030303030302e32355d5d2c202273656374696f6e73223a205b32"
    "332c2032302c20382c20342c20312c20342c20335d7d7465616d2d612f7061796d656e74732f70726f642f76316874747073"
    "3a2f2f6f6e652e696e7465726e616c03000000000000000000000001030000000001fff5ae309a704424c9350e1df188a486"
    "b04dfe920c6dfeaeca05ebd429a35e68d2"
)
AGE = encode_age(CONTENT[-DIGEST_BYTES:], VIEWS)


def rows(content: bytes) -> list[tuple[int, str, str, int, bytes, bool]]:
    routes = decode(content).routes
    columns = (routes.views, routes.keys, routes.urls, routes.revisions, routes.rests, map(bool, routes.active))
    return list(zip(*columns, strict=True))


def test_what_is_written_is_read() -> None:
    assert rows(CONTENT) == ROWS
    table = decode(CONTENT)
    assert table.views == VIEWS
    assert list(table.traffic) == TRAFFIC
    assert decode_age(AGE, table.digest) == VIEWS


def test_so_is_an_empty_table() -> None:
    assert rows(encode(VIEWS[:1], [])) == []
    assert decode(encode((), [])).views == ()


def test_the_age_of_another_table_counts_for_nothing() -> None:
    assert decode_age(AGE, b"\0" * DIGEST_BYTES) == ()


@pytest.mark.parametrize("content", [b"", MAGIC, b"\0" * 100, MAGIC + b"\0" * DIGEST_BYTES, AGE, CONTENT[8:]])
def test_what_is_no_snapshot_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedSnapshot):
        decode(content)


def test_a_file_from_before_traffic_is_read() -> None:
    table = decode(VERSION_1)
    assert rows(VERSION_1) == ROWS[:1]
    assert table.views == (StoredView(Filter("team-a"), Position("epoch-1", 5), 1_700_000_000.25),)
    assert not table.traffic


def test_another_version_is_refused() -> None:
    with pytest.raises(DamagedSnapshot, match="version"):
        decode(CONTENT.replace(MAGIC, MAGIC[:-1] + b"\x03", 1))


@pytest.mark.parametrize(("content", "read"), [(CONTENT, decode), (AGE, lambda age: decode_age(age, CONTENT[-32:]))])
def test_every_truncation_and_every_flipped_bit_is_refused(content: bytes, read) -> None:  # type: ignore[no-untyped-def]
    for length in range(len(content)):
        with pytest.raises(DamagedSnapshot):
            read(content[:length])
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            with pytest.raises(DamagedSnapshot):
                read(bytes(flipped))


@given(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT)), st.binary(max_size=64))
def test_what_is_torn_is_refused(start: int, end: int, instead: bytes) -> None:
    """A write that was cut, pages that are missing, or that are of another file."""
    torn = CONTENT[:start] + instead + CONTENT[end:]
    if torn == CONTENT:
        return
    with pytest.raises(DamagedSnapshot):
        decode(torn)


@given(st.binary(max_size=200))
def test_nothing_else_is_raised_where_the_checksum_matches(body: bytes) -> None:
    for magic, read in ((MAGIC, decode), (MAGIC_1, decode), (AGE[:8], lambda content: decode_age(content, b""))):
        with contextlib.suppress(DamagedSnapshot):
            read(magic + body + _digest(magic, body))  # type: ignore[operator]
