"""The encodings agree with protobuf."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.routes import RouteKey
from pointsman_server.rpc.fastpath import wire

keys = st.builds(
    route_pb2.RouteKey,
    tenant=st.text(max_size=200),
    service=st.text(max_size=20),
    env=st.text(max_size=20),
    version=st.text(max_size=20),
)


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_number_is_what_protobuf_reads(number: int) -> None:
    assert pb.Provenance.FromString(b"\x18" + wire.varint(number)).as_of_revision == number


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_a_field_is_what_protobuf_reads(content: bytes) -> None:
    packed = pb.BatchResolveResponse.Result.FromString(wire.field(15, content))
    assert packed.SerializeToString() == wire.field(15, content) == wire.head(15, len(content)) + content
    assert wire.split(wire.field(1, content)) == ([content], b"")


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10**12))
def test_an_age_is_what_protobuf_reads(milliseconds: int) -> None:
    age = pb.Provenance.FromString(wire.age(milliseconds)).age
    assert (age.seconds, age.nanos) == (milliseconds // 1000, milliseconds % 1000 * 1_000_000)


def test_an_age_is_never_negative() -> None:
    assert pb.Provenance.FromString(wire.age(-5)).age.ToNanoseconds() == 0


@settings(deadline=None)
@given(st.lists(keys, max_size=5), st.integers(min_value=0), st.sampled_from([0, 1, 2]))
def test_keys_are_split_off_and_the_rest_stays(
    found: list[route_pb2.RouteKey], revision: int, consistency: int
) -> None:
    rest = pb.BatchResolveRequest(min_revision=revision % 2**63, consistency=consistency)
    request = pb.BatchResolveRequest(keys=found)
    request.MergeFrom(rest)

    contents, left = wire.split(request.SerializeToString())

    assert [route_pb2.RouteKey.FromString(content) for content in contents] == found
    assert pb.BatchResolveRequest.FromString(left) == rest


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_whatever_is_split_is_whole_again_when_put_together(message: bytes) -> None:
    contents, rest = wire.split(message)
    assert b"".join(contents) + rest == message or len(contents) > 0
    rebuilt = b"".join(wire.field(1, content) for content in contents) + rest
    # A length may have been written longer than it needs to be.
    assert wire.split(rebuilt) == (contents, rest)


@settings(deadline=None)
@given(
    st.binary(max_size=100)
    | st.lists(st.binary(max_size=300), max_size=2).map(
        lambda contents: b"".join(wire.field(1, content) for content in contents)
    )
)
def test_what_is_cut_off_is_the_first_that_is_split_off(message: bytes) -> None:
    contents, left = wire.split(message)
    first, rest = wire.cut(message)
    assert first == (contents[0] if contents else b"")
    assert wire.split(rest) == (contents[1:], left)


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05abc", b"\x0a\xff", b"\x0a\xff\xff\x7f", b"\x12\x01a", b""])
def test_what_is_cut_short_or_something_else_stays_in_the_rest(message: bytes) -> None:
    assert wire.split(message) == ([], message)
    assert wire.cut(message) == (b"", message)


parts = st.text(min_size=1, max_size=63, alphabet="abz09._-")


@settings(deadline=None)
@given(parts, parts, parts, st.text(max_size=300), st.integers(0, 2**63 - 1))
def test_a_selection_is_cut_into_the_key_of_its_family_the_sticky_key_and_the_rest(
    tenant: str, service: str, env: str, sticky_key: str, min_revision: int
) -> None:
    request = pb.SelectRequest(
        tenant=tenant, service=service, env=env, sticky_key=sticky_key, min_revision=min_revision
    )
    family = key_to_bytes(RouteKey(tenant, service, env, ""))
    rest = pb.SelectRequest(min_revision=min_revision).SerializeToString()
    assert wire.cut_selection(request.SerializeToString()) == (family, sticky_key.encode(), rest)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_the_parts_of_a_selection_are_the_whole_message_or_nothing(message: bytes) -> None:
    family, sticky_key, rest = wire.cut_selection(message)
    if family:
        assert message.startswith(family)
        assert message.endswith(rest)
        assert message[len(family) : len(message) - len(rest)].endswith(sticky_key)
    else:
        assert (sticky_key, rest) == (b"", b"")


@pytest.mark.parametrize(
    ("message", "cut"),
    [
        (b"", None),
        (b"\x0a", None),
        (b"\x0a\x01", None),
        (b"\x0a\x01a", None),
        (b"\x0a\x01a\x12\x01b", None),
        (b"\x0a\x01a\x12\x01b\x1a\x02c", None),
        (b"\x12\x01b\x0a\x01a\x1a\x01c", None),
        (b"\x0a\x01a\x12\x01b\x1a\x01c", (b"\x0a\x01a\x12\x01b\x1a\x01c", b"", b"")),
        (b"\x0a\x01a\x12\x01b\x1a\x01c\x28\x07", (b"\x0a\x01a\x12\x01b\x1a\x01c", b"", b"\x28\x07")),
        (b"\x0a\x01a\x12\x01b\x1a\x01c\x22", None),
        (b"\x0a\x01a\x12\x01b\x1a\x01c\x22\x02x", None),
        (b"\x0a\x01a\x12\x01b\x1a\x01c\x22\x80", None),
        (b"\x0a\x01a\x12\x01b\x1a\x01c\x22\x81\x80\x00x", None),
    ],
)
def test_what_is_no_selection_in_order_is_not_cut(message: bytes, cut: tuple[bytes, bytes, bytes] | None) -> None:
    assert wire.cut_selection(message) == (cut or wire.NO_SELECTION)
