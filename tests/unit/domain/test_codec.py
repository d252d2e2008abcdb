"""The domain as protobuf messages and back."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from pointsman.rules import KEY_PART
from pointsman.v1 import route_pb2, watch_pb2
from pointsman_server.domain import codec
from pointsman_server.domain.routes import Change, ChangeKind, Family, Route, RouteKey, Traffic
from pointsman_server.domain.traffic import Division, Slice, Target
from tests.support.fakes import BIRTH

text = st.text(max_size=30)
keys = st.builds(RouteKey, text, text, text, text)
moments = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds it
revisions = st.integers(1, 2**63 - 1)
routes = st.builds(
    Route, keys, text, st.booleans(), st.dictionaries(text, text, max_size=5), revisions, moments, moments
)
changes = st.builds(
    Change,
    revision=revisions,
    event_id=text,
    kind=st.sampled_from(ChangeKind),
    key=keys,
    before=st.none() | routes,
    after=st.none() | routes,
    actor=text,
    reason=text,
    request_id=text,
    occur_time=moments,
    epoch=text,
    traceparent=text,
    tracestate=text,
)


@given(keys)
def test_a_key_comes_back_as_it_went(key: RouteKey) -> None:
    assert codec.key_from_message(codec.key_to_message(key)) == key


@given(routes)
def test_a_route_comes_back_as_it_went_also_through_bytes(route: Route) -> None:
    encoded = codec.route_to_message(route).SerializeToString()
    assert codec.route_from_message(route_pb2.Route.FromString(encoded)) == route


valid_keys = st.builds(RouteKey, *[st.from_regex(KEY_PART, fullmatch=True)] * 4)


@given(valid_keys)
def test_the_bytes_of_a_valid_key_are_those_of_protobuf(key: RouteKey) -> None:
    encoded = codec.key_to_bytes(key)
    assert encoded == codec.key_to_message(key).SerializeToString()
    assert codec.key_from_bytes(encoded) == key


@given(keys, keys)
def test_no_two_keys_have_the_same_bytes_whether_they_are_valid_or_not(one: RouteKey, other: RouteKey) -> None:
    assert (codec.key_to_bytes(one) == codec.key_to_bytes(other)) == (one == other)


@given(valid_keys, routes)
def test_a_route_without_its_key_is_whole_with_it(key: RouteKey, some: Route) -> None:
    route = replace(some, key=key)
    rest = codec.rest_to_bytes(route)
    assert codec.rest_from_bytes(key, rest) == route
    whole = route_pb2.Route(key=codec.key_to_message(key)).SerializeToString() + rest
    assert route_pb2.Route.FromString(whole) == codec.route_to_message(route)


@given(valid_keys, routes)
def test_the_key_is_cut_off_an_encoded_route_unless_protobuf_has_to(key: RouteKey, some: Route) -> None:
    route = replace(some, key=key)
    encoded, named = codec.route_to_message(route).SerializeToString(), codec.key_to_bytes(key)

    rest = codec.rest_of(key, named, encoded)

    assert rest == (codec.rest_to_bytes(route) if len(named) < 128 else b"")


def test_the_key_of_another_route_is_not_cut_off() -> None:
    key = RouteKey("a", "b", "c", "d")
    encoded = route_pb2.Route(key=codec.key_to_message(key._replace(version="e")), revision=1).SerializeToString()

    assert codec.rest_of(key, codec.key_to_bytes(key), encoded) == b""
    assert codec.rest_of(key, codec.key_to_bytes(key), b"") == b""


def test_what_is_empty_or_at_the_beginning_of_time_is_there_all_the_same() -> None:
    beginning = datetime(1970, 1, 1, tzinfo=UTC)
    message = codec.route_to_message(Route(RouteKey("", "", "", ""), "", False, {}, 0, beginning, beginning))
    assert all(map(message.HasField, ("key", "create_time", "update_time")))


def test_a_time_out_of_range_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="a timestamp out of range"):
        codec.moment(Timestamp(seconds=2**62))


@given(changes)
def test_a_change_comes_back_as_it_went_also_through_bytes(change: Change) -> None:
    encoded = codec.change_to_message(change).SerializeToString()
    assert codec.change_from_message(route_pb2.RouteChange.FromString(encoded)) == change


def test_times_come_back_in_utc_whatever_their_zone_was() -> None:
    elsewhere = datetime(2024, 2, 29, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    moment = codec.moment(codec.timestamp(elsewhere))
    assert moment == elsewhere
    assert moment.tzinfo is UTC


def test_every_kind_of_change_has_its_name_in_the_proto() -> None:
    names = set(route_pb2.ChangeKind.keys()) - {"CHANGE_KIND_UNSPECIFIED"}
    assert names == {f"CHANGE_KIND_{kind}" for kind in ChangeKind}


def change_message(**fields: object) -> route_pb2.RouteChange:
    change = Change(7, "id", ChangeKind.CREATED, RouteKey("a", "b", "c", "d"), None, None, "", "", "", BIRTH, "epoch")
    message = codec.change_to_message(change)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize("revision", [0, -1])
def test_a_change_without_a_revision_is_refused(revision: int) -> None:
    with pytest.raises(ValueError, match="without a revision"):
        codec.change_from_message(change_message(revision=revision))


@pytest.mark.parametrize("kind", [0, 99], ids=["unspecified", "of a newer server"])
def test_a_change_of_a_kind_that_we_do_not_know_is_refused(kind: int) -> None:
    with pytest.raises(ValueError, match=r"UNSPECIFIED|99"):
        codec.change_from_message(change_message(kind=kind))


def test_fields_that_a_newer_server_adds_are_passed_over() -> None:
    unknown = b"\xfa\x3f\x05later"  # field 1023, a string
    message = route_pb2.RouteChange.FromString(change_message().SerializeToString() + unknown)
    assert codec.change_from_message(message).revision == 7


@pytest.mark.parametrize("part", ["tenant", "service", "env", "version"])
def test_a_route_of_another_key_is_refused_where_one_is_asked_for(part: str) -> None:
    key = RouteKey("team-a", "payments", "prod", "v1")
    message = codec.route_to_message(Route(key, "https://x", True, {"tier": "gold"}, 3, BIRTH, BIRTH))
    assert codec.route_from_message(message, key).key is key
    with pytest.raises(ValueError, match="another key"):
        codec.route_from_message(message, key._replace(**{part: "else"}))


# Families


FAMILY = RouteKey("team-a", "payments", "prod", "")


def divided(*slices: tuple[str, int], key: RouteKey = FAMILY) -> Traffic:
    pieces = tuple(Slice(*piece) for piece in slices)
    targets = tuple(Target(*piece) for piece in slices)
    return Traffic(key, Division(targets, ("v3",)), pieces, 7, BIRTH, BIRTH)


def version(name: str, key: RouteKey = FAMILY, *, active: bool = True) -> Route:
    route_key = key._replace(version=name)
    return Route(route_key, f"https://{name}.internal", active, {"tier": "gold"}, 5, BIRTH, BIRTH)


WHOLE = divided(("v1", 9000), ("v2", 1000))


@pytest.mark.parametrize(
    "family",
    [
        Family(FAMILY, WHOLE, (version("v1"), version("v2"))),
        Family(FAMILY, WHOLE, ()),
        Family(FAMILY, None, (version("v1"),)),
    ],
)
def test_a_family_is_decoded_as_it_was_encoded(family: Family) -> None:
    encoded = codec.value_to_bytes(family)
    assert codec.value_from_bytes(FAMILY, encoded) == family
    rest = codec.rest_to_bytes(family)
    assert codec.key_to_bytes(FAMILY) + rest == encoded
    assert codec.rest_of(FAMILY, codec.key_to_bytes(FAMILY), encoded) == rest
    assert codec.rest_from_bytes(FAMILY, rest) == family


@pytest.mark.parametrize(
    "family",
    [
        Family(FAMILY._replace(env="dev"), WHOLE, ()),
        Family(FAMILY, divided(("v1", 10_000), key=FAMILY._replace(env="dev")), ()),
        Family(FAMILY, divided(("v1", 9999)), ()),
        Family(FAMILY, divided(("v1", 10_001), ("v2", -1)), ()),
        Family(FAMILY, divided(("v1", 10_000), ("v2", 0)), ()),
        Family(FAMILY, divided(), ()),
        Family(FAMILY, WHOLE, (version("v1", FAMILY._replace(tenant="team-b")),)),
        Family(FAMILY, WHOLE, (version(""),)),
        Family(FAMILY, WHOLE, (version("v1", active=False),)),
    ],
)
def test_what_is_no_family_of_the_key_is_refused(family: Family) -> None:
    with pytest.raises(ValueError, match=r"family|active"):
        codec.value_from_bytes(FAMILY, codec.value_to_bytes(family))


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384])
def test_fields_have_lengths_of_any_size(length: int) -> None:
    routes = codec.encoded_field(2, codec.encoded_field(2, b"a" * length))

    assert watch_pb2.SnapshotBatch.FromString(routes).routes[0].url == "a" * length
