"""For bad input each malformed field is named, and nothing is leaked."""

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from tests.support.refusals import refused

URL = "https://payments.internal:8443"
GOOD = {"tenant": "team-a", "service": "payments", "env": "prod", "version": "v1"}
KEYED = ("Resolve", "Create", "Update", "Activate", "Deactivate", "Delete", "Get")


def request_of(method: str, key: RouteKey | None):
    kind = getattr(pb, f"{method}Request")
    more = {"url": URL} if method in ("Create", "Update") else {}
    return kind(key=key, **more)


@pytest.mark.parametrize("method", KEYED)
def test_a_missing_key_is_named(grpc_stub, method):
    refusal = refused(getattr(grpc_stub, method), request_of(method, None))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert list(refusal.fields) == ["key"]


@pytest.mark.parametrize("method", KEYED)
@pytest.mark.parametrize("part", GOOD)
@pytest.mark.parametrize("value", ["", "a b", "a/b", "-a", "a-", ".", "ä", "a" * 64, "a\n", "a\x00b", "$(id)"])
def test_a_malformed_part_of_a_key_is_named(grpc_stub, method, part, value):
    refusal = refused(getattr(grpc_stub, method), request_of(method, RouteKey(**(GOOD | {part: value}))))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert list(refusal.fields) == [f"key.{part}"]
    assert "1 to 63 characters" in refusal.fields[f"key.{part}"]


def test_all_malformed_fields_are_named_at_once(grpc_stub):
    request = pb.ResolveRequest(key=RouteKey(tenant="", service=" ", env="prod", version="v1"), min_revision=-1)

    assert set(refused(grpc_stub.Resolve, request).fields) == {"key.tenant", "key.service", "min_revision"}


BAD_URLS = {
    "empty": "",
    "relative": "/payments",
    "without a host": "https:///x",
    "without a scheme": "payments.internal:8443",
    "with a password": "https://user:canary@payments.internal",
    "with a user": "https://canary@payments.internal",
    "with a space": "https://payments.internal/a b",
    "with a newline": "https://payments.internal/\r\nHost: x",
    "with a NUL": "https://payments.internal/\x00",
    "with a backslash": "https://payments.internal\\@evil",
    "with a bad port": "https://payments.internal:99999",
    "too long": "https://payments.internal/" + "a" * 2048,
}


@pytest.mark.parametrize("what", BAD_URLS)
@pytest.mark.parametrize("method", ["Create", "Update"])
def test_a_bad_url_is_refused_without_being_repeated(grpc_stub, key, method, what):
    request = getattr(pb, f"{method}Request")(key=key, url=BAD_URLS[what])

    refusal = refused(getattr(grpc_stub, method), request)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.fields) == ["url"]
    assert "canary" not in refusal.message + str(refusal.fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"labels": {"bad name": "x"}}, "labels[key]"),
        ({"labels": {"a": "x\n"}}, "labels[key]"),
        ({"labels": {f"l{number}": "" for number in range(65)}}, "labels"),
        ({"request_id": "has space"}, "request_id"),
        ({"request_id": "x" * 65}, "request_id"),
        ({"reason": "x" * 1025}, "reason"),
        ({"reason": "x\x00"}, "reason"),
    ],
)
def test_other_malformed_fields_are_named(grpc_stub, key, fields, named):
    refusal = refused(grpc_stub.Create, pb.CreateRequest(key=key, url=URL, **fields))

    assert list(refusal.fields) == [named]


@pytest.mark.parametrize(
    ("method", "field"),
    [
        *(("List", field) for field in ("tenant", "service", "env")),
        *(("ListChanges", field) for field in ("tenant", "service", "env", "version", "actor")),
    ],
)
def test_a_filter_that_no_database_takes_is_named(grpc_stub, method, field):
    refusal = refused(getattr(grpc_stub, method), getattr(pb, f"{method}Request")(**{field: "a\x00"}))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == {field: "must have no NUL characters"}


def test_an_update_of_nothing_is_refused(grpc_stub, key):
    assert "nothing to update" in refused(grpc_stub.Update, pb.UpdateRequest(key=key)).message


def test_a_route_that_may_be_missing_has_no_expected_revision(grpc_stub, key):
    request = pb.UpdateRequest(key=key, url=URL, allow_missing=True, expected_revision=1)

    assert "exclude each other" in refused(grpc_stub.Update, request).message


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x05abc", b"\x0a\x06\x0a\x04\xff\xfe\xfd\xfc", b"\x07"])
@pytest.mark.parametrize("method", ["Resolve", "Create"])
def test_a_malformed_message_gets_a_fixed_text(grpc_channel, method, body):
    call = grpc_channel.unary_unary(f"/pointsman.v1.RouteService/{method}")

    refusal = refused(call, body)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refusal.message.endswith("the request is not a valid protobuf message of this method")


def test_what_only_the_validator_cannot_parse_is_malformed_too(grpc_channel):
    call = grpc_channel.unary_unary("/pointsman.v1.RouteService/Update")

    # A field 0 in a group that we do not have.
    refusal = refused(call, b"\xfb\x3f\x00\x00\xfc\x3f")

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.message.endswith("the request is not a valid protobuf message of this method")


def test_an_unknown_method_is_unimplemented(grpc_channel):
    call = grpc_channel.unary_unary("/pointsman.v1.RouteService/Nonsense")

    assert refused(call, b"").code is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_over_the_cap_is_refused(grpc_channel):
    call = grpc_channel.unary_unary("/pointsman.v1.RouteService/Resolve")

    assert refused(call, b"\x00" * (2 << 20)).code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_over_the_cap_is_refused(grpc_stub, key):
    metadata = [("x-padding", "x" * (20 << 10))]

    refusal = refused(grpc_stub.Resolve, pb.ResolveRequest(key=key), metadata=metadata)

    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
